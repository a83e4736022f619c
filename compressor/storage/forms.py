"""The positions of the numbers that are not zero, in the fewest bytes: the forms of a tensor in a packed file.

    dense      every number, without positions
    bitmask    a bit for each number of the tensor
    relative   for each entry the zeros before it, in b bits; longer gaps begin with fillers (`relative_index`)
    rice       for each entry the zeros before it, g: g mod 2^k in k bits, g div 2^k in unary

Golomb 1966, Run-length encodings; Rice 1979, Some practical universal noiseless coding techniques. Of Golomb's codes
these are the ones whose divisor is a power of two. Every k is tried, so it is the best one for the tensor's density.

What is decoded has the same bits, also of -0.0, NaN and denormal numbers. Where a mask was multiplied with weights half
of the zeros are -0.0: then the signs of all zeros are one more part, of a bit each. A few -0.0 are stored as values.

The content of a tensor is its values (little-endian, in row-major order), then the positions, then the signs; each
part begins with a byte. Remainders and quotients of `rice` are two parts: both are read without a loop over entries.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
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
from compressor.storage.relative_index import count

DENSE = "dense"
PARAMETERS = {"bitmask": 0, "relative": LARGEST_WIDTH, "rice": LARGEST_WIDTH}
"""The forms with positions, and the largest parameter of each: b of `relative`, k of `rice`."""
RECORD = 128
"""Bytes of the header that a tensor in another form than `dense` takes more, about."""

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Layout:
    """How a tensor is stored. `entries`: the stored values, fillers included; `size`: the bytes of its content.

    `signs`: -0.0 is no value: the signs of the zeros are a part of their own.
    """

    form: str
    parameter: int
    entries: int
    size: int
    signs: bool = False


Count = tuple[int, Integers]
"""The number of stored values, and for each b from 0 the sum of g div 2^b over all gaps g between them."""


def counted(tensor: Tensor) -> tuple[Count, Count]:
    """Return two counts of a floating-point tensor of 16 to 64 bits: with -0.0 as a value, and without."""
    every = count(tensor, signed=True)
    patterns = patterns_of(tensor)
    negative_zeros = np.count_nonzero(patterns == np.iinfo(patterns.dtype).min)
    return every, count(tensor) if negative_zeros else every


def smallest(tensor: Tensor, counts: tuple[Count, Count] | None = None) -> Layout:
    """Return the layout with the fewest bytes, a record in the header included; of equal ones the first of the list.

    `counts`: those of `counted`, where they are known. Tensors other than floating-point ones of 16 to 64 bits are
    dense.
    """
    numbers, bytes_of_value = tensor.numel(), tensor.element_size()
    if tensor.dtype not in DTYPES:
        return Layout(DENSE, 0, numbers, numbers * bytes_of_value)
    every, nonzero = counts or counted(tensor)
    found = list(layouts(*every, numbers, bytes_of_value))
    if nonzero[0] < every[0]:
        more = packed_size(numbers - nonzero[0], 1)
        signed = list(layouts(*nonzero, numbers, bytes_of_value))[1:]
        found += [replace(one, size=one.size + more, signs=True) for one in signed]
    return min(found, key=lambda one: one.size + (RECORD if one.form != DENSE else 0))


def layouts(nonzero: int, longer: Integers, numbers: int, bytes_of_value: int) -> Iterator[Layout]:
    """Return every layout of a tensor of so many numbers; `nonzero` and `longer` are a `Count`."""
    yield Layout(DENSE, 0, numbers, numbers * bytes_of_value)
    values = nonzero * bytes_of_value
    yield Layout("bitmask", 0, nonzero, values + packed_size(numbers, 1))
    for width, more in enumerate(longer.tolist()):
        entries = nonzero + more
        yield Layout("relative", width, entries, entries * bytes_of_value + packed_size(entries, width))
    for width, more in enumerate(longer.tolist()):
        size = values + packed_size(nonzero, width) + packed_size(nonzero + more, 1)
        yield Layout("rice", width, nonzero, size)


def encode(tensor: Tensor, form: str, parameter: int = 0, *, signs: bool = False) -> bytes:
    """Return the content of a floating-point tensor in a form of `PARAMETERS`; with the `signs` of its zeros apart."""
    patterns = patterns_of(tensor)
    present = is_nonzero(patterns, signed=not signs)
    positions = np.flatnonzero(present)
    if form == "relative":
        positions = _with_fillers(positions, parameter)
    gaps = np.diff(positions, prepend=-1) - 1
    if form == "bitmask":
        parts = [np.packbits(present, bitorder="little")]
    elif form == "relative":
        parts = [pack(gaps.astype("<u2"), parameter)]
    else:
        remainders, quotients = gaps & ((1 << parameter) - 1), gaps >> parameter
        unary = np.zeros(int(quotients.sum()) + gaps.size, np.bool_)
        unary[np.cumsum(quotients + 1) - 1] = True
        parts = [pack(remainders.astype("<u2"), parameter), np.packbits(unary, bitorder="little")]
    if signs:
        parts.append(np.packbits(patterns[~present] != 0, bitorder="little"))
    values = np.where(present[positions], patterns[positions], 0)  # fillers are +0.0
    return b"".join(part.tobytes() for part in [values.astype(patterns.dtype, copy=False), *parts])


def decode(
    content: Bytes,
    form: str,
    parameter: int,
    entries: int,
    dtype: torch.dtype,
    shape: Sequence[int],
    *,
    signs: bool = False,
) -> Tensor:
    """Return the tensor of a content, on the CPU.

    Raises `CompressError` where the content is not one of so many entries in this form, or has positions beyond the
    shape; before memory for the tensor is taken.
    """
    numbers, taken = math.prod(shape), entries * dtype.itemsize
    if entries > numbers or taken > content.size:
        raise CompressError(f"{entries:,} entries in {content.size:,} bytes are too many for {numbers:,} numbers")
    values = content[:taken].view(f"i{dtype.itemsize}")
    end = content.size - (packed_size(numbers - int(np.count_nonzero(values)), 1) if signs else 0)
    if end < taken:
        raise CompressError(f"{content.size:,} bytes are too few for the signs of the zeros of {numbers:,} numbers")
    positions = _READERS[form](content[taken:end], parameter, entries, numbers)
    if positions.size and positions[-1] >= numbers:
        raise CompressError(f"the entries reach position {positions[-1]:,}, the tensor has {numbers:,} numbers")
    flat = torch.zeros(numbers, dtype=dtype)
    patterns = integers(flat)
    patterns[positions] = values
    if signs:
        zeros = np.flatnonzero(patterns == 0)
        negative = np.unpackbits(content[end:], count=zeros.size, bitorder="little").view(np.bool_)
        patterns[zeros[negative]] = np.iinfo(patterns.dtype).min
    return flat.view(tuple(shape))


def _with_fillers(positions: Integers, width: int) -> Integers:
    """Return the positions of the entries of relative indices: fillers stand before a number behind a longer gap."""
    before = np.concatenate([[-1], positions[:-1]]) if positions.size else positions
    entries = ((positions - before - 1) >> width) + 1
    ends = np.cumsum(entries)
    number = np.arange(entries.sum()) - np.repeat(ends - entries, entries)
    found: Integers = np.repeat(before, entries) + ((number + 1) << width)
    found[ends - 1] = positions
    return found


def _bitmask(part: Bytes, _: int, entries: int, numbers: int) -> Integers:
    if part.size != packed_size(numbers, 1):
        raise CompressError(f"a bitmask of {part.size:,} bytes for {numbers:,} numbers")
    positions = np.flatnonzero(np.unpackbits(part, count=numbers, bitorder="little"))
    if positions.size != entries:
        raise CompressError(f"a bitmask with {positions.size:,} numbers, there are {entries:,} values")
    return positions


def _relative(part: Bytes, width: int, entries: int, _: int) -> Integers:
    if part.size != packed_size(entries, width):
        raise CompressError(f"{part.size:,} bytes for {entries:,} indices of {width} bits")
    return np.cumsum(unpack(part, entries, width) + 1) - 1


def _rice(part: Bytes, width: int, entries: int, _: int) -> Integers:
    taken = packed_size(entries, width)
    ones = np.flatnonzero(np.unpackbits(part[taken:], bitorder="little"))
    last = int(ones[-1]) + 1 if ones.size else 0
    if ones.size != entries or part.size != taken + packed_size(last, 1):
        raise CompressError(f"{part.size:,} bytes that are not {entries:,} gaps of Golomb-Rice codes")
    before = np.arange(entries)
    # The bit of an entry is at the sum of the quotients so far, plus a bit for each entry before it.
    return ((ones - before) << width) + np.cumsum(unpack(part[:taken], entries, width)) + before


_READERS: dict[str, Callable[[Bytes, int, int, int], Integers]] = {
    "bitmask": _bitmask,
    "relative": _relative,
    "rice": _rice,
}
