"""The forms of a packed tensor against a pencil that codes one number at a time, to the byte."""

import math
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compressor.errors import CompressError
from compressor.storage.forms import PARAMETERS, RECORD, decode, encode, smallest

SETTINGS = [(form, number) for form, most in PARAMETERS.items() for number in range(most + 1)]
CHARACTERS = {2: "h", 4: "i", 8: "q"}
PATTERNS = {
    torch.float32: [0x3F800000, -0x40800000, -0x80000000, 0x7F800001, 0x7FC00001, -1, 1, -0x7FFFFFFF],
    torch.float64: [0x3FF0000000000000, -0x8000000000000000, 0x7FF8000000000003, 1, -1],
    torch.float16: [0x3C00, -0x8000, 0x7C01, 0x7E01, 1, -1],
    torch.bfloat16: [0x3F80, -0x8000, 0x7F81, 0x7FC1, 1, -1],
}
"""Bits of 1, -1, -0.0, NaN (quiet, signalling, with payloads), the smallest denormal number and its negative ..."""


def from_patterns(patterns: list[int], dtype: torch.dtype) -> Tensor:
    kind = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    return torch.tensor(patterns, dtype=kind).view(dtype)


def patterns_in(tensor: Tensor) -> list[int]:
    return tensor.contiguous().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]).tolist()


def to_bytes(bits: list[int]) -> bytes:
    """Eight bits a byte, the first one the lowest."""
    return bytes(sum(bit << at for at, bit in enumerate(bits[begin : begin + 8])) for begin in range(0, len(bits), 8))


def low_first(number: int, width: int) -> list[int]:
    return [number >> at & 1 for at in range(width)]


