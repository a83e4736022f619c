"""Streams against a pencil, the paper's loop one weight at a time, and the figures that were measured by others."""

import math
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from compressor.errors import CompressError
from compressor.storage import relative_index
from compressor.storage.relative_index import Encoded, best_width, count, decode, encode

WIDTHS = ["auto", *range(17)]
HEADER, DIM = 8 + 8 + 8 + 64, 32
"""Bits: dtype, width, rank, how many entries; and each dim's length."""


def bits_of(tensor: Tensor) -> Tensor:
    return tensor.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()])


def sparse(size: int, values: dict[int, float]) -> Tensor:
    tensor = torch.zeros(size)
    for place, value in values.items():
        tensor[place] = value
    return tensor


def at_random(size: int, density: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(size, generator=generator) < density).float()


def one_by_one(numbers: list[float], width: int) -> list[tuple[int, float]]:
    """The paper's encoder: while the gap does not fit, an entry of zero."""
    entries, gap, most = [], 0, 2**width - 1
    for number in numbers:
        if number == 0:
            gap += 1
            continue
        while gap > most:
            entries.append((most, 0.0))
            gap -= most + 1
        entries.append((gap, number))
        gap = 0
    return entries


def entries_of(encoded: Encoded) -> list[tuple[int, float]]:
    """What the packed bits say, read as one long number."""
    packed = int.from_bytes(encoded.indices.numpy().tobytes(), "little")
    width = encoded.width
    indices = [(packed >> (width * at)) & (2**width - 1) for at in range(encoded.entries)]
    return list(zip(indices, encoded.values.tolist(), strict=True))


def test_ten_weights_by_hand_to_the_byte() -> None:
    encoded = encode(sparse(10, {2: 1.5, 9: -2.0}), 2)
    # Two zeros, 1.5; six zeros: a filler takes four, two are left, -2. Packed from the lowest bit: 2 + 3 * 4 + 2 * 16.
    assert entries_of(encoded) == [(2, 1.5), (3, 0.0), (2, -2.0)]
    assert encoded.indices.tolist() == [46]
    assert (encoded.entries, encoded.fillers) == (3, 1)
    assert encoded.bits == HEADER + DIM + 3 * (2 + 32)
    head = bytes([0, 2, 1]) + (3).to_bytes(8, "little") + (10).to_bytes(4, "little")
    assert encoded.to_bytes() == head + struct.pack("<3f", 1.5, 0.0, -2.0) + bytes([46])


@pytest.mark.parametrize("width", [1, 5, 8, 16])
@pytest.mark.parametrize("before", [(), (0,)], ids=["from the start", "behind an entry"])
def test_a_gap_at_the_edges_of_a_width_needs_so_many_fillers(width: int, before: tuple[int, ...]) -> None:
    reach = 2**width
    gaps = {0: 0, reach - 1: 0, reach: 1, 2 * reach - 1: 1, 2 * reach: 2, 3 * reach - 1: 2, 3 * reach: 3}
    for gap, fillers in gaps.items():
        place = len(before) + gap
        tensor = sparse(place + 3, {**dict.fromkeys(before, 7.0), place: 3.0})
        encoded = encode(tensor, width)
        assert (encoded.fillers, encoded.entries) == (fillers, len(before) + fillers + 1), gap
        assert torch.equal(decode(encoded), tensor), gap


@given(st.lists(st.sampled_from([0.0] * 9 + [1.0, -2.5]), max_size=80), st.integers(0, 6))
def test_the_entries_are_those_of_the_papers_loop(numbers: list[float], width: int) -> None:
    encoded = encode(torch.tensor(numbers), width)
    expected = one_by_one(numbers, width)
    assert entries_of(encoded) == expected
    assert encoded.fillers == sum(value == 0 for _, value in expected)
    assert encoded.bits == HEADER + DIM + len(expected) * (width + 32)


PATTERNS = {
    torch.float32: [0x3F800000, -0x40800000, 0x7F800000, -0x00800000, 0x7FC00001, -1, 1, -0x7FFFFFFF],
    torch.float64: [0x3FF0000000000000, 0x7FF8000000000003, 1, -1],
    torch.float16: [0x3C00, 0x7C00, 0x7E01, 1, -1],
    torch.bfloat16: [0x3F80, 0x7F80, 0x7FC1, 1, -1],
}
"""Bits of 1, -1, both infinities, NaN with two payloads, the smallest denormal and its negative, and others."""
NUMBERS = st.sampled_from(list(PATTERNS)).flatmap(
    lambda dtype: st.tuples(
        st.just(dtype),
        st.lists(st.tuples(st.integers(0, 70), st.sampled_from(PATTERNS[dtype])), max_size=20),
        st.integers(0, 70),
    )
)


