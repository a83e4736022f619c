"""Claims of schedules: where they stand, and what is wrong in one."""

from pathlib import Path

import pytest

from compressor.schedule import Faults, Schedule, open_schedule
from compressor.schedule.claim import Start, Top1

V1 = "policies: [{lr_scheduler: {class: StepLR, step_size: 2}, starting_epoch: 0, ending_epoch: 3, frequency: 1}]\n"
V2 = "version: 2\nconfig: lenet5_digits\n" + V1


def opened(folder: Path, text: str, beside: str | None = None) -> tuple[Schedule, list[str]]:
    (folder / "s.yaml").write_text(text)
    if beside is not None:
        (folder / "s.expect.yaml").write_text(beside)
    faults = Faults()
    schedule = open_schedule(str(folder / "s.yaml"), (), faults)
    return schedule, [line.replace(f"{folder}/", "") for line in faults.lines]


def test_a_version_2_schedule_has_its_claim_in_itself(tmp_path: Path) -> None:
    text = "expect: {top1: {min: 97.5, seeds: 3}, sparsity: 0.9, macs: 1000, init: {config: mlp_digits}}\n"
    schedule, faults = opened(tmp_path, V2 + text)
    assert faults == []
    assert schedule.claim is not None
    assert schedule.claim.top1 == Top1(min=97.5, seeds=3)
    assert (schedule.claim.sparsity, schedule.claim.macs) == (0.9, 1000)
    assert schedule.claim.init == Start(config="mlp_digits")
    assert schedule.notes == []


def test_a_version_1_schedule_has_its_claim_beside_it(tmp_path: Path) -> None:
    schedule, faults = opened(tmp_path, V1, "{config: lenet5_digits, sparsity: 0.5}\n")
    assert faults == []
    assert schedule.claim is not None
    assert schedule.claim.sparsity == 0.5
    assert schedule.claim_text == "{config: lenet5_digits, sparsity: 0.5}\n"


@pytest.mark.parametrize(
    ("text", "beside", "fault"),
    [
        (V1 + "expect: {sparsity: 0.5}\n", None, "s.yaml:2:1: 'expect' needs `version: 2`"),
        (V2, "{sparsity: 0.5}\n", "s.expect.yaml:1:1: s.yaml has version 2: write this under `expect:` in it"),
        (V1, "{sparsity: 0.5}\n", "s.expect.yaml:1:1: 'expect' needs the key 'config': the schedule names no config"),
        (V2 + "expect: {config: lenet5_digits}\n", None, "s.yaml:4:9: 'expect': should have one of top1, "),
        (V2 + "expect: {top1: 97}\n", None, "s.yaml:4:16: 'top1' of 'expect': should be a mapping, got 97"),
        (V1, "{sparsity: 0.5\n", "s.expect.yaml:2:1: not YAML: expected ',' or '}'"),
        (V1, "null\n", "s.expect.yaml:1:1: 'expect' should be a mapping, got nothing"),
        (V2 + "expect: {sparsity: 90}\n", None, "s.yaml:4:20: 'sparsity' of 'expect': should be less "),
        (
            V2 + "expect: {top1: {mim: 90}}\n",
            None,
            "s.yaml:4:17: unknown key 'mim' in 'expect': did you mean 'min'?",
        ),
        (V2 + "expect: {size: 100, macs: 1}\n", None, "s.yaml:4:10: unknown key 'size' in 'expect': there are: config"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_claim(tmp_path: Path, text: str, beside: str | None, fault: str) -> None:
    _, faults = opened(tmp_path, text, beside)
    assert len(faults) == 1
    assert faults[0].startswith(fault)


def test_a_claim_for_a_configuration_that_does_not_exist_is_a_warning_with_the_nearest_name(tmp_path: Path) -> None:
    schedule, faults = opened(tmp_path, V2 + "expect: {config: lenet5_digit, sparsity: 0.5}\n")
    assert faults == []
    [note] = schedule.notes
    assert note.startswith(f"{tmp_path}/s.yaml:4:9: warning: the claim cannot be compared: no config 'lenet5_digit'")
    assert "did you mean 'lenet5_digits'" in note


@pytest.mark.parametrize("start", ["{config: mlp_digit}", "{config: mlp_digits, schedule: lenet5_ag}"])
def test_so_is_one_that_begins_with_a_run_of_files_that_do_not_exist(tmp_path: Path, start: str) -> None:
    schedule, faults = opened(tmp_path, V2 + f"expect: {{sparsity: 0.5, init: {start}}}\n")
    assert faults == []
    [note] = schedule.notes
    assert "did you mean" in note
