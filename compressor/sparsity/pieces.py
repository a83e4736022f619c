"""Tensors in pieces: no temporary of a large tensor's size inside a step."""

from collections.abc import Iterator

from torch import Tensor

PIECE = 2**18
"""The number of elements of a piece: a temporary of it stays in the cache. Above 32 MB the C library's allocator takes
new pages for each temporary, and to touch them costs more than the work."""


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
    for start in range(0, first.numel(), PIECE):
        yield tuple(tensor[start : start + PIECE] for tensor in flat)


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
