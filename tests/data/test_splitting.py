"""The held-out share."""

import pytest
import torch

from compressor.data import split
from compressor.errors import UserError


@pytest.mark.parametrize(
    ("count", "share", "held"),
    [(60_000, 0.1, 6_000), (1437, 0.1, 144), (10, 0.25, 2), (14, 0.25, 4), (2, 0.5, 1), (7, 0.0, 0)],
)
def test_number_held_out(count: int, share: float, held: int) -> None:
    # 143.7 -> 144; 2.5 -> 2 and 3.5 -> 4: halves go to the even number.
    train, validation = split(count, share, seed=3)
    assert (len(train), len(validation)) == (count - held, held)


def test_parts_are_sorted_disjoint_and_complete() -> None:
    train, validation = split(1000, 0.3, seed=5)
    assert train.dtype == validation.dtype == torch.int64
    assert torch.equal(torch.cat([train, validation]).sort().values, torch.arange(1000))
    assert torch.equal(train, train.sort().values)
    assert torch.equal(validation, validation.sort().values)


def test_function_of_count_share_and_seed_alone() -> None:
    torch.manual_seed(1)
    first = split(500, 0.2, seed=0)
    before = torch.get_rng_state()
    again = split(torch.zeros(500), 0.2, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first[1], split(500, 0.2, seed=1)[1])


def test_spread_over_the_whole_set() -> None:
    _, validation = split(10_000, 0.1, seed=0)
    tenths = torch.bincount(validation // 1000, minlength=10)
    assert (tenths - 100).abs().max() < 50  # 5 standard deviations of about 9.5


@pytest.mark.parametrize(("count", "share", "empty"), [(4, 0.1, "validation"), (4, 0.9, "training"), (1, 0.5, "valid")])
def test_an_empty_part_is_refused(count: int, share: float, empty: str) -> None:
    with pytest.raises(UserError, match=rf"data.validation: {share} of {count} images leaves no image for {empty}"):
        split(count, share, seed=0)
