"""Large tensors on a CPU without slow new memory: changed in pieces, or written where pages are large.

Above 32 MB the C library's allocator takes new pages of 4 KB for each temporary, and gives them back at once: to touch
them costs ten times as much as the arithmetic. So inside a step nothing of a tensor's size is made where pieces do, and
what has to be made is made in NumPy's memory, which asks for large pages.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

PIECE = 2**18
"""The number of elements of a piece: a temporary of it stays in the cache."""

LARGE = 2**22
"""The number of bytes from which on NumPy asks for large pages."""


def pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield views of the same piece of each tensor, flat, in one order for all; to be changed in place.

    Tensors on an accelerator, small ones, and those that do not lie in memory alike and without gaps come in one piece,
    as they are. All have one shape.
    """
    first = tensors[0]
    if first.numel() <= PIECE or first.device.type != "cpu" or not _alike(tensors):
        yield tensors
        return
    flat = [tensor.as_strided((tensor.numel(),), (1,)) for tensor in tensors]
    yield from zip(*(torch.split(tensor, PIECE) for tensor in flat), strict=True)


def map_pieces(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Return what `function` computes entry by entry, in new memory; it is called on pieces of the tensors.

    The result has the kind and the layout of the first tensor. Random numbers are drawn in order: those that a function
    draws one by one (`rand`) are the same as for the whole.
    """
    result = new_like(tensors[0])
    for out, *given in pieces(result, *tensors):
        out.copy_(function(*given))
    return result


def new(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return an uninitialized tensor on the CPU."""
    size = math.prod(shape) * dtype.itemsize
    if size < LARGE:
        return torch.empty(tuple(shape), dtype=dtype)
    return torch.from_numpy(np.empty(size, np.uint8)).view(dtype).view(tuple(shape))


def new_like(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return an uninitialized tensor of the same shape, layout and device."""
    kind = tensor.dtype if dtype is None else dtype
    if tensor.device.type != "cpu" or not _alike((tensor,)):
        return torch.empty_like(tensor, dtype=kind, requires_grad=False)
    return new(tensor.shape, kind).as_strided(tensor.shape, tensor.stride())


def copied(tensor: Tensor) -> Tensor:
    """Return a copy."""
    return new_like(tensor).copy_(tensor.detach())


def joined(tensors: Sequence[Tensor]) -> Tensor:
    """Return vectors of one kind one after the other."""
    first = tensors[0]
    if first.device.type != "cpu" or any(tensor.dtype != first.dtype for tensor in tensors):
        return torch.cat(list(tensors))
    every = new([sum(len(tensor) for tensor in tensors)], first.dtype)
    return torch.cat(list(tensors), out=every)


def _alike(tensors: tuple[Tensor, ...]) -> bool:
    """Return whether all tensors have the same strides, and no gaps."""
    strides = tensors[0].stride()
    if any(tensor.stride() != strides for tensor in tensors):
        return False
    last = 1
    for stride, size in sorted(zip(strides, tensors[0].shape, strict=True)):
        if size > 1 and stride != last:
            return False
        last *= size
    return True
