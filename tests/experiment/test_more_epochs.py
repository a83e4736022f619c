"""`--resume --set epochs=N`: a run is trained on for more epochs than it was planned for, or the reason is given."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from helpers import compress, difference, interrupted, metrics, saved, succeed

# Windows that end before, with and after a run of 2 epochs: a mask that stays, a gate that is folded where its window
# ends, a mask that is lifted there, a penalty and learning rates. Dropout draws from torch's generator at every step.
CLOSED = """\
version: 2
config: tiny
pruners:
  fine: {class: AutomatedGradualPruner, initial_sparsity: 0.25, final_sparsity: 0.75, weights: [fc1.weight]}
  short: {class: SparsityLevelParameterPruner, levels: {fc2.weight: 0.5}}
  late: {class: SparsityLevelParameterPruner, levels: {fc2.weight: 0.85}}
gates:
  l0: {class: HardConcreteL0, weights: [fc2.weight], structure: Elements, lambda: 0.1, lr: 0.01}
policies:
  - {pruner: {instance_name: fine}, starting_epoch: 0, ending_epoch: 1}
  - {regularizer: {class: L1Regularizer, reg_regims: {fc1.weight: 1e-4}}, epochs: [0, 2]}
  - POLICY
  - {lr_scheduler: {class: StepLR, step_size: 2, gamma: 0.1}, starting_epoch: 0, ending_epoch: 9}
