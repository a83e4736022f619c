"""A run with `test: false`: nothing looks at the test images, and nothing that it leaves has a figure of them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from helpers import compress, metrics, saved, succeed

from compressor.data import DataFeed
from compressor.experiment import local_queue, run, sweeping
from compressor.experiment.specification import specification

CLAIMED = """\
version: 2
config: tiny
expect: {top1: {min: 1.0}}
pruners:
  half: {class: SparsityLevelParameterPruner, levels: {'*': 0.5}}
policies:
  - {pruner: {instance_name: half}, epochs: [0]}
"""
UNTESTED = ("--set", "test=false", "--set", "data.validation=0.5")


@pytest.fixture
def no_tests() -> Iterator[None]:
    """Refuse the test images."""
    with mock.patch.object(DataFeed, "test", side_effect=AssertionError("the test images were asked for")):
        yield


def keys(value: Any) -> Iterator[str]:
    """Yield all keys of nested mappings and lists."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield str(key)
            yield from keys(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from keys(one)


@pytest.mark.usefixtures("no_tests")
def test_no_file_and_no_line_has_a_test_figure(work: Path) -> None:
    (work / "claimed.yaml").write_text(CLAIMED)
    begun = succeed("train", "-s", "claimed", *UNTESTED, "--out", "dense")
    said = succeed("train", "-s", "claimed", *UNTESTED, "--init", "dense/checkpoint.pt", "--out", "run")
    for text in (begun, said, (work / "run" / "log.txt").read_text()):
        assert "no test images (test: false); 4 epochs" in text
        assert "test," not in text
        assert "test top-1" not in text
    assert "the schedule's claim is not compared: it is of test images, and this run has test: false" in said
    for name in ("checkpoint.pt", "best.pt"):
        figures = saved(work / "run" / name)["metrics"]
        assert set(figures) == {"train", "validation"}
        assert figures["validation"]["top1"] > 0
    assert all("test" not in set(keys(line)) for line in metrics(work / "run"))
    assert json.loads((work / "run" / "sparsity.json").read_text())["totals"]["top1"] is None
    recorded = json.loads((work / "run" / "figures.json").read_text())
    assert (recorded["reference"], recorded["evaluation"]) == (None, None)


def test_the_chosen_run_is_tested_by_eval_and_others_are_as_they_were(work: Path) -> None:
    weights = []
    for choice in ("true", "false"):
        said = succeed("train", "-s", "prune", *UNTESTED, "--set", f"test={choice}", "--out", choice)
        assert ("test, last epoch" in said) == (choice == "true")
        weights.append(saved(work / choice / "checkpoint.pt"))
    assert all(bool((weights[0]["model"][name] == one).all()) for name, one in weights[1]["model"].items())
    top1 = weights[0]["metrics"]["test"]["top1"]
    assert f"{top1:.2f}" in succeed("eval", "false")


@pytest.mark.usefixtures("no_tests")
def test_runs_are_compared_by_validation(work: Path) -> None:
    for number in (0, 1):
        succeed(
            "train", "-s", "prune", *UNTESTED, "--set", f"optimizer.lr={0.1 - 0.05 * number}", "--out", f"run{number}"
        )
    said = succeed("compare", "run0", "run1")
    own = [f"{metrics(work / f'run{number}')[-1]['val']['top1']:.2f}" for number in (0, 1)]
    [line] = [line for line in said.splitlines() if line.startswith("validation top-1 (%)")]
    assert all(figure in line for figure in own)
    assert "test top-1" not in said
    refused = compress("compare", "run0", "run1", "--max-drop", "1")
    assert refused.code == 2
    page = work / "compared.html"
    succeed("compare", "run0", "run1", "--html", page)
    assert "Validation top-1 (%) against stored size" in page.read_text()


class Here:
    """Trains one run after the other in this process."""

    def __init__(self, path: Path, jobs: int | None, device: str, data: Path | None) -> None:
        self._path = path

    def run(self, names: list[str], stop: sweeping.Stop) -> Iterator[tuple[str, str | None]]:
        for name in names:
            path = self._path / name
            run.train(specification(str(path / "schedule.yaml"), str(path / "config.yaml")), path, None, "cpu", True)
            yield name, None


@pytest.mark.usefixtures("no_tests")
def test_a_sweep_is_drawn_by_validation(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_queue, "LocalQueue", Here)
    grid = ("test=false", "data.validation=0.5", "optimizer.lr=0.1,0.01")
    said = succeed("sweep", "prune", *(word for one in grid for word in ("--grid", one)), "--out", "swept")
    assert "validation top-1 %" in said
    assert "Pareto" in said
    page = (work / "swept" / "report.html").read_text()
    assert "Validation top-1 (%) against sparsity" in page
    assert "Test top-1" not in page


def test_what_needs_test_images_is_refused(work: Path) -> None:
    both = compress("train", "-s", "prune", *UNTESTED, "--set", "test_every_epoch=true", "--out", "run")
    assert both.code == 2
    assert "test_every_epoch: true tests after each epoch, and test: false never: remove one of them" in both.err
    policies = (work / "prune.yaml").read_text() + "  - instability: {part: test}\n"
    (work / "watched.yaml").write_text(policies)
    watched = compress("train", "-s", "watched", *UNTESTED, "--out", "run")
    assert watched.code == 2
    lines = policies.count("\n")
    assert f"watched.yaml:{lines}:" in watched.err
    assert "uses the test images, the configuration has test: false: choose `part: validation`" in watched.err
    assert not (work / "run").exists()


def test_a_claim_of_test_images_cannot_be_verified_without_them(work: Path) -> None:
    (work / "claimed.yaml").write_text(CLAIMED.replace("{top1", "{set: {test: false, data.validation: 0.5}, top1"))
    result = compress("verify", "claimed", "--out", "verified")
    assert result.code == 2
    assert "was not tested (test: false): a claim is of test images" in result.out + result.err


def test_the_report_says_why_it_has_no_test_figures(work: Path) -> None:
    succeed("train", "-s", "prune", "--out", "tested")
    top1 = saved(work / "tested" / "checkpoint.pt")["metrics"]["test"]["top1"]
    succeed("train", "-s", "prune", *UNTESTED, "--set", "report.reference=tested", "--out", "run")
    succeed("report", "run", "--html")
    page = (work / "run" / "report.html").read_text()
    assert "the last epoch; the run does not use the test images (test: false)" in page
    assert "The run does not use the test images (test: false)." in page
    assert "not tested yet" not in page
    assert f"{top1:.2f}" not in page  # nor has it one of another run