@given(NUMBERS, st.sampled_from(WIDTHS))
def test_what_is_decoded_has_the_same_bits(
    case: tuple[torch.dtype, list[tuple[int, int]], int], width: int | str
) -> None:
    dtype, runs, tail = case
    patterns = [pattern for gap, last in runs for pattern in [0] * gap + [last]] + [0] * tail
    kind = bits_of(torch.zeros(1, dtype=dtype)).dtype
    tensor = torch.tensor(patterns, dtype=kind).view(dtype)
    encoded = encode(tensor, width)
    data = encoded.to_bytes()
    assert 0 <= 8 * len(data) - encoded.bits < 8
    assert encoded.entries - encoded.fillers == len(runs)
    for one in (encoded, Encoded.from_bytes(data)):
        back = decode(one)
        assert back.dtype == dtype
        assert torch.equal(bits_of(back), bits_of(tensor))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (4, 3), (5, 3, 2, 2)])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_any_shape_all_zero_and_without_a_zero(width: int | str, shape: tuple[int, ...], value: float) -> None:
    tensor = torch.full(shape, value)
    encoded = encode(tensor, width)
    assert encoded.entries == (tensor.numel() if value else 0)
    assert encoded.bits == HEADER + DIM * len(shape) + encoded.entries * (32 + encoded.width)
    back = decode(Encoded.from_bytes(encoded.to_bytes()))
    assert back.shape == tensor.shape
    assert torch.equal(back, tensor)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_first_and_the_last_weight(width: int | str) -> None:
    for places in ([0], [999], [0, 999]):
        tensor = sparse(1000, dict.fromkeys(places, -4.0))
        assert torch.equal(decode(encode(tensor, width)), tensor)


@pytest.mark.parametrize("width", WIDTHS)
def test_zeros_are_positive_zeros_and_no_entries(width: int | str) -> None:
    tensor = torch.tensor([-0.0, 0.0, 5.0, -0.0, 0.0, -0.0, -5.0, -0.0])
    encoded = encode(tensor, width)
    assert encoded.entries - encoded.fillers == 2
    assert bits_of(decode(encoded)).tolist() == bits_of(torch.tensor([0.0, 0, 5, 0, 0, 0, -5, 0])).tolist()


def test_a_stored_zero_is_a_zero() -> None:
    # Another encoder's stream, whose second entry is a weight of 0.0 that it did not skip.
    encoded = Encoded((4,), 8, torch.tensor([1.0, 0.0, 2.0]), torch.tensor([0, 0, 1], dtype=torch.uint8))
    assert bits_of(decode(encoded)).tolist() == bits_of(torch.tensor([1.0, 0.0, 0.0, 2.0])).tolist()


def test_denormal_numbers_survive_on_a_processor_that_flushes_them() -> None:
    tensor = torch.tensor([0, 1, 0, 5], dtype=torch.int32).view(torch.float32)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor does not flush")
    try:
        nonzero, back = count(tensor)[0], decode(encode(tensor))
    finally:
        torch.set_flush_denormal(False)
    assert nonzero == 2
    assert bits_of(back).tolist() == [0, 1, 0, 5]


def test_the_order_is_that_of_the_indices_not_of_the_memory() -> None:
    tensor = at_random(2 * 3 * 4 * 5, 0.3, seed=1).view(2, 3, 4, 5)
    plain = encode(tensor, 3)
    for other in (
        tensor.to(memory_format=torch.channels_last),
        tensor.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    ):
        assert encode(other, 3).to_bytes() == plain.to_bytes()
    parameter = torch.nn.Parameter(tensor)
    assert torch.equal(decode(encode(parameter, 3)), tensor)


def test_five_bits_on_32_are_15_625_percent_where_no_filler_is_needed() -> None:
    # Han et al. 2015: "an overhead of only 15.6 %". Every 32nd weight: gaps of 31, the largest that fits.
    tensor = torch.zeros(1000, 32)
    tensor[:, -1] = 1.0
    encoded = encode(tensor, 5)
    assert (encoded.entries, encoded.fillers) == (1000, 0)
    assert (encoded.bits - HEADER - 2 * DIM) / (1000 * 32) == 1.15625


@pytest.mark.parametrize(
    ("density", "width"), [(0.2, 2), (0.1, 4), (0.08, 5), (0.0185, 5), (0.0073, 5), (0.01, 8), (0.002, 8), (0.5, 1)]
)
def test_so_many_fillers_are_expected(density: float, width: int) -> None:
    tensor = at_random(8_000_000, density, seed=width)
    nonzero = int(tensor.sum())
    never = (1 - density) ** 2**width
    assert encode(tensor, width).fillers == pytest.approx(nonzero * never / (1 - never), rel=0.03)


