"""Faults are reported all at once, each once, in the order of the file."""

import pytest

from compressor.errors import UserError
from compressor.schedule.faults import Faults, Place


def test_a_place_reads_source_line_column_and_a_flag_reads_as_itself() -> None:
    assert str(Place("a.yaml", 3, 14)) == "a.yaml:3:14"
    assert str(Place("--set epochs=3")) == "--set epochs=3"


def test_faults_come_in_file_order_by_number_not_by_digit() -> None:
    faults = Faults()
    for line, column in [(10, 1), (9, 12), (9, 2), (100, 1)]:
        faults.add(Place("a.yaml", line, column), "x")
    assert faults.lines == ["a.yaml:9:2: x", "a.yaml:9:12: x", "a.yaml:10:1: x", "a.yaml:100:1: x"]


def test_the_same_fault_is_noted_once_and_another_one_at_the_same_place_too() -> None:
    faults = Faults()
    for message in ("x", "x", "y"):
        faults.add(Place("a.yaml", 1, 1), message)
    assert faults.lines == ["a.yaml:1:1: x", "a.yaml:1:1: y"]


def test_raising_reports_every_fault_and_nothing_is_raised_where_there_is_none() -> None:
    faults = Faults()
    assert not faults
    faults.raise_any()
    faults.add(Place("a.yaml", 2, 1), "second")
    faults.add(Place("a.yaml", 1, 1), "first")
    assert faults
    with pytest.raises(UserError) as caught:
        faults.raise_any()
    assert str(caught.value) == "a.yaml:1:1: first\na.yaml:2:1: second"
    assert caught.value.exit_code == 2
