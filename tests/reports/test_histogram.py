"""Histograms of weights, counted by hand."""

import torch
from torch import nn

from compressor.reports import histograms


@torch.no_grad()
def linear(values: list[float]) -> nn.Linear:
    layer = nn.Linear(len(values), 1)
    layer.weight.copy_(torch.tensor([values]))
    return layer


def test_zeros_are_counted_apart_and_both_ends_are_in_a_bin() -> None:
    [found] = histograms(linear([-1.0, -0.99, 0.0, -0.0, 0.5, 1.0])).values()
    assert (found.low, found.high, found.zeros, sum(found.counts), len(found.counts)) == (-1.0, 1.0, 2, 4, 50)
    # Bins of 0.04 from -1: -0.99 is in the first one, 0.5 in number 37, and 1 in the last.
    assert {place: count for place, count in enumerate(found.counts) if count} == {0: 2, 37: 1, 49: 1}


def test_removed_entries_are_zeros() -> None:
    [found] = histograms(linear([1.0, 2.0, 0.0]), {"weight": [4, 3]}).values()
    assert (found.zeros, sum(found.counts)) == (10, 2)


def test_equal_values_have_one_bin_and_zeros_alone_none() -> None:
    [found] = histograms(linear([0.5, 0.0, 0.5])).values()
    assert found.model_dump() == {"low": 0.5, "high": 0.5, "counts": [2], "zeros": 1}
    [found] = histograms(linear([0.0, 0.0])).values()
    assert found.model_dump() == {"low": None, "high": None, "counts": [], "zeros": 2}


def test_what_is_not_finite_is_left_out_and_biases_have_no_histogram() -> None:
    found = histograms(linear([float("nan"), float("inf"), 1.0, 3.0]))
    assert list(found) == ["weight"]
    assert (found["weight"].low, found["weight"].high, sum(found["weight"].counts)) == (1.0, 3.0, 2)


def test_of_many_values_none_is_lost() -> None:
    values = torch.randn(2**21 + 5, generator=torch.Generator().manual_seed(0))
    layer = nn.Linear(1, 1)
    layer.weight = nn.Parameter(values[None])
    [found] = histograms(layer).values()
    assert sum(found.counts) + found.zeros == 2**21 + 5


def test_two_neighbouring_numbers_of_float32_have_fifty_bins_between_them() -> None:
    [found] = histograms(linear([1.0, 1.0 + 2**-23])).values()
    assert (found.counts[0], found.counts[-1], len(found.counts)) == (1, 1, 50)