def by_pencil(patterns: list[int], form: str, parameter: int, size: int, signs: bool) -> tuple[int, bytes]:
    """The number of entries and the content, one number at a time."""
    values, low, unary, negative, gap = [], [], [], [], 0
    zeros = [0, -(2 ** (8 * size - 1))] if signs else [0]
    for pattern in patterns:
        if pattern in zeros:
            gap += 1
            negative.append(zeros.index(pattern))
            continue
        if form == "relative":
            while gap >= 2**parameter:
                values, low, gap = [*values, 0], low + low_first(2**parameter - 1, parameter), gap - 2**parameter
        low += low_first(gap % 2**parameter, parameter)
        unary += [0] * (gap // 2**parameter) + [1]
        values, gap = [*values, pattern], 0
    index = {
        "bitmask": to_bytes([int(pattern not in zeros) for pattern in patterns]),
        "relative": to_bytes(low),
        "rice": to_bytes(low) + to_bytes(unary),
    }[form]
    return len(values), struct.pack(f"<{len(values)}{CHARACTERS[size]}", *values) + index + to_bytes(negative * signs)


NUMBERS = st.sampled_from(list(PATTERNS)).flatmap(
    lambda dtype: st.tuples(
        st.just(dtype),
        st.lists(st.tuples(st.integers(0, 70), st.sampled_from(PATTERNS[dtype])), max_size=20),
        st.integers(0, 70),
    )
)


@given(NUMBERS, st.sampled_from(SETTINGS), st.booleans())
def test_the_content_is_the_pencils_and_comes_back_with_the_same_bits(
    case: tuple[torch.dtype, list[tuple[int, int]], int], setting: tuple[str, int], signs: bool
) -> None:
    dtype, runs, tail = case
    patterns = [pattern for gap, last in runs for pattern in [0] * gap + [last]] + [0] * tail
    tensor = from_patterns(patterns, dtype)
    entries, content = by_pencil(patterns, *setting, dtype.itemsize, signs)
    assert encode(tensor, *setting, signs=signs) == content
    back = decode(np.frombuffer(content, np.uint8), *setting, entries, dtype, tensor.shape, signs=signs)
    assert back.dtype == dtype
    assert patterns_in(back) == patterns


@given(NUMBERS)
@settings(max_examples=30)
def test_the_smallest_is_the_shortest_of_all_that_can_be_written(
    case: tuple[torch.dtype, list[tuple[int, int]], int],
) -> None:
    dtype, runs, tail = case
    tensor = from_patterns(([pattern for gap, last in runs for pattern in [0] * gap + [last]] + [0] * tail) * 9, dtype)
    found, dense = smallest(tensor), tensor.numel() * dtype.itemsize
    written = {(*one, signs): len(encode(tensor, *one, signs=signs)) for one in SETTINGS for signs in (False, True)}
    assert found.size == (dense if found.form == "dense" else written[found.form, found.parameter, found.signs])
    assert found.size + RECORD * (found.form != "dense") == min(dense, RECORD + min(written.values()))


def test_a_weight_times_a_mask_has_signs_of_a_bit_and_one_minus_zero_is_a_value() -> None:
    draws = torch.Generator().manual_seed(0)
    dense, mask = torch.randn(100, 100, generator=draws), torch.rand(100, 100, generator=draws) < 0.1
    masked, times = dense.where(mask, 0.0), dense * mask
    kept = int(mask.sum())
    assert not smallest(masked).signs
    assert smallest(times).signs
    assert smallest(times).size == smallest(masked).size + math.ceil((10_000 - kept) / 8)
    masked.view(-1)[int((~mask).flatten().nonzero()[7])] = -0.0
    assert (smallest(masked).signs, smallest(masked).entries) == (False, kept + 1)


def test_sixteen_weights_by_hand() -> None:
    tensor = torch.zeros(16)
    tensor[2], tensor[12] = 1.5, -2.0
    values = struct.pack("<2f", 1.5, -2.0)
    # Gaps of 2 and 9. Bits 2 and 12 of two bytes, the lowest first.
    assert encode(tensor, "bitmask") == values + bytes([0b00000100, 0b00010000])
    # Three bits reach 7: the second gap is a filler (7, 0.0), which takes eight zeros, and 1. 2 + 8 * 7 + 64 * 1.
    assert encode(tensor, "relative", 3) == struct.pack("<3f", 1.5, 0.0, -2.0) + bytes([2 + 8 * 7 + 64, 0])
    # k = 2: 2 = 0 * 4 + 2 and 9 = 2 * 4 + 1. Remainders 2 + 4 * 1; quotients 1, 001 from the lowest bit.
    assert encode(tensor, "rice", 2) == values + bytes([0b0110, 0b1001])


@pytest.mark.parametrize(("form", "parameter"), [("bitmask", 0), ("relative", 3), ("relative", 0), ("rice", 2)])
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (4, 3), (5, 3, 2, 2)])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_any_shape_all_zero_and_without_a_zero(form: str, parameter: int, shape: tuple[int, ...], value: float) -> None:
    tensor = torch.full(shape, value)
    entries = tensor.numel() if value else 0
    back = decode(
        np.frombuffer(encode(tensor, form, parameter), np.uint8), form, parameter, entries, torch.float32, shape
    )
    assert back.shape == tensor.shape
    assert torch.equal(back, tensor)


def test_the_order_is_that_of_the_indices_not_of_the_memory() -> None:
    tensor = (torch.arange(120.0).view(2, 3, 4, 5) % 4 == 0).float()
    for form in PARAMETERS:
        assert encode(tensor.to(memory_format=torch.channels_last), form, 2 * (form != "bitmask")) == encode(
            tensor, form, 2 * (form != "bitmask")
        )


def test_what_is_no_floating_point_tensor_is_dense() -> None:
    for tensor in (torch.zeros(4000, dtype=torch.int64), torch.zeros(4000, dtype=torch.bool)):
        assert smallest(tensor).form == "dense"
        assert smallest(tensor).size == 4000 * tensor.element_size()


