"""Sparse tensors as relative indices: for each entry the number of zeros before it, in a fixed number b of bits.

Han, Pool, Tran, Dally 2015, Learning both Weights and Connections; Han, Mao, Dally 2016, Deep Compression, figure 2.

    entries = nnz + sum over the non-zeros of floor(gap / 2^b),    bits = header + entries * (b + bits of a value)

A tensor is one flat stream in row-major order, without row pointers. An entry (index, value) means: skip `index` zeros,
then `value` follows; it covers index + 1 positions. A gap of more than 2^b - 1 zeros begins with fillers: a filler is
the entry (2^b - 1, 0), it covers 2^b of the zeros. Zeros after the last non-zero are not stored. With b = 0 every zero
before it is a filler: that is the dense tensor, the best width where little is pruned.

A decoded tensor has the same bits as the encoded one (also of NaN), except that -0.0 becomes +0.0 like any other zero.
"""

import math
import struct
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from compressor.errors import CompressError
from compressor.storage.bit_patterns import (
    DTYPES,
    LARGEST_WIDTH,
    Integers,
    integers,
    is_nonzero,
    pack,
    packed_size,
    patterns_of,
    unpack,
)

_WIDTHS = np.arange(LARGEST_WIDTH + 1)[:, None]
_CHUNK = 1 << 20
"""Weights that are counted at once: the memory for them stays in the cache, whatever the size of the tensor."""
_HEADER = struct.Struct("<BBBQ")
"""The header of a stream: dtype, width, number of dims, number of entries; a uint32 for each dim follows."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """A tensor as entries:

    `values` has one number for each entry, `indices` their packed indices (uint8, lowest bit first).

    `width`: bits of an index.
    """

    shape: tuple[int, ...]
    width: int
    values: Tensor
    indices: Tensor

    @property
    def entries(self) -> int:
        """Return the number of stored values: the non-zeros and the fillers."""
        return self.values.numel()

    @property
    def fillers(self) -> int:
        """Return the number of entries that only fill a gap."""
        return self.entries - int(np.count_nonzero(integers(self.values)))

    @property
    def bits(self) -> int:
        """Return the number of bits that `decode` needs, header included; whole bytes may be up to 7 bits more."""
        return stream_bits(len(self.shape), self.entries, self.width, 8 * self.values.element_size())

    def to_bytes(self) -> bytes:
        """Return header, values, indices; little-endian."""
        head = _HEADER.pack(DTYPES.index(self.values.dtype), self.width, len(self.shape), self.entries)
        dims = struct.pack(f"<{len(self.shape)}I", *self.shape)
        return head + dims + integers(self.values).tobytes() + self.indices.numpy().tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Encoded":
        """Return the tensor that `to_bytes` wrote. Raises `CompressError` where `data` is something else."""
        try:
            code, width, rank, entries = _HEADER.unpack_from(data)
            shape = struct.unpack_from(f"<{rank}I", data, _HEADER.size)
            dtype = DTYPES[code]
        except (struct.error, IndexError):
            raise CompressError("not a stream of relative indices: its header cannot be read") from None
        begin = _HEADER.size + 4 * rank
        middle = begin + entries * dtype.itemsize
        end = middle + packed_size(entries, width)
        if width > LARGEST_WIDTH:
            raise CompressError(f"not a stream of relative indices: indices of {width} bits, {LARGEST_WIDTH} at most")
        if end != len(data):
            raise CompressError(f"not a stream of relative indices: it should have {end} bytes, it has {len(data)}")
        body = np.frombuffer(data, np.uint8)
        values = torch.from_numpy(body[begin:middle].copy().view(f"<i{dtype.itemsize}")).view(dtype)
        return cls(shape, width, values, torch.from_numpy(body[middle:].copy()))


def encode(tensor: Tensor, width: int | Literal["auto"] = "auto") -> Encoded:
    """Return the stream of a floating-point tensor, with indices of `width` bits (0 to 16).

    `auto`: the width with the fewest bits, of equal ones the smallest.
    """
    if width == "auto":
        width = best_width(*count(tensor), bits_of_values=8 * tensor.element_size())
    if not 0 <= width <= LARGEST_WIDTH:
        raise ValueError(f"width: should be 0 to {LARGEST_WIDTH}, got {width}")
    patterns = patterns_of(tensor)
    positions = np.flatnonzero(is_nonzero(patterns))
    gaps = np.diff(positions, prepend=-1) - 1
    slots = np.cumsum((gaps >> width) + 1) - 1
    entries = int(slots[-1]) + 1 if slots.size else 0
    values = np.zeros(entries, patterns.dtype)
    values[slots] = patterns[positions]
    filler = (1 << width) - 1
    indices = np.full(entries, filler, "<u2")
    indices[slots] = gaps & filler
    packed = torch.from_numpy(pack(indices, width))
    return Encoded(tuple(tensor.shape), width, torch.from_numpy(values).view(tensor.dtype), packed)


def decode(encoded: Encoded) -> Tensor:
    """Return the tensor, on the CPU. Raises `CompressError` where there are more entries than its shape has."""
    positions = np.cumsum(unpack(encoded.indices.numpy(), encoded.entries, encoded.width) + 1) - 1
    size = math.prod(encoded.shape)
    if positions.size and positions[-1] >= size:
        raise CompressError(f"the entries reach position {positions[-1]:,}, the tensor has {size:,} weights")
    flat = torch.zeros(size, dtype=encoded.values.dtype)
    integers(flat)[positions] = integers(encoded.values)
    return flat.view(encoded.shape)


def stream_bits(rank: int, entries: int, width: int, bits_of_values: int) -> int:
    """Return the bits of a stream: its header (longer for a tensor of more dims) and its entries."""
    return 8 * _HEADER.size + 32 * rank + entries * (width + bits_of_values)


def count(tensor: Tensor, *, signed: bool = False) -> tuple[int, Integers]:
    """Return the number of non-zeros of a tensor, and of fillers in its stream at widths of 0 to 16 bits.

    Counted from how often each gap occurs, without encoding. `signed`: -0.0 counts as a non-zero.
    """
    patterns, nonzero, last = patterns_of(tensor), 0, -1
    fillers = np.zeros(len(_WIDTHS), np.int64)
    for begin in range(0, patterns.size, _CHUNK):
        positions = np.flatnonzero(is_nonzero(patterns[begin : begin + _CHUNK], signed=signed))
        if not positions.size:
            continue
        gaps = np.diff(positions, prepend=last - begin) - 1
        nonzero, last = nonzero + positions.size, begin + int(positions[-1])
        longest = int(gaps.max())
        if longest < gaps.size:
            fillers += ((np.arange(longest + 1) >> _WIDTHS) * np.bincount(gaps)).sum(1)
        else:
            fillers += (gaps >> _WIDTHS).sum(1)
    return nonzero, fillers


def best_width(nonzero: int, fillers: Integers, bits_of_values: int) -> int:
    """Return the width with the fewest bits, of equal ones the smallest."""
    return int(np.argmin((nonzero + fillers) * (_WIDTHS[:, 0] + bits_of_values)))
