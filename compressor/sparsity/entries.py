"""Entries of large tensors, one by one: magnitudes, comparisons, zeros.

On a CPU NumPy compares four times as fast as torch, and new memory is slow (`pieces`).
"""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressor.sparsity.pieces import new_like, pieces

_SAME_WIDTH = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def magnitudes(tensor: Tensor) -> Tensor:
    """Return |w| of each entry."""
    tensor = tensor.detach()
    return torch.abs(tensor, out=new_like(tensor))


def squares(tensor: Tensor) -> Tensor:
    """Return w * w of each entry."""
    tensor = tensor.detach()
    return torch.square(tensor, out=new_like(tensor))


def compare(tensor: Tensor, by: Callable[[Any, float], Any], bound: float) -> Tensor:
    """Return true where `by` is, a function of `operator`: `compare(weight, operator.gt, 0.5)`; NaN is never."""
    tensor = tensor.detach()
    result: Tensor = torch.from_numpy(np.asarray(by(tensor.numpy(), bound))) if _in_numpy(tensor) else by(tensor, bound)
    return result


def any_nonzero(tensor: Tensor) -> bool:
    """Return whether an entry is not zero; the search ends at the first."""
    found = tensor.detach()
    if not _in_numpy(found):
        return bool(found.any())
    return any(bool(part.numpy().any()) for (part,) in pieces(found))


def any_of_rows(tensor: Tensor) -> Tensor:
    """Return which entries along the first dim have one that is not zero, [rows]."""
    rows = tensor.detach().flatten(1)
    return torch.from_numpy(np.asarray(rows.numpy().any(1))) if _in_numpy(rows) else rows.any(1)


def nonzero(tensor: Tensor) -> Tensor:
    """Return true where an entry is not zero."""
    tensor = tensor.detach()
    return torch.ne(tensor, 0, out=new_like(tensor, torch.bool))


def selected(tensor: Tensor, where: Tensor) -> Tensor:
    """Return the entries at which `where` is true, a vector."""
    tensor = tensor.detach()
    return torch.from_numpy(tensor.numpy()[where.numpy()]) if _in_numpy(tensor) else tensor[where]


def words(tensor: Tensor) -> Tensor:
    """Return the bits of each entry, as an integer of the same width."""
    return tensor.detach().view(_SAME_WIDTH[tensor.element_size()])


def set_to_zero(tensor: Tensor, bits: Tensor) -> None:
    """Set entries to +0.0 where `bits` (int8) is 0, in place; those where it is -1 stay as they are."""
    for part, mask in pieces(words(tensor), bits):  # each byte of the mask is widened into a temporary
        part.bitwise_and_(mask)


def set_small_to_zero(tensor: Tensor, bound: float) -> None:
    """Set entries of a magnitude of at most `bound` to +0.0, in place."""
    for (part,) in pieces(tensor.detach()):
        set_to_zero(part, compare(part.abs(), operator.le, bound).view(torch.int8).sub_(1))


def _in_numpy(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.dtype != torch.bfloat16
