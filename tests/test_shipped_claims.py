"""The claims of the shipped schedules: the margin by pencil, and that every recorded schedule has one."""

import pytest

from benchmarks.claims import lowest
from benchmarks.golden import CONFIGS
from compressor.experiment import records
from compressor.experiment.specification import specification
from compressor.lookup import shipped_files
from compressor.schedule import Faults, open_schedule

NOT_RUN = {
    "resnet18_gst",
    "resnet20_cifar_drop_filter",
    "vgg11_gst",
}
"""Schedules whose header says that no run of them is recorded."""


@pytest.mark.parametrize(
    ("tops", "images", "claimed"),
    [
        ([90.0], 900, 88.0),  # 2 sqrt(0.9 x 0.1 / 900) = 2 x 0.01
        ([98.0], 19600, 97.8),  # 2 sqrt(0.98 x 0.02 / 19600) = 2 x 0.001
        ([89.0, 91.0], 900, 88.0),  # two seeds: their deviation does not count
        ([88.0, 90.0, 92.0], 900, 86.0),  # deviation 2, larger than the 2 points of the images
        ([89.5, 90.0, 90.5], 900, 88.0),  # deviation 0.5: the images' 2 points are larger
    ],
)
def test_the_margin_of_a_claim(tops: list[float], images: int, claimed: float) -> None:
    assert lowest(tops, images) == pytest.approx(claimed, abs=0.0101)  # rounded down
    assert lowest(tops, images) <= claimed + 1e-9


@pytest.mark.parametrize("name", shipped_files("schedules"))
def test_every_shipped_schedule_that_was_run_has_a_claim(name: str) -> None:
    faults = Faults()
    schedule = open_schedule(name, (), faults)
    assert faults.lines == []
    assert schedule.notes == []  # its configurations exist
    assert (schedule.claim is None) == (name in NOT_RUN)
    if schedule.claim is not None:
        assert schedule.claim.top1 is not None


@pytest.mark.parametrize("name", sorted(set(shipped_files("schedules")) - NOT_RUN))
def test_the_smoke_digest_of_every_claim_is_recorded_for_the_files_as_they_are(name: str) -> None:
    record = records.read(shipped_files("schedules")[name])
    assert record is not None, "run `make golden RECORD=1`"
    assert record.inputs == records.inputs(specification(name, CONFIGS.get(name))), "run `make golden RECORD=1`"
