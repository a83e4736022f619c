"""Means over seeds, and paired intervals, by pencil: Student's table has t(0.975; 1) = 12.706, t(0.975; 2) = 4.303."""

import math

import pytest

from compressor.reports.comparison import METRICS, RunFigures, group, interval, mean_of


def run(seed: int, top1: float, *, classes: dict[str, float | None] | None = None, **more: float | None) -> RunFigures:
    figures: dict[str, float | None] = {**dict.fromkeys(METRICS, 0.0), "top1": top1, **more}
    return RunFigures(
        run=f"r{seed}", seed=seed, figures=figures, classes=classes or {}, layers={"fc.weight": 0.1 * seed}
    )


def test_a_mean_has_the_deviation_of_a_sample() -> None:
    assert mean_of([1.0, 2.0, 6.0]).mean == 3.0
    assert mean_of([1.0, 2.0, 6.0]).deviation == pytest.approx(math.sqrt(7.0))  # (4 + 1 + 9) / 2
    assert mean_of([5.0]).deviation is None


def test_an_interval_is_students() -> None:
    assert interval([1.0]) is None
    # Of 1 and 3: mean 2, s = sqrt(2), half width 12.7062 sqrt(2) / sqrt(2).
    assert interval([1.0, 3.0]) == pytest.approx((2 - 12.7062, 2 + 12.7062), abs=1e-3)
    # Of 1, 2, 6: mean 3, s = sqrt(7), half width 4.30265 sqrt(7 / 3).
    half = 4.30265 * math.sqrt(7 / 3)
    assert interval([1.0, 2.0, 6.0]) == pytest.approx((3 - half, 3 + half), abs=1e-4)


def test_pairs_are_runs_of_equal_seeds() -> None:
    reference = group("a", [run(0, 90.0), run(1, 92.0), run(5, 80.0)])
    change = group("b", [run(1, 91.5), run(0, 88.0), run(7, 99.0)], reference).changes["top1"]
    # Seeds 0 and 1: 88 - 90 = -2 and 91.5 - 92 = -0.5; mean -1.25, s = 1.5 / sqrt(2), half width 12.7062 * 0.75.
    assert change.pairs == 2
    assert change.difference == pytest.approx((91.5 + 88 + 99) / 3 - (90 + 92 + 80) / 3)
    assert (change.low, change.high) == pytest.approx((-1.25 - 9.52965, -1.25 + 9.52965), abs=1e-3)


def test_seeds_that_stand_twice_or_once_make_no_pairs() -> None:
    reference = group("a", [run(0, 90.0), run(1, 92.0)])
    twice = group("b", [run(0, 1.0), run(0, 2.0)], reference).changes["top1"]
    single = group("b", [run(0, 1.0), run(3, 2.0)], reference).changes["top1"]
    assert (twice.pairs, twice.low, single.pairs, single.low) == (0, None, 1, None)


def test_what_one_run_lacks_has_no_mean() -> None:
    reference = group("a", [run(0, 90.0, bytes=4.0, classes={"cat": 50.0, "dog": 60.0})])
    other = group("b", [run(0, 90.0, bytes=None, classes={"cat": 40.0, "dog": None})], reference)
    assert "bytes" not in other.means
    assert set(other.class_changes) == {"cat"}
    assert other.class_changes["cat"].difference == -10.0
