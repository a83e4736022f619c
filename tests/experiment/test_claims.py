"""What a run says of its schedule's claim, at its end."""

from pathlib import Path

import pytest
from helpers import compress, succeed

# Half of 1,024 + 160 weights: 592 zeros.
CLAIMED = """\
version: 2
config: tiny
expect: {top1: {min: 1.0, seeds: 3}, sparsity: 0.5, macs: 591}
pruners:
  half: {class: SparsityLevelParameterPruner, levels: {'*': 0.5}}
policies:
  - {pruner: {instance_name: half}, epochs: [0]}
"""


def claims(text: str) -> list[str]:
    return [line for line in text.splitlines() if "claim" in line]


@pytest.fixture
def claimed(work: Path) -> Path:
    (work / "claimed.yaml").write_text(CLAIMED)
    return work


def test_each_figure_is_printed_beside_the_reached_one(claimed: Path) -> None:
    result = compress("train", "-s", "claimed", "--out", "run")
    assert result.code == 0  # a claim is no target
    top1, sparsity, macs = claims(result.out + result.err)
    assert top1.startswith("claimed: test top-1 at least 1.00 % (mean of 3 seeds; this is one); reached: ")
    assert "missed" not in top1
    assert sparsity == "claimed: sparsity at least 50.00 %; reached: 50.00 %"
    assert macs == "claimed: at most 591 MACs; reached: 592 (missed)"
    logged = claims((claimed / "run" / "log.txt").read_text())
    assert [line.partition("claimed")[2] for line in logged] == [line[7:] for line in (top1, sparsity, macs)]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--set", "epochs=1"], "it is for the configuration tiny: epochs is 1 now, 4 there"),
        (["--set", "schedule.pruners.half.levels={fc1.weight: 0.5}"], None),
        (["--set", "seed=3"], "claimed"),
    ],
)
def test_a_run_of_other_settings_is_not_compared(claimed: Path, flags: list[str], said: str | None) -> None:
    result = compress("train", "-s", "claimed", *flags, "--out", "run")
    lines = claims(result.out + result.err)
    if said == "claimed":
        assert len(lines) == 3
    else:
        assert lines == [f"the schedule's claim is not compared: {said or '--set changed the schedule'}"]


def test_a_smoke_run_is_not_judged(claimed: Path) -> None:
    result = compress("train", "-s", "claimed", "--smoke", "--out", "run")
    assert claims(result.out + result.err) == []


def test_a_run_is_resumed_after_its_claim_was_written(claimed: Path) -> None:
    (claimed / "claimed.yaml").write_text(CLAIMED.replace("sparsity: 0.5, ", ""))
    succeed("train", "-s", "claimed", "--out", "run")
    (claimed / "claimed.yaml").write_text(CLAIMED)
    assert "finished already" in succeed("train", "-s", "claimed", "--out", "run", "--resume")


def test_the_claim_of_a_version_1_schedule_goes_with_it_into_the_folder(claimed: Path) -> None:
    (claimed / "old.yaml").write_text(
        "pruners: {half: {class: SparsityLevelParameterPruner, levels: {fc1.weight: 0.5}}}\n"
        "policies: [{pruner: {instance_name: half}, epochs: [0]}]\n"
    )
    (claimed / "old.expect.yaml").write_text("{config: tiny, set: {epochs: 1}, sparsity: 0.4}\n")
    result = compress("train", "-s", "old", "-c", "tiny", "--set", "epochs=1", "--out", "run")
    # 512 of 1,184 weights
    assert claims(result.out + result.err) == ["claimed: sparsity at least 40.00 %; reached: 43.24 %"]
    assert (claimed / "run" / "schedule.expect.yaml").read_text() == (claimed / "old.expect.yaml").read_text()


def test_a_figure_that_is_not_reached_is_marked(claimed: Path) -> None:
    text = CLAIMED.replace("min: 1.0, seeds: 3", "min: 100")
    text = text.replace("sparsity: 0.5, macs: 591", "sparsity: 0.51, macs: 592")
    (claimed / "claimed.yaml").write_text(text)
    result = compress("train", "-s", "claimed", "--out", "run")
    top1, sparsity, macs = claims(result.out + result.err)
    assert top1.startswith("claimed: test top-1 at least 100.00 %; reached: ")
    assert top1.endswith(" % (missed)")
    assert sparsity == "claimed: sparsity at least 51.00 %; reached: 50.00 % (missed)"
    assert macs == "claimed: at most 592 MACs; reached: 592"
