"""Numbers as integers of the same bits, and streams of integers of a few bits."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Integers = NDArray[np.int64]

LARGEST_WIDTH = 16
"""Bits of the widest integer of a stream."""
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_SAME_SIZE = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def patterns_of(tensor: Tensor) -> NDArray[np.signedinteger]:
    """Return the numbers of a floating-point tensor in row-major order, as integers of the same bits."""
    if tensor.dtype not in DTYPES:
        raise ValueError(f"the tensor should have floating-point numbers of 16 to 64 bits, got {tensor.dtype}")
    return integers(tensor.detach().cpu().contiguous().view(-1))


def integers(flat: Tensor) -> NDArray[np.signedinteger]:
    """Return the same memory, read as integers."""
    found: NDArray[np.signedinteger] = flat.view(_SAME_SIZE[flat.element_size()]).numpy()
    return found


def is_nonzero(patterns: NDArray[np.signedinteger], *, signed: bool = False) -> NDArray[np.bool_]:
    """Return true at non-zeros, without float comparison: a processor may treat denormal numbers as zero.

    `signed`: -0.0 is one of them, as its bits are not all 0.
    """
    nonzero: NDArray[np.bool_] = (patterns if signed else patterns << 1) != 0
    return nonzero


def pack(numbers: NDArray[np.uint16], width: int) -> NDArray[np.uint8]:
    """Return integers of `width` bits (0 to 16) one after the other, the lowest bit first."""
    rows = np.unpackbits(numbers.view(np.uint8).reshape(-1, 2), axis=1, count=width, bitorder="little")
    return np.packbits(rows.reshape(-1), bitorder="little")


def unpack(packed: NDArray[np.uint8], count: int, width: int) -> Integers:
    """Return the `count` integers of `width` bits that `pack` wrote."""
    rows = np.unpackbits(packed, count=count * width, bitorder="little").reshape(count, width)
    columns = np.zeros((count, 2), np.uint8)
    columns[:, : -(-width // 8)] = np.packbits(rows, axis=1, bitorder="little")
    return columns.view("<u2")[:, 0].astype(np.int64)


def packed_size(count: int, width: int) -> int:
    """Return the bytes of so many integers of `width` bits."""
    return -(-count * width // 8)
