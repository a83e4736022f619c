"""Latency: the statistics of given times by hand, and what is measured of what."""

import json

import pytest
import torch
from torch import nn

from compressor.reports import compared, formats, measure
from compressor.reports.latency import BATCH, Timing, latency, timings_of, warnings_of

TAKEN = {"dense": [4.0, 2.0, 3.0, 1.0, 10.0], "masked": [3.0, 3.0, 3.0, 3.0], "thin": [1.5, 2.5, 1.0, 2.0, 0.5]}


def test_median_and_interquartile_range_by_hand() -> None:
    # sorted 1 2 3 4 10: quartiles 2, 3, 4; 0.5 1 1.5 2 2.5: 1, 1.5, 2
    dense, masked, thin = timings_of(TAKEN, 8)
    assert dense == Timing(stage="dense", batch=8, milliseconds=3, interquartile_range=2, times_as_fast=1)
    assert masked == Timing(stage="masked", batch=8, milliseconds=3, interquartile_range=0, times_as_fast=None)
    assert thin == Timing(stage="thin", batch=8, milliseconds=1.5, interquartile_range=1, times_as_fast=2)
    [even] = timings_of({"dense": [1.0, 2.0, 4.0, 8.0]}, 1)  # 1 + 3/4, 3, 4 + 1/4 of 4
    assert (even.milliseconds, even.interquartile_range) == (3, 5 - 1.75)


@pytest.mark.parametrize(
    ("dense", "thin", "warned"),
    [
        ((3.0, 1.0), (1.5, 1.0), True),  # 1 + 1 are more than the gain of 1.5
        ((3.0, 0.5), (1.5, 0.75), False),
        ((3.0, 0.0), (1.5, 1.75), True),
        ((3.0, 0.75), (1.5, 0.75), False),  # as large is not larger
        ((1.5, 1.0), (3.0, 2.0), True),  # a loss is an effect, too
        ((2.0, 0.0), (2.0, 0.0), False),
    ],
)
def test_a_spread_larger_than_the_effect_is_a_warning(
    dense: tuple[float, float], thin: tuple[float, float], warned: bool
) -> None:
    def timing(stage: str, given: tuple[float, float]) -> Timing:
        gain = None if stage == "masked" else dense[0] / given[0]
        return Timing(stage=stage, batch=4, milliseconds=given[0], interquartile_range=given[1], times_as_fast=gain)

    found = warnings_of([timing("dense", dense), timing("masked", (3.0, 9.0)), timing("thin", thin)])
    assert len(found) == warned  # of a masked network nothing is claimed
    spread, effect = dense[1] + thin[1], abs(dense[0] - thin[0])
    said = f"thin, batch 4: the spread of the times ({spread:.3g} ms) is larger than the difference to dense"
    assert all(line.startswith(f"{said} ({effect:.3g} ms)") for line in found)


class Counting(nn.Module):
    """A network that notes what it is called with, and in which mode."""

    def __init__(self, name: str, calls: list[tuple[str, int]]) -> None:
        super().__init__()
        self.fc, self.name, self.calls = nn.Linear(4, 2), name, calls

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        self.calls.append((self.name, len(x)))
        logits: torch.Tensor = self.fc(x.flatten(1))
        return logits


def test_stages_are_measured_in_turns_with_one_image_and_with_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compressor.reports.latency._ROUNDS_AT_LEAST", 9)
    calls: list[tuple[str, int]] = []
    networks = {name: Counting(name, calls).train() for name in ("dense", "thin")}
    found = latency(networks, (1, 2, 2))
    assert set(found.rounds) == {1, BATCH}
    assert all(rounds >= 9 for rounds in found.rounds.values())
    turns = [call for call, before in zip(calls, [None, *calls], strict=False) if call != before]
    for batch, rounds in found.rounds.items():
        mine = [name for name, count in turns if count == batch]
        assert mine == ["dense", "thin"] * (rounds + 3)  # three turns to see how long it takes
    assert all(network.training for network in networks.values())


def test_the_report_has_all_that_was_measured_in_one_block() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    report = measure(network, (1, 2, 2))
    first, second = (compared(report, {"dense": network, "thin": network}, (1, 2, 2)) for _ in range(2))
    bare = compared(report, {"dense": network, "thin": network}, (1, 2, 2), measures=False)
    trees = [json.loads(formats.as_json(one)) for one in (first, second, bare)]
    assert [tree.pop("latency") is None for tree in trees] == [False, False, True]
    assert trees[0] == trees[1] == trees[2]
    table = formats.as_table(first)
    assert "ms, batch 1 " in table
    assert f"ms, batch {BATCH} " in table
    assert all(f"warning: {line}" in table for line in first.latency.warnings) if first.latency else False
    assert "ms" not in formats.as_table(bare).partition("\n\n")[2].partition("\n\n")[2]
