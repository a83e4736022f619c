"""WHEN: the epochs (or steps) at which a window fires."""

import pytest
from pydantic import ValidationError

from compressor.timing.window import Window


def firings(window: Window, until: int = 60) -> list[int]:
    return [time for time in range(until) if window.fires(time)]


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        (Window(starting_epoch=2, ending_epoch=7), [2, 3, 4, 5, 6]),
        (Window(starting_epoch=2, ending_epoch=8, frequency=2), [2, 4, 6]),
        (Window(starting_epoch=2, ending_epoch=7, frequency=2), [2, 4, 6]),
        (Window(starting_epoch=0, ending_epoch=10, frequency=3), [0, 3, 6, 9]),
        (Window(starting_epoch=5, ending_epoch=6, frequency=9), [5]),
        (Window(ending_epoch=1), [0]),
        (Window(epochs=[4, 1, 1, 9]), [1, 4, 9]),
        (Window(epochs=[0]), [0]),
    ],
)
def test_a_window_fires_from_its_start_every_frequency_to_before_its_end_or_at_its_list(
    window: Window, expected: list[int]
) -> None:
    assert firings(window) == expected
    assert window.first == expected[0]
    assert window.last == expected[-1]


def test_the_end_is_the_first_epoch_behind_and_a_list_ends_one_behind_its_last() -> None:
    assert Window(starting_epoch=2, ending_epoch=8, frequency=2).end == 8
    assert Window(epochs=[4, 1, 9]).end == 10


def test_a_list_steps_by_1_whatever_its_gaps_are() -> None:
    assert Window(epochs=[4, 8]).step == 1
    assert Window(ending_epoch=9, frequency=4).step == 4


def test_row_frequency_and_both_range_ends_have_defaults() -> None:
    window = Window()
    assert (window.starting_epoch, window.frequency) == (0, 1)
    assert firings(window.bind(3)) == [0, 1, 2]
    assert firings(Window(starting_epoch=2).bind(5)) == [2, 3, 4]


def test_binding_leaves_a_closed_window_and_a_list_alone() -> None:
    for window in (Window(ending_epoch=4), Window(epochs=[7])):
        assert window.bind(2) == window


def test_an_open_window_that_starts_behind_the_run_is_one_epoch_that_is_never_reached() -> None:
    assert firings(Window(starting_epoch=8).bind(5)) == [8]


def test_the_end_of_an_unbound_window_is_not_known() -> None:
    with pytest.raises(ValueError, match="not bound"):
        _ = Window().last


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"epochs": [1], "frequency": 2}, "one form"),
        ({"epochs": [1], "starting_epoch": 0}, "one form"),
        ({"epochs": [1], "ending_epoch": 4}, "one form"),
        ({"starting_epoch": 3, "ending_epoch": 3}, "empty"),
        ({"starting_epoch": 4, "ending_epoch": 3}, "empty"),
        ({"epochs": []}, "epochs"),
        ({"epochs": [1, -1]}, "epochs"),
        ({"epochs": [1.0]}, "epochs"),
        ({"starting_epoch": -1}, "starting_epoch"),
        ({"ending_epoch": 0}, "ending_epoch"),
        ({"frequency": 0}, "frequency"),
        ({"frequency": "2"}, "frequency"),
        ({"frequency": True}, "frequency"),
        ({"starting_epoch": 0.5}, "starting_epoch"),
        ({"first": 1}, "first"),
        ({"ending_step": 4, "ending_epoch": 2}, "one form"),
        ({"ending_step": 4, "epochs": [2]}, "one form"),
        ({"starting_step": 4, "ending_step": 4}, "empty"),
        ({"ending_step": 0}, "ending_step"),
        ({"ending_step": 9, "step_frequency": 0}, "step_frequency"),
    ],
)
def test_a_window_of_two_forms_or_of_no_time_is_refused(keys: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Window.model_validate(keys)


def test_a_window_may_count_optimizer_steps() -> None:
    window = Window(starting_step=10, ending_step=31, step_frequency=10)
    assert window.unit == "step"
    assert firings(window) == [10, 20, 30]
    assert (window.first, window.last, window.end, window.step) == (10, 30, 31, 10)
    assert window.bind(2) == window
    assert Window(ending_epoch=5).unit == "epoch"
    assert Window().unit == "epoch"
