"""compress compare: seeds are groups, what was set differently is named, a limit that is not met is exit 1."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers import compress, succeed

from compressor.experiment.comparing import Limits, _judge
from compressor.reports.comparison import METRICS, RunFigures, group


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dense and pruned runs of the seeds 0 and 1."""
    from helpers import write_tiny

    folder = tmp_path_factory.mktemp("compared")
    write_tiny(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for seed in ("0", "1"):
            succeed("train", "-c", "tiny", "--set", "epochs=1", "--seed", seed, "--out", f"dense{seed}")
            succeed("train", "-s", "prune", "--seed", seed, "--out", f"pruned{seed}")
    return folder


@pytest.fixture(autouse=True)
def there(runs: Path, monkeypatch: pytest.MonkeyPatch, work: Path) -> None:
    monkeypatch.chdir(runs)


def compared(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(succeed("compare", *arguments, "--no-latency", "--json"))
    return found


def test_seeds_of_one_schedule_are_a_group() -> None:
    found = compared("dense0", "dense1", "pruned1", "pruned0")
    assert [[run["run"] for run in one["runs"]] for one in found["groups"]] == [
        ["dense0", "dense1"],
        ["pruned1", "pruned0"],
    ]
    tops = [json.loads(Path(f"dense{seed}/figures.json").read_text())["evaluation"]["top1"] for seed in (0, 1)]
    assert found["groups"][0]["means"]["top1"]["mean"] == pytest.approx(sum(tops) / 2)
    assert found["groups"][1]["changes"]["top1"]["pairs"] == 2
    [(name, differences)] = found["differences"].items()
    assert name == "pruned1 and 1 more"
    assert [one["what"] for one in differences] == ["the schedule", "epochs"]


def test_a_run_of_the_same_seed_is_no_member_of_its_group() -> None:
    shutil.copytree("dense0", "again", dirs_exist_ok=True)
    found = compared("dense0", "again")
    assert [len(one["runs"]) for one in found["groups"]] == [1, 1]
    assert found["groups"][1]["changes"]["top1"]["difference"] == 0.0
    assert found["differences"] == {"again": []}


def test_the_text_names_figures_classes_and_differences() -> None:
    out = succeed("compare", "dense0", "pruned0")
    assert re.search(
        r"^  epochs\n    reference: 1 \(\S*dense0/config\.yaml:\d+:1\)\n    pruned0: 4 \(", out, re.MULTILINE
    )
    for said in (
        "test top-1 (%)",
        "latency of one image (ms)",
        "set differently in pruned0:",
        "classes that lost accuracy",
    ):
        assert said in out
    assert "reference: dense0 (seed 0)" in out


@pytest.mark.parametrize(
    ("limit", "code", "said"),
    [
        (("--min-sparsity", "0.01"), 0, "--min-sparsity 1 %: met"),
        (("--min-sparsity", "99%"), 1, "--min-sparsity 99 %: NOT met"),
        (("--max-size", "1MB"), 0, "--max-size 1,000,000 bytes: met"),
        (("--max-size", "0.1KiB"), 1, "--max-size 102 bytes: NOT met"),
        (("--max-drop", "100"), 0, "--max-drop 100 points: met"),
        (("--max-latency", "10000"), 0, "--max-latency 10,000 ms: met"),
        (("--min-sparsity", "90"), 2, "should be a fraction"),
        (("--max-size", "3 parsecs"), 2, "kB, MB"),
        (("--max-drop", "-1"), 2, "-1"),
    ],
)
def test_limits(limit: tuple[str, str], code: int, said: str) -> None:
    result = compress("compare", "dense0", "pruned0", *limit)
    assert result.code == code
    assert said in result.out + result.err


def test_a_limit_of_a_latency_that_is_not_measured_is_refused_before_any_work() -> None:
    result = compress("compare", "nowhere", "dense0", "--no-latency", "--max-latency", "5")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: --max-latency needs the time that --no-latency does not measure")


def test_seeds_whose_reports_and_logs_differ_are_a_group(work: Path) -> None:
    shutil.copytree("dense1", work / "other")
    config = work / "other" / "config.yaml"
    config.write_text(config.read_text().replace("tensorboard: false", "tensorboard: true"))
    assert "tensorboard: true" in config.read_text()
    found = compared("dense0", str(work / "other"))
    assert [len(one["runs"]) for one in found["groups"]] == [2]


def test_what_is_no_finished_run_is_named() -> None:
    shutil.copytree("dense0", "torn", dirs_exist_ok=True)
    Path("torn/sparsity.json").unlink(missing_ok=True)
    for arguments, said in (
        (("dense0", "torn"), "torn has no sparsity.json: the run is not finished"),
        (("dense0", "nowhere"), "nowhere: no such folder"),
        (("dense0",), "at least two runs"),
        (("dense0", "./dense0"), "given twice"),
        (("dense0", "dense1", "--max-drop", "1"), "several seeds"),
        (("torn", "dense1", "--html", "nowhere/page.html"), "there is no folder nowhere"),  # before any work
        (("torn", "dense1", "--html", "torn"), "torn is a folder"),
    ):
        result = compress("compare", *arguments, "--no-latency")
        assert (result.code, said in result.err) == (2, True), result.err


def test_a_page_has_every_name_escaped() -> None:
    shutil.copytree("pruned0", "<b>&", dirs_exist_ok=True)
    succeed("compare", "dense0", "<b>&", "--no-latency", "--html", "page.html")
    page = Path("page.html").read_text()
    assert "<b>&" not in page
    assert "&lt;b&gt;&amp;" in page
    assert page.count("<svg") >= 3
    assert Path("compare.html").exists() is False


def test_a_latency_within_the_spread_of_the_limit_is_not_decided() -> None:
    one = group("a", [RunFigures(run="a", seed=0, figures=dict.fromkeys(METRICS, 1.0), classes={}, layers={})])
    outcomes = []
    for limit in (1.0, 1.9, 2.1, 3.0):
        [judged] = _judge(one, Limits(max_latency=limit), {"a": (2.0, 0.3)})
        outcomes.append((judged.held, judged.undecided))
    assert outcomes == [(False, False), (False, True), (False, True), (True, False)]


def run(top1: float, classes: dict[str, float | None]) -> RunFigures:
    figures: dict[str, float | None] = {**dict.fromkeys(METRICS, 1.0), "top1": top1}
    return RunFigures(run="r", seed=0, figures=figures, classes=classes, layers={})


def test_a_drop_is_what_was_lost_and_the_class_that_lost_the_most_is_judged() -> None:
    reference = group("a", [run(90.0, {"cat": 60.0, "dog": 50.0, "eel": 50.0})])
    other = group("b", [run(88.0, {"cat": 50.0, "dog": 70.0, "eel": 47.0})], reference)
    for limits, held, said in (
        (Limits(max_drop=1.9), False, "top-1 dropped by 2.00 points"),
        (Limits(max_drop=2.0), True, "top-1 dropped by 2.00 points"),
        (Limits(max_class_drop=9.9), False, "the worst class, cat, dropped by 10.00 points"),
        (Limits(max_class_drop=10.0), True, "the worst class, cat, dropped by 10.00 points"),
    ):
        [judged] = _judge(other, limits, {})
        assert (judged.held, said in judged.text) == (held, True), judged.text
    [rise] = _judge(group("c", [run(91.0, {})], reference), Limits(max_drop=0.0), {})
    assert (rise.held, "top-1 rose by 1.00 points" in rise.text) == (True, True)


def test_seeds_that_each_begin_with_a_checkpoint_of_their_own_are_a_group() -> None:
    for seed in ("0", "1"):
        begin = ("--init", f"dense{seed}", "--seed", seed, "--out", f"tuned{seed}")
        succeed("train", "-c", "tiny", "--set", "epochs=1", *begin)
    found = compared("dense0", "tuned0", "tuned1")
    assert [[run["run"] for run in one["runs"]] for one in found["groups"]] == [["dense0"], ["tuned0", "tuned1"]]
