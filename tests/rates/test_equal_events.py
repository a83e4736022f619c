"""Pruning in equal events: the counts of Bartoldson et al. (2020), and the firings of a window that they go by."""

import math
from fractions import Fraction
from itertools import pairwise

import pytest

from compressor.rates.events import left_after
from compressor.timing.window import Window


def left(sparsity: float, total: int, events: int) -> list[int]:
    """What is left after each event."""
    return [left_after(sparsity, total, event, events) for event in range(1, events + 1)]


def gone(kept: list[int], total: int) -> list[int]:
    """What goes at each event."""
    return [before - after for before, after in pairwise([total, *kept])]


def test_512_filters_and_90_percent_in_7_events_are_those_of_the_paper_s_code() -> None:
    assert left(0.9, 512, 7) == [447, 381, 315, 250, 184, 118, 52]
    assert gone(left(0.9, 512, 7), 512) == [65, 66, 66, 65, 66, 66, 66]
    assert sum(gone(left(0.9, 512, 7), 512)) == 460


def test_the_paper_s_four_layers_and_their_68_events_of_every_fourth_epoch() -> None:
    # "1 %": epochs 6, 10, ... 275 of the last layer; 460 filters in 68 parts of 6 or 7.
    assert Window(starting_epoch=6, ending_epoch=276, frequency=4).firings == 68
    parts = gone(left(0.9, 512, 68), 512)
    assert (set(parts), sum(parts)) == ({6, 7}, 460)
    # The other three: 30 % of 512, from epochs 3, 4 and 5 to 150: 153 filters in 37 parts of 4 or 5.
    assert [Window(starting_epoch=first, ending_epoch=151, frequency=4).firings for first in (3, 4, 5)] == [37] * 3
    assert (set(gone(left(0.3, 512, 37), 512)), left(0.3, 512, 37)[-1]) == ({4, 5}, 359)
    assert [Window(starting_epoch=6, ending_epoch=276, frequency=40).firings] == [7]  # "13 %"


def test_it_is_the_formula_of_the_paper_in_exact_fractions() -> None:
    for sparsity in (Fraction(1, 2), Fraction(1, 4), Fraction(7, 8), Fraction(3, 64)):  # floats hold them exactly
        for total in (1, 2, 7, 64, 512):
            final = math.ceil((1 - sparsity) * total)
            for events in (1, 2, 3, 7, 68):
                paper = [math.ceil(final + Fraction((total - final) * (events - i), events)) for i in range(events + 1)]
                assert [total, *left(float(sparsity), total, events)] == paper


@pytest.mark.parametrize("events", [1, 3, 7, 12, 68])
@pytest.mark.parametrize("sparsity", [0.0, 0.05, 0.35, 0.45, 0.9, 1.0])
@pytest.mark.parametrize("total", [0, 1, 2, 5, 20, 60, 512])
def test_fewer_and_fewer_are_left_in_equal_parts_and_at_the_end_exactly_f(
    sparsity: float, total: int, events: int
) -> None:
    kept, final = left(sparsity, total, events), total - math.floor(sparsity * total)
    assert kept[-1] == final
    parts = gone(kept, total)
    assert min(parts) >= 0
    assert max(parts) - min(parts) <= 1


def test_more_events_than_filters_take_one_now_and_then() -> None:
    assert left(0.5, 4, 5) == [4, 4, 3, 3, 2]  # 2 + 2 (5 - i) / 5: 3.6, 3.2, 2.8, 2.4, 2
    assert left(0.0, 4, 3) == [4, 4, 4]
    assert left(1.0, 4, 2) == [2, 0]
    assert left(0.9, 1, 3) == [1, 1, 1]  # floor(0.9 * 1) = 0 go


@pytest.mark.parametrize(
    ("window", "times"),
    [
        (Window(starting_epoch=2, ending_epoch=8, frequency=3), [2, 5]),
        (Window(starting_epoch=2, ending_epoch=9, frequency=3), [2, 5, 8]),
        (Window(starting_epoch=5, ending_epoch=6, frequency=9), [5]),
        (Window(ending_epoch=4), [0, 1, 2, 3]),
        (Window(epochs=[4, 1, 1, 9]), [1, 4, 9]),
        (Window(starting_step=10, ending_step=31, step_frequency=10), [10, 20, 30]),
        (Window(starting_step=3, ending_step=4), [3]),
    ],
)
def test_a_window_counts_its_firings_up_to_a_time(window: Window, times: list[int]) -> None:
    assert window.firings == len(times)
    for time in range(40):
        assert window.number(time) == sum(fired <= time for fired in times), time


def test_an_open_window_does_not_know_how_often_it_fires() -> None:
    with pytest.raises(ValueError, match="not bound"):
        _ = Window(starting_epoch=1).firings
    assert Window(starting_epoch=1, frequency=2).bind(6).firings == 3
