"""Large tensors in pieces: the bits of the whole, whatever the layout."""

import operator
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from compressor.sparsity import (
    PIECE,
    any_nonzero,
    any_of_rows,
    compare,
    copied,
    count_nonzero,
    joined,
    magnitudes,
    map_pieces,
    new_like,
    pieces,
    set_small_to_zero,
    set_to_zero,
    squares,
)

SIDES = (4, 9, 128, 151)  # two pieces and a rest

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda t: t,
    "channels_last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "transposed": lambda t: t.transpose(0, 3),
    "with gaps": lambda t: t[:, :, ::2],
    "at an offset": lambda t: t[1:],
    "sides of 1": lambda t: t.unsqueeze(0).unsqueeze(3),
    "repeated": lambda t: t[:1].expand(3, -1, -1, -1),
}

layouts = pytest.mark.parametrize("layout", LAYOUTS)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])


def numbers(layout: str, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normal numbers with zeros of both signs, infinities and NaN, in a layout."""
    torch.manual_seed(0)
    t = torch.randn(SIDES, dtype=dtype)
    for place, value in enumerate((0.0, -0.0, float("inf"), -float("inf"), float("nan"))):
        t.view(-1)[place::1013] = value
    return LAYOUTS[layout](t)


def same_bits(some: Tensor, other: Tensor) -> bool:
    """Whether two tensors have equal bits, NaN and the sign of zero too."""
    width = {2: torch.int16, 4: torch.int32, 8: torch.int64}[some.element_size()]
    return some.dtype == other.dtype and torch.equal(some.contiguous().view(width), other.contiguous().view(width))


@layouts
def test_the_pieces_hold_each_entry_once_in_one_order_for_all(layout: str) -> None:
    t = numbers(layout).nan_to_num()
    if layout != "repeated":  # its entries are not apart: nothing is written to them
        for part, copy in pieces(t, other := copied(t)):
            assert torch.equal(part, copy)
            part.add_(1.0)
        assert torch.equal(t, other + 1.0)


def test_a_piece_is_small() -> None:
    assert [len(part) for (part,) in pieces(torch.zeros(2 * PIECE + 5))] == [PIECE, PIECE, 5]


@layouts
@dtypes
def test_a_mask_in_pieces_is_the_mask_of_the_whole(layout: str, dtype: torch.dtype) -> None:
    t = numbers(layout, dtype) if layout != "repeated" else numbers(layout, dtype).clone()
    keep = torch.rand(t.shape) > 0.5
    expected = torch.where(keep, t, torch.zeros((), dtype=dtype))
    set_to_zero(t, keep.view(torch.int8).neg())
    assert same_bits(t, expected)


@layouts
@dtypes
def test_functions_of_each_entry_give_the_bits_of_the_whole(layout: str, dtype: torch.dtype) -> None:
    t = numbers(layout, dtype)
    assert same_bits(magnitudes(t), t.abs())
    assert same_bits(squares(t), t.square())
    assert same_bits(copied(t), t)
    assert same_bits(map_pieces(lambda part: part.exp().mul_(2), t), t.exp() * 2)
    for by in (operator.lt, operator.le, operator.gt, operator.ge):
        assert torch.equal(compare(t, by, 0.3), by(t, 0.3))
    assert count_nonzero(t) == int((t != 0).sum())
    assert torch.equal(any_of_rows(t), (t != 0).flatten(1).any(1))


@dtypes
def test_small_weights_become_plus_zero_and_nan_stays(dtype: torch.dtype) -> None:
    t = numbers("contiguous", dtype)
    expected = t.masked_fill(t.abs() <= 0.3, 0.0)
    set_small_to_zero(t, 0.3)
    assert same_bits(t, expected)


@layouts
def test_new_memory_lies_as_the_tensor_does(layout: str) -> None:
    t = numbers(layout)
    assert new_like(t).stride() == torch.empty_like(t).stride()
    assert new_like(t, torch.bool).shape == t.shape


def test_even_draws_in_pieces_are_those_of_the_whole() -> None:
    t = torch.zeros(2 * PIECE + 5)
    torch.manual_seed(0)
    whole = [torch.rand_like(t), torch.rand(3)]
    torch.manual_seed(0)
    assert torch.equal(map_pieces(torch.rand_like, t), whole[0])
    assert torch.equal(torch.rand(3), whole[1])


def test_one_entry_that_is_not_zero_is_found_anywhere() -> None:
    t = torch.zeros(2 * PIECE + 5)
    assert not any_nonzero(t)
    t[-1] = -1.0
    assert any_nonzero(t)


def test_vectors_are_joined_in_order() -> None:
    parts = [torch.randn(PIECE), torch.randn(3), torch.randn(4 * PIECE)]
    assert torch.equal(joined(parts), torch.cat(parts))