@pytest.mark.parametrize(
    ("size", "nonzero", "fillers", "rate", "tolerance"),
    [
        (784 * 300, 18_711, 1_377, 10.1, 0.12),  # LeNet-300-100's fc1 as Han prunes it
        (784 * 300, 4_444, 5_256, 21, 0.06),  # as dynamic network surgery does
        (800 * 500, 2_928, 11_057, None, 0.06),  # LeNet-5's ip1, by dynamic network surgery
    ],
)
def test_about_as_many_as_were_measured_of_trained_weights(
    size: int, nonzero: int, fillers: int, rate: float | None, tolerance: float
) -> None:
    tensor = torch.zeros(size)
    tensor[torch.randperm(size, generator=torch.Generator().manual_seed(3))[:nonzero]] = 1.0
    encoded = encode(tensor, 5)
    assert encoded.entries - encoded.fillers == nonzero
    assert encoded.fillers == pytest.approx(fillers, rel=tolerance)
    assert rate is None or 32 * size / encoded.bits == pytest.approx(rate, rel=0.015)


@pytest.mark.parametrize(
    ("gaps", "width"),
    [
        ([0] * 50, 0),  # nothing is pruned: no index
        ([1] * 50, 1),
        ([31] * 50, 5),
        ([32] * 50, 6),
        ([31] * 50 + [32], 5),  # a filler is 37 bits, a bit for each of 51 entries more
        ([31] * 30 + [32], 6),
        ([10**6], 16),  # 2^16 - 1 reaches farthest: 15 fillers of 48 bits, one width less 30 of 47
    ],
)
def test_auto_takes_the_width_of_the_fewest_bits(gaps: list[int], width: int) -> None:
    tensor = torch.tensor([number for gap in gaps for number in [0.0] * gap + [1.0]])
    encoded = encode(tensor)
    assert encoded.width == width
    assert encoded.bits == min(encode(tensor, other).bits for other in range(17))
    assert torch.equal(decode(encoded), tensor)


def test_han_pruned_wants_five_bits_or_six_and_surgery_more() -> None:
    assert encode(at_random(235_200, 0.08, seed=0)).width in (5, 6)
    assert encode(at_random(235_200, 0.0185, seed=0)).width in (7, 8)


@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("density", [0.0, 0.004, 0.1, 1.0])
def test_counting_is_encoding_without_the_stream(monkeypatch: pytest.MonkeyPatch, chunk: int, density: float) -> None:
    monkeypatch.setattr(relative_index, "_CHUNK", chunk)
    tensor = at_random(3000, density, seed=5)
    nonzero, fillers = count(tensor)
    assert nonzero == int(tensor.sum())
    expected = [sum(value == 0 for _, value in one_by_one(tensor.tolist(), width)) for width in range(17)]
    assert fillers.tolist() == expected


def test_a_gap_longer_than_what_is_counted_at_once() -> None:
    size = 3 * 2**20 + 11
    nonzero, fillers = count(sparse(size, {0: 1.0, size - 1: 1.0}))
    assert nonzero == 2
    assert fillers.tolist() == [math.floor((size - 2) / 2**width) for width in range(17)]


def test_the_best_width_depends_on_the_bits_of_a_value() -> None:
    nonzero, fillers = count(torch.tensor([0.0] * 32 + [1.0] + ([0.0] * 31 + [1.0]) * 40))
    # 42 entries of 5 bits or 41 of 6: one entry of V + 5 against 41 bits.
    assert best_width(nonzero, fillers, 32) == 5
    assert best_width(nonzero, fillers, 64) == 6


def test_what_cannot_be_encoded() -> None:
    with pytest.raises(ValueError, match="int64"):
        encode(torch.arange(3))
    for width in (-1, 17):
        with pytest.raises(ValueError, match="0 to 16"):
            encode(torch.ones(3), width)


def test_broken_streams_are_refused() -> None:
    data = encode(sparse(10, {2: 1.5, 9: -2.0}), 2).to_bytes()
    for broken in (
        b"",
        data[:5],
        data[:12],
        data[:-1],
        data + b"\0",
        b"\xff" + data[1:],
        data[:1] + b"\x11" + data[2:],
    ):
        with pytest.raises(CompressError, match="not a stream of relative indices"):
            Encoded.from_bytes(broken)
    wide = encode(torch.zeros(3), 16).to_bytes()
    with pytest.raises(CompressError, match="indices of 17 bits"):
        Encoded.from_bytes(wide[:1] + b"\x11" + wide[2:])
    shorter = data[:11] + (9).to_bytes(4, "little") + data[15:]
    with pytest.raises(CompressError, match="position 9, the tensor has 9 weights"):
        decode(Encoded.from_bytes(shorter))
