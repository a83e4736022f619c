"""What a run records for its report: of each epoch and once, with a reference, after an interruption, without one."""

import json
import math
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from helpers import compress, difference, interrupted, saved, succeed, write_tiny

from compressor.config import Config
from compressor.experiment import recording, training_run
from compressor.reports import read
from compressor.timing import Clock
from compressor.training import checkpoint

SCHEDULE = ("-s", "prune")
ENTRIES = {"fc1.weight": 64 * 16, "fc2.weight": 16 * 10}


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the tiny experiment: AGP over epochs 1, 2, 3 to 0.75."""
    folder = tmp_path_factory.mktemp("recorded")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_tiny(folder)
        succeed("train", *SCHEDULE, "--out", "run")
    return folder / "run"


def test_each_epoch_has_a_line_with_sparsity_target_and_the_changes_of_masks(dense: Path) -> None:
    found = read(dense)
    assert found.not_recorded == []
    assert [line.epoch for line in found.layers] == [0, 1, 2, 3]
    zeros = {name: [math.floor(s * count) for s in (0, 0.25, 0.6875, 0.75)] for name, count in ENTRIES.items()}
    for line in found.layers:
        for name, layer in line.layers.items():
            now, before = zeros[name][line.epoch], zeros[name][max(line.epoch - 1, 0)]
            assert layer.sparsity == now / ENTRIES[name]
            assert layer.target == (None if line.epoch == 0 else layer.sparsity)
            assert layer.pruned - layer.revived == now - before
        changes = [(event.step, event.policy, event.pruned - event.revived) for event in line.events]
        more = sum(own[line.epoch] - own[line.epoch - 1] for own in zeros.values())
        assert changes == ([] if line.epoch == 0 else [(0, "0.fine", more)])
    assert found.epochs[3].sparsity == pytest.approx(sum(own[3] for own in zeros.values()) / sum(ENTRIES.values()))


def test_figures_are_those_of_the_report_and_of_the_weights(dense: Path) -> None:
    found = read(dense)
    assert found.figures is not None
    assert found.figures.evaluation is not None
    assert found.report is not None
    evaluation = found.figures.evaluation
    assert (evaluation.images, evaluation.top1, evaluation.top5) == (
        360,
        found.report.totals.top1,
        found.report.totals.top5,
    )
    assert sum(one.correct for one in evaluation.classes) == round(3.60 * (evaluation.top1 or 0))
    assert [one.name for one in evaluation.classes] == [str(digit) for digit in range(10)]
    assert found.figures.reference is None
    for name, weight in saved(dense / "checkpoint.pt")["model"].items():
        if weight.dim() > 1:
            own = found.figures.histograms[name]
            assert own.before is not None
            assert own.after is not None
            assert (own.before.zeros, sum(own.before.counts)) == (0, weight.numel())
            assert (own.after.zeros, sum(own.after.counts)) == (int((weight == 0).sum()), int((weight != 0).sum()))
            assert own.after.high == float(weight.max())
    # The image and the 16 of the first layer are the most that is needed at one time.
    assert found.figures.activations.before == found.figures.activations.after == 4 * (64 + 16)


def test_the_checkpoint_of_init_is_the_reference_on_the_same_images_and_changes_nothing(
    work: Path, dense: Path
) -> None:
    init = ("train", "-c", "tiny", "--set", "epochs=1", "--init", dense)
    said = succeed(*init, "--out", "with")
    told = json.loads(succeed("eval", dense, "--json"))
    found = read(work / "with").figures
    assert found is not None
    assert found.reference is not None
    assert (found.reference.top1, found.reference.loss) == (told["top1"], pytest.approx(told["loss"]))
    assert f"test, {dense}: " in said
    with mock.patch.object(training_run.Run, "_reference", return_value=None):
        succeed(*init, "--out", "without")
    ours, theirs = (saved(work / name / "checkpoint.pt") for name in ("with", "without"))
    for each in (ours, theirs):
        del each["state"]["recording"]
    assert difference(ours, theirs, "checkpoint.pt") is None


@pytest.mark.parametrize(
    ("init", "expected"),
    [
        ("kaiming", False),
        ("a.pt", True),
        ({"path": "a.pt"}, True),
        ({"path": "a.pt", "head": "reset"}, False),  # other classes
        ({"path": "a.pt", "strict": False}, False),  # a part of a network
    ],
)
def test_the_reference_is_a_whole_network_of_the_same_classes(init: Any, expected: bool) -> None:
    base = {"model": {"name": "lenet5"}, "data": {"name": "digits"}, "optimizer": {"lr": 0.1}, "epochs": 1}
    assert recording.has_reference(Config.model_validate({**base, "init": init})) == expected


def test_a_run_that_an_older_version_began_goes_on_and_records_the_rest(work: Path) -> None:
    interrupted(*SCHEDULE, "--out", "old", epoch=2, step=9)
    (work / "old" / "layers.jsonl").unlink()
    older = saved(work / "old" / "checkpoint.pt")
    del older["state"]["recording"], older["state"]["churn"]
    checkpoint.save(work / "old" / "checkpoint.pt", older)
    said = succeed("train", *SCHEDULE, "--out", "old", "--resume")
    assert "layers.jsonl: 2 of 2 lines torn or lost (epoch 0, 1); the run continues without them" in said
    found = read(work / "old")
    assert [line.epoch for line in found.layers] == [2, 3]
    assert found.not_recorded == ["layers.jsonl: epoch 0, 1 not recorded"]
    assert found.figures is not None
    assert found.figures.activations.before is None
    assert all(own.before is None and own.after is not None for own in found.figures.histograms.values())


def test_a_signal_before_the_first_step_says_that_nothing_was_done(work: Path, dense: Path) -> None:
    plain = training_run.Run._reference

    def stopped(self: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return plain(self)

    with mock.patch.object(training_run.Run, "_reference", stopped):
        result = compress("train", "-c", "tiny", "--set", "epochs=1", "--init", dense, "--out", "new")
    assert (result.code, result.err) == (128 + signal.SIGTERM, "error: interrupted before the first step\n")
    again = succeed("train", "-c", "tiny", "--set", "epochs=1", "--init", dense, "--out", "new", "--resume")
    assert "the run begins again" in again


def test_a_smoke_run_records_the_same_files(work: Path) -> None:
    succeed("train", *SCHEDULE, "--smoke", "--out", "smoke")
    found = read(work / "smoke")
    assert (found.not_recorded, len(found.layers)) == ([], 4)


def test_a_policy_that_cannot_predict_is_told_once_and_stops_no_run() -> None:
    def predict(*arguments: Any) -> None:
        raise ZeroDivisionError("of a plugin")

    policy = SimpleNamespace(policy=SimpleNamespace(window=SimpleNamespace(unit="epoch"), predict=predict))
    policy.view = lambda view: view
    view = SimpleNamespace(once=lambda name, make: None, shapes={})
    said: list[str] = []
    asked = recording.targets_of([policy], view, Clock(3, 1), said.append)  # type: ignore[list-item, arg-type]
    assert [asked(epoch) for epoch in range(3)] == [{}, {}, {}]
    assert said == ["warning: the target sparsities by layer are not recorded: ZeroDivisionError: of a plugin"]
