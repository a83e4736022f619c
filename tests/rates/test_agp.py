"""AGP's cubic: Distiller's vectors, and a total function where Distiller crashed."""

import pytest

from compressor.rates.agp import agp
from compressor.timing.window import Window

# schedule-grammar.md, section 4, rounded there to 5 digits.
EVERY_2 = [0.05, 0.1397, 0.21662, 0.28172, 0.33601, 0.38045, 0.41603, 0.44375, 0.46458, 0.4795, 0.4895, 0.49557]
EVERY_2 += [0.49869, 0.49984, 0.5]


def test_reference_vector_from_5_to_50_percent_over_30_epochs_every_2() -> None:
    window = Window(starting_epoch=0, ending_epoch=30, frequency=2)
    fired = [agp(0.05, 0.5, window, epoch) for epoch in range(30) if window.fires(epoch)]
    assert fired == pytest.approx(EVERY_2, abs=5.1e-6)
    assert fired[0] == pytest.approx(0.05, abs=1e-15)
    assert fired[-1] == 0.5


def test_reference_vector_over_10_epochs_every_3() -> None:
    window = Window(starting_epoch=0, ending_epoch=10, frequency=3)
    fired = [agp(0.05, 0.5, window, epoch) for epoch in (0, 3, 6, 9)]
    assert fired == pytest.approx([0.05, 0.36667, 0.48333, 0.5], abs=5.1e-6)


def test_by_hand_half_way_is_seven_eighths_of_the_way() -> None:
    window = Window(starting_epoch=10, ending_epoch=15)  # span 4: 10, 11, 12, 13, 14
    assert agp(0.0, 0.8, window, 12) == pytest.approx(0.8 - 0.8 / 8)
    assert agp(0.2, 0.8, window, 11) == pytest.approx(0.8 - 0.6 * 27 / 64)
    assert agp(0.2, 0.8, window, 13) == pytest.approx(0.8 - 0.6 / 64)


def test_it_starts_at_initial_and_ends_at_final_exactly_whatever_the_frequency() -> None:
    for start in (0, 3):
        for length in range(2, 14):
            for frequency in range(1, length):
                window = Window(starting_epoch=start, ending_epoch=start + length, frequency=frequency)
                assert agp(0.1, 0.7, window, start) == pytest.approx(0.1, abs=1e-15)
                assert agp(0.1, 0.7, window, window.last) == 0.7
                values = [agp(0.1, 0.7, window, e) for e in range(start, start + length) if window.fires(e)]
                assert values == sorted(values)


@pytest.mark.parametrize(
    "window",
    [
        Window(starting_epoch=4, ending_epoch=5),
        Window(epochs=[4]),
        Window(starting_epoch=4, ending_epoch=6, frequency=2),
    ],
)
def test_row_agp_is_total_on_a_window_of_one_firing_it_gives_final(window: Window) -> None:
    assert agp(0.1, 0.7, window, 4) == 0.7


def test_row_agp_is_total_on_a_list_where_e0_is_the_first_e1_the_last_plus_1_and_f_is_1() -> None:
    window = Window(epochs=[6, 2, 4])
    assert agp(0.0, 0.8, window, 2) == 0.0
    assert agp(0.0, 0.8, window, 4) == pytest.approx(0.7)
    assert agp(0.0, 0.8, window, 6) == 0.8
    assert agp(0.0, 0.8, Window(epochs=[2, 3, 6]), 3) == pytest.approx(0.8 - 0.8 * 27 / 64)


def test_row_agp_is_total_from_0_downwards_and_on_the_level() -> None:
    window = Window(ending_epoch=3)
    assert [agp(0.0, 0.5, window, e) for e in range(3)] == pytest.approx([0.0, 0.4375, 0.5])
    assert [agp(0.5, 0.0, window, e) for e in range(3)] == pytest.approx([0.5, 0.0625, 0.0])
    assert [agp(0.5, 0.5, window, e) for e in range(3)] == [0.5, 0.5, 0.5]


def test_outside_its_window_it_stays_at_its_ends() -> None:
    window = Window(starting_epoch=3, ending_epoch=8, frequency=2)  # 3, 5, 7
    assert agp(0.1, 0.7, window, 0) == pytest.approx(0.1)
    assert agp(0.1, 0.7, window, 8) == 0.7
    assert agp(0.1, 0.7, window, 100) == 0.7


def test_it_counts_steps_where_its_window_does() -> None:
    window = Window(starting_step=100, ending_step=501, step_frequency=100)
    assert [agp(0.0, 0.8, window, t) for t in (100, 300, 500)] == pytest.approx([0.0, 0.7, 0.8])
