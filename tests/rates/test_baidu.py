"""Baidu's two slopes: Distiller's vector and a pencil."""

from itertools import pairwise

import pytest

from compressor.rates.baidu import baidu
from compressor.timing.window import Window


def test_reference_vector_of_q_02_offset_3_mult_2_over_epochs_4_to_21_every_3() -> None:
    window = Window(starting_epoch=4, ending_epoch=21, frequency=3)
    fired = [baidu(0.2, 3, 2, window, epoch) for epoch in range(21) if window.fires(epoch)]
    # schedule-grammar.md, section 4: slope .025, .00833 is .025 / 3.
    assert fired == pytest.approx([0.025 / 3, 0.05, 0.10, 0.15, 0.20, 0.25])


def test_by_hand_with_frequency_1() -> None:
    # e0 = 0, ramp = 2, e1 = 6: start_slope = 2 * 0.8 / (2 * 2 + 3 * 4) = 0.1; behind the ramp 3 times as steep.
    window = Window(ending_epoch=6)
    fired = [baidu(0.8, 2, 3, window, epoch) for epoch in range(6)]
    assert fired == pytest.approx([0.1, 0.2, 0.1 * 3 + 0.3, 0.3 + 0.6, 0.3 + 0.9, 0.3 + 1.2])


def test_without_an_offset_the_ramp_begins_at_once() -> None:
    # start_slope = 2 * 0.3 / (3 * 2) = 0.1; eps(0) = 0.1 * 1 + 0.2 * 1, eps(1) = 0.1 + 0.2 * 2
    assert [baidu(0.3, 0, 2, Window(ending_epoch=2), epoch) for epoch in (0, 1)] == pytest.approx([0.3, 0.5])


def test_q_0_prunes_nothing_and_a_ramp_behind_the_window_never_begins() -> None:
    window = Window(ending_epoch=4)
    assert [baidu(0.0, 1, 2, window, epoch) for epoch in range(4)] == [0, 0, 0, 0]
    late = [baidu(0.4, 100, 5, window, epoch) for epoch in range(4)]
    assert [b - a for a, b in pairwise(late)] == pytest.approx([late[0]] * 3)