def test_another_form_is_taken_where_it_saves_its_record() -> None:
    for zeros, form in ((RECORD // 4, "dense"), (RECORD // 4 + 1, "relative")):
        tensor = torch.cat([torch.ones(10), torch.zeros(zeros)])
        assert (smallest(tensor).form, smallest(tensor).size) == (form, 40 if form != "dense" else 4 * (10 + zeros))


@pytest.mark.parametrize(
    ("places", "size", "form", "parameter"),
    [
        (range(4000), 4000, "dense", 0),  # without a zero
        (range(4000), 8000, "relative", 0),  # then zeros alone: no index is the shortest one
        (range(1, 8000, 2), 8000, "relative", 1),  # every gap is 1
        (range(3, 8000, 4), 8000, "relative", 2),  # every gap is 3
    ],
)
def test_regular_patterns(places: range, size: int, form: str, parameter: int) -> None:
    tensor = torch.zeros(size)
    tensor[list(places)] = 1.0
    assert (smallest(tensor).form, smallest(tensor).parameter) == (form, parameter)


@pytest.mark.parametrize(("density", "parameter"), [(0.3, 1), (0.1, 3), (0.05, 4), (0.01, 6), (0.002, 8)])
def test_random_gaps_are_rice_codes_of_the_parameter_that_theory_gives(density: float, parameter: int) -> None:
    """A gap is at least n with probability (1 - p)^n: so its code has k + 1 / (1 - (1 - p)^(2^k)) bits on average."""
    tensor = (torch.rand(400_000, generator=torch.Generator().manual_seed(0)) < density).float()
    found = smallest(tensor)
    expected = min(range(17), key=lambda k: k + 1 / (1 - (1 - density) ** 2**k))
    assert (found.form, found.parameter) == ("rice", parameter)
    assert expected == parameter
    bits = 8 * (found.size - 4 * found.entries) / found.entries
    assert bits == pytest.approx(parameter + 1 / (1 - (1 - density) ** 2**parameter), rel=0.02)
    entropy = -math.log2(density) - (1 - density) / density * math.log2(1 - density)
    assert entropy < bits < 1.04 * entropy


FULL = torch.ones(20)


@pytest.mark.parametrize(
    ("content", "form", "parameter", "entries", "numbers", "said"),
    [
        (encode(FULL, "bitmask"), "bitmask", 0, 20, 19, "20 entries in 83 bytes are too many for 19 numbers"),
        (encode(FULL, "rice", 1), "rice", 1, 2**40, 2**50, "1,099,511,627,776 entries in 86 bytes"),
        (encode(FULL, "bitmask"), "bitmask", 0, 19, 20, "a bitmask of 7 bytes for 20 numbers"),
        (encode(FULL, "bitmask") + b"\0", "bitmask", 0, 20, 20, "a bitmask of 4 bytes for 20 numbers"),
        (encode(FULL, "bitmask")[:-1] + b"\0", "bitmask", 0, 20, 20, "a bitmask with 16 numbers, there are 20 values"),
        (encode(FULL, "relative", 5), "relative", 4, 20, 20, "13 bytes for 20 indices of 4 bits"),
        (bytes(4) + b"\x14", "relative", 5, 1, 20, "the entries reach position 20, the tensor has 20 numbers"),
        (bytes(4) + b"\x03\x08", "rice", 3, 1, 20, "the entries reach position 27, the tensor has 20 numbers"),
        (encode(FULL, "rice", 1)[:-1], "rice", 1, 20, 20, "5 bytes that are not 20 gaps of Golomb-Rice codes"),
        (encode(FULL, "rice", 1) + b"\0", "rice", 1, 20, 20, "7 bytes that are not 20 gaps of Golomb-Rice codes"),
        (
            encode(FULL, "rice", 1)[:-1] + b"\xff",
            "rice",
            1,
            20,
            20,
            "6 bytes that are not 20 gaps of Golomb-Rice codes",
        ),
    ],
)
def test_what_no_tensor_of_this_shape_has_is_refused(
    content: bytes, form: str, parameter: int, entries: int, numbers: int, said: str
) -> None:
    with pytest.raises(CompressError) as error:
        decode(np.frombuffer(content, np.uint8), form, parameter, entries, torch.float32, (numbers,))
    assert said in str(error.value)


def test_too_few_bytes_for_the_signs() -> None:
    content = np.frombuffer(bytes(4), np.uint8)
    with pytest.raises(CompressError, match="4 bytes are too few for the signs of the zeros of 100 numbers"):
        decode(content, "relative", 0, 0, torch.float32, (100,), signs=True)
