"""The settings of a sweep: the Pareto front, the means, short names of keys, and the lines of results.csv."""

import pytest
from swept import run, sweep

from compressor.reports import Mean, accuracy, results_as_csv, settings_of, short_keys, times_differ
from compressor.reports.sweep import front


def test_a_point_is_on_the_front_where_no_other_one_is_at_least_as_good_in_both() -> None:
    # (cost, gain): 0 is the cheapest; 1 costs more for nothing; 2 is the best; 3 is worse than 2 in both; 4 equals 2.
    assert front([(1, 80), (2, 80), (3, 90), (4, 85), (3, 90)]) == [0, 2, 4]
    assert front([]) == []


@pytest.mark.parametrize(
    ("keys", "short"),
    [
        (["optimizer.lr", "epochs"], ["lr", "epochs"]),
        (["schedule.pruners.a.levels", "schedule.pruners.b.levels"], ["a.levels", "b.levels"]),
        (["optimizer.lr", "lr"], ["optimizer.lr", "lr"]),
        (["x.lr", "y.clr"], ["lr", "clr"]),
    ],
)
def test_a_key_has_the_shortest_end_that_no_other_one_has(keys: list[str], short: list[str]) -> None:
    assert list(short_keys(keys).values()) == short


def test_means_over_the_seeds_and_the_fronts_of_each_setting() -> None:
    dense, half, most, bad = settings_of(sweep())
    assert (dense.number, dense.label) == (1, "sparsity 0.0, lr 0.1")
    assert dense.means["top1"].mean == 95.0
    assert dense.means["top1"].deviation == pytest.approx(2**0.5)  # of 94 and 96
    assert dense.means["latency"].mean == 2.0
    # Of all four `bad` is as sparse as `most`, and less accurate; `half` is as fast as `dense`, and less accurate.
    assert [one.fronts for one in (dense, half, most, bad)] == [
        ["sparsity", "size", "latency"],
        ["sparsity", "size"],
        ["sparsity", "size", "latency"],
        [],
    ]


def test_where_the_spread_of_the_times_hides_their_difference_there_is_no_front_of_latency() -> None:
    runs = [one.model_copy(update={"latency": (one.latency[0], 3.0)}) for one in sweep() if one.latency]
    found = settings_of(runs)
    assert not times_differ(found)
    assert [one.fronts for one in found[:1]] == [["sparsity", "size"]]
    assert times_differ(settings_of(sweep()))


def test_a_line_for_each_run() -> None:
    lines = results_as_csv(settings_of([*sweep()[:1], run({"epochs": "3"}, 1, None)])).splitlines()
    assert lines[0] == (
        "run,setting,schedule.pruners.fine.sparsity,optimizer.lr,epochs,seed,status,top1,top5,loss,calibration,"
        "validation,sparsity,parameters,macs,macs_nonzero,bytes,seconds,latency_ms,latency_iqr_ms,front"
    )
    assert lines[1] == "0.0-0.1-0,1,0.0,0.1,,0,finished,94.0,,,,,0.0,,,,8000.0,,2.0,0.1,sparsity size"
    assert lines[2] == "3-1,2,,,3,1,failed,,,,,,,,,,,,,,"


def test_the_accuracy_is_the_test_s_where_there_is_one() -> None:
    mean = Mean(mean=90.0, deviation=None, runs=1)
    assert accuracy([{"validation": mean}, {"validation": mean, "top1": mean}]) == "top1"
    assert accuracy([{"validation": mean}]) == "validation"