"""
POLICIES = {
    "a gate": "{gate: {instance_name: l0}, starting_epoch: 0, ending_epoch: 2}",
    "a lifted mask": "{pruner: {instance_name: short, args: {mask_on_forward_only: true}}, epochs: [0, 1]}",
    # Its target is missed by the shorter run, whose best epoch is none of the longer one's: more zeros follow.
    "zeros to come": "{pruner: {instance_name: late}, epochs: [3]}",
}
TWO, FOUR = ("-s", "closed", "--set", "epochs=2"), ("-s", "closed", "--set", "epochs=4")
ON = ("train", *FOUR, "--resume", "--out", "run")


@pytest.fixture(params=list(POLICIES))
def missed(request: pytest.FixtureRequest, work: Path) -> bool:
    """Write the schedule, and return whether the shorter run misses a target of it."""
    (work / "closed.yaml").write_text(CLOSED.replace("POLICY", POLICIES[request.param]))
    return bool(request.param == "zeros to come")


def of_gate(work: Path) -> None:
    (work / "closed.yaml").write_text(CLOSED.replace("POLICY", POLICIES["a gate"]))


def end(run: str, name: str = "checkpoint.pt") -> dict[str, Any]:
    """A checkpoint without the test figures of before."""
    found = saved(Path(run, name))
    found["metrics"] = {key: value for key, value in found["metrics"].items() if not key.startswith("test_after")}
    return found


def same(one: str, other: str) -> bool:
    assert difference(metrics(Path(one)), metrics(Path(other))) is None
    for name in ("checkpoint.pt", "best.pt"):
        assert difference(end(one, name), end(other, name), name) is None
    assert Path(one, "config.yaml").read_bytes() == Path(other, "config.yaml").read_bytes()
    return True


def test_it_ends_as_if_it_had_been_planned_for_all_epochs(missed: bool) -> None:
    assert compress("train", *TWO, "--out", "run").code == missed
    first = saved(Path("run/checkpoint.pt"))["metrics"]["test"]
    assert "it is trained on to 4" in succeed(*ON)
    succeed("train", *FOUR, "--out", "whole")
    assert same("run", "whole")
    assert saved(Path("run/checkpoint.pt"))["metrics"]["test_after_2_epochs"] == first


def test_every_test_figure_of_before_is_kept_with_its_epochs(work: Path) -> None:
    dense = ("-c", "tiny", "--out", "run")
    figures = []
    for epochs in (1, 2, 3):
        out = succeed("train", *dense, "--set", f"epochs={epochs}", "--resume")
        figures.append(saved(Path("run/checkpoint.pt"))["metrics"]["test"])
    said = "test after {}, before the run was trained on: top-1 {:.2f} %"
    for line in (said.format("1 epoch", figures[0]["top1"]), said.format("2 epochs", figures[1]["top1"])):
        assert line in out
        assert line in Path("run/log.txt").read_text()
        assert line in succeed("report", "run")
    written = json.loads(Path("run/sparsity.json").read_text())
    asked = json.loads(succeed("report", "run", "--json"))
    expected = [{"epochs": 1, **figures[0]}, {"epochs": 2, **figures[1]}]
    assert written["earlier_tests"] == asked["earlier_tests"] == expected
    assert written["totals"]["top1"] == figures[2]["top1"]


def test_a_run_that_is_killed_while_it_is_trained_on_continues_to_the_same_end(work: Path) -> None:
    of_gate(work)
    succeed("train", *FOUR, "--out", "whole")
    succeed("train", *TWO, "--out", "run")
    finished = Path("run/checkpoint.pt").read_bytes()
    interrupted(*ON[1:], epoch=3)
    succeed("train", "--resume", "--out", "run")  # its config.yaml has the new number
    assert same("run", "whole")
    # Killed before the first new checkpoint: config.yaml has the new number, the checkpoint is the finished one.
    Path("run/checkpoint.pt").write_bytes(finished)
    lines = Path("run/metrics.jsonl").read_text().splitlines(keepends=True)
    Path("run/metrics.jsonl").write_text("".join(lines[:2]))
    succeed("train", "--resume", "--out", "run")
    assert same("run", "whole")
    assert "finished already" in succeed("train", "--resume", "--out", "run")


def test_a_run_that_was_stopped_may_be_planned_for_more_epochs(work: Path) -> None:
    of_gate(work)
    succeed("train", *FOUR, "--out", "whole")
    interrupted(*TWO, "--out", "run", epoch=0)
    succeed(*ON)
    assert same("run", "whole")
    assert not [key for key in saved(Path("run/checkpoint.pt"))["metrics"] if key.startswith("test_after")]


@pytest.mark.parametrize("kind", ["pruner", "lr_scheduler"])
def test_a_window_without_an_end_is_refused_with_its_place_and_the_way_out(work: Path, kind: str) -> None:
    ends = {"pruner": "instance_name: fine}, starting_epoch: 0", "lr_scheduler": "gamma: 0.1}, starting_epoch: 0"}
    of_gate(work)
    text = Path("closed.yaml").read_text()
    text = re.sub(re.escape(ends[kind]) + r", ending_epoch: \d", ends[kind], text)
    Path("closed.yaml").write_text(text)
    line = 1 + text[: text.index(ends[kind])].count("\n")
    succeed("train", *TWO, "--out", "run")
    before = {path: path.read_bytes() for path in Path("run").iterdir()}
    result = compress(*ON)
    assert (result.code, result.out) == (2, "")
    [said] = result.err.splitlines()
    for part in (f"closed.yaml:{line}:5: ", "no end in the file", "planned for 2 epochs", "--init run/checkpoint.pt"):
        assert part in said
    assert {path: path.read_bytes() for path in Path("run").iterdir()} == before
    succeed("train", *FOUR, "--init", "run/checkpoint.pt", "--out", "new")  # the way out


def test_fewer_epochs_are_refused_and_as_many_are_no_new_work(work: Path) -> None:
    of_gate(work)
    succeed("train", *TWO, "--out", "run")
    assert "finished already" in succeed("train", *TWO, "--resume", "--out", "run")
    result = compress("train", "-s", "closed", "--set", "epochs=1", "--resume", "--out", "run")
    assert (result.code, result.out) == (2, "")
    assert "run was planned for 2 epochs, 1 is fewer: a run is continued with as many or more" in result.err


def test_without_out_the_run_of_the_same_number_comes_first_then_one_of_fewer() -> None:
    dense = ("train", "-c", "tiny", "--resume", "--set")
    succeed(*dense, "epochs=1")
    assert "runs/dense-tiny-1" in succeed(*dense, "epochs=2")
    succeed("train", "-c", "tiny", "--set", "epochs=1")
    assert "runs/dense-tiny-1: finished already" in succeed(*dense, "epochs=2")
    assert "runs/dense-tiny-2: finished already" in succeed(*dense, "epochs=1")
    assert sorted(path.name for path in Path("runs").iterdir()) == ["dense-tiny-1", "dense-tiny-2"]
