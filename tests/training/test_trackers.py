"""Trackers: refused before training where they are not installed; a failure in a run costs a warning, not the run."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from helpers import compress, succeed, work  # noqa: F401

from compressor.config import LoggingConfig
from compressor.training import Tracked, track
from compressor.training import trackers as room

SHORT = ("-c", "tiny", "--set", "data.images=64", "--set", "epochs=3", "--set", "report.html=false")


class Fake:
    """Notes what it receives; fails at `fails`."""

    calls: list[Any] = []
    fails = ""

    def _note(self, what: str, *values: Any) -> None:
        torch.rand(1)  # a tracker may draw; the run must not see it
        self.calls.append((what, *values))
        if self.fails == what:
            raise RuntimeError("the server is gone\nmore")

    def begin(self, folder: Path, name: str, params: Any, identifier: str | None, done: int) -> str:
        self._note("begin", name, dict(params), identifier, done)
        return identifier or "number 1"

    def log(self, epoch: int, values: Any) -> None:
        self._note("log", epoch, dict(values))

    def end(self, status: str) -> None:
        self._note("end", status)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    """A tracker instead of mlflow."""
    adapter = type("Adapter", (Fake,), {"calls": [], "fails": ""})
    module = ModuleType("compressor.training.trackers.mlflow")
    module.ADAPTER = adapter  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "compressor.training.trackers.mlflow", module)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name == "mlflow" else found(name))
    return adapter


def test_a_tracker_that_is_not_installed_is_exit_2_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    result = compress("train", *SHORT, "--set", "logging.wandb=true", "--out", "run")
    assert result.code == 2
    assert result.err == "error: logging.wandb: wandb is not installed: pip install 'compressor[wandb]'\n"
    assert not Path("run").exists()


def test_epochs_layers_and_the_test_are_passed_on(fake: type[Fake]) -> None:
    succeed("train", *SHORT, "--set", "logging.mlflow=true", "--out", "there/run")
    begin, *logs, end = fake.calls
    assert (begin[1], begin[3:], end) == ("run", (None, 0), ("end", "finished"))
    assert (begin[2]["optimizer.momentum"], begin[2]["schedule"]) == ("0.9", "dense")
    assert [epoch for _, epoch, _ in logs] == [0, 0, 1, 1, 2, 2, 2]
    lines = [json.loads(line) for line in Path("there/run/metrics.jsonl").read_text().splitlines()]
    assert [values["val/top1"] for _, _, values in logs[:-1:2]] == [line["val"]["top1"] for line in lines]
    assert logs[1][2] == {"layer_sparsity/fc1.weight": 0.0, "layer_sparsity/fc2.weight": 0.0}
    assert set(logs[-1][2]) >= {"test/loss", "test/top1"}
    assert json.loads(Path("there/run/trackers.json").read_text()) == {"mlflow": "number 1"}


@pytest.mark.parametrize("when", ["begin", "log", "end"])
def test_a_failure_costs_one_warning_and_no_bit(fake: type[Fake], when: str) -> None:
    fake.fails = when
    out = succeed("train", *SHORT, "--set", "logging.mlflow=true", "--out", "run")
    said = "warning: logging.mlflow: RuntimeError: the server is gone; the run goes on without it"
    assert out.count(said) == 1
    assert [call[0] for call in fake.calls].count(when) == 1
    succeed("train", *SHORT, "--out", "plain")
    files = [Path(run, "layers.jsonl").read_text() for run in ("run", "plain")]
    assert files[0] == files[1]
    losses = [
        [json.loads(line)["train"] for line in Path(run, "metrics.jsonl").read_text().splitlines()]
        for run in ("run", "plain")
    ]
    assert losses[0] == losses[1]


def test_a_resumed_run_goes_on_in_the_same_one(fake: type[Fake], work: Path) -> None:  # noqa: F811
    track(LoggingConfig(mlflow=True), work, {}, 0, print)
    track(LoggingConfig(mlflow=True), work, {}, 2, print)
    assert [call[3:] for call in fake.calls] == [(None, 0), ("number 1", 2)]


def test_a_smoke_run_is_not_tracked(fake: type[Fake]) -> None:
    succeed("train", *SHORT, "--set", "logging.mlflow=true", "--smoke", "--out", "run")
    assert fake.calls == []


def test_where_it_is_logged_may_change_at_a_resume(fake: type[Fake]) -> None:
    succeed("train", *SHORT, "--out", "run")
    assert "finished already" in succeed("train", *SHORT, "--set", "logging.mlflow=true", "--resume", "--out", "run")


def test_numbers_that_are_not_finite_are_left_out() -> None:
    assert room._figures({"a": {"b": 1, "c": float("nan")}, "d": None, "e": True, "f": 2.5}) == {"a/b": 1.0, "f": 2.5}
    assert Tracked.on_test
