"""Bits of a whole network, counted with a pencil."""

import math

import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from compressor.models.lenet import lenet_5
from compressor.sparsity.weights import prunable
from compressor.storage.bits import StoredBits, dense_bits, stored_bits
from compressor.storage.packed import pack
from compressor.storage.relative_index import encode

WEIGHTS = ["conv.weight", "fc.weight"]


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    """conv 2 x 1 x 3 x 3 with an empty second filter, fc 3 x 40 with two weights, and what is not pruned."""
    conv, fc = torch.zeros(2, 1, 3, 3), torch.zeros(3, 40)
    conv[0] = 1.0
    fc[0, 39] = fc[2, 39] = -1.0
    return {
        "conv.weight": conv,
        "conv.bias": torch.zeros(2),
        "bn.running_mean": torch.zeros(2),
        "bn.num_batches_tracked": torch.tensor(7),
        "fc.weight": fc,
        "fc.bias": torch.ones(3),
    }


def test_every_format_by_hand(tensors: dict[str, Tensor]) -> None:
    others = (2 + 2 + 3) * 32 + 64
    conv, fc = 88 + 4 * 32, 88 + 2 * 32  # the headers
    assert stored_bits(tensors, WEIGHTS) == StoredBits(
        dense=(18 + 120) * 32 + others,
        # conv: nine weights, then zeros that are not stored, 0 bits an index; fc: gaps of 39 and 79, 7 bits
        relative=(conv + 9 * 32) + (fc + 2 * (32 + 7)) + others,
        widths=(7, 7),
        # conv: 8 bits; fc: 5, with one filler and two
        relative_han=(conv + 9 * (32 + 8)) + (fc + 5 * (32 + 5)) + others,
        # 9 columns: 4 bits; 40 columns: 6 bits; a pointer a row, and one more
        csr=(conv + 9 * (32 + 4) + 3 * 32) + (fc + 2 * (32 + 6) + 4 * 32) + others,
        bitmask=(conv + 9 * 32 + 18) + (fc + 2 * 32 + 120) + others,
        # conv: k = 0, a bit for each of the nine and no gap; fc: k = 5: 5 + 1 + 1 bits for the gap of 39, 5 + 2 + 1
        rice=(conv + 9 * (32 + 1)) + (fc + 2 * 32 + 7 + 8) + others,
        # conv has 72 bytes in all, less than another record; fc: two values, 14 bits as indices or as codes
        packed=18 * 32 + (2 * 32 + 16) + others,
        # 18 weights, half of them zero: 18 bits; 2 of 120: 2 log2(60) + 118 log2(120 / 118) = 14.68; zeros alone: none
        entropy=math.ceil(9 * 32 + 18 + 2 * 32 + 14.68) + 3 * 32 + 64,
    )


def test_a_name_that_is_no_prunable_weight_is_stored_densely(tensors: dict[str, Tensor]) -> None:
    dense = sum(tensor.numel() for tensor in tensors.values()) * 32 + 32
    stored = stored_bits(tensors, [])
    equal = dict.fromkeys(("dense", "relative", "relative_han", "csr", "bitmask", "rice"), dense)
    # File and bound know no prunable ones: 480 bytes of fc become 2 values and 14 bits. The bound is the one above.
    entropy = math.ceil(9 * 32 + 18 + 2 * 32 + 14.68) + 3 * 32 + 64
    assert stored == StoredBits(**equal, widths=None, packed=dense - 120 * 32 + 2 * 32 + 16, entropy=entropy)
    assert stored.rate == 1


def test_nothing_takes_no_bits() -> None:
    nothing = stored_bits({}, [])
    assert (nothing.dense, nothing.relative, nothing.rate) == (0, 0, 1)


@pytest.mark.parametrize(("columns", "bits"), [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (256, 8), (257, 9)])
def test_a_column_takes_the_logarithm_of_how_many_there_are(columns: int, bits: int) -> None:
    stored = stored_bits({"w": torch.ones(2, columns)}, ["w"])
    assert stored.csr == 88 + 64 + 2 * columns * (32 + bits) + 3 * 32


def test_half_precision_takes_half(tensors: dict[str, Tensor]) -> None:
    stored = stored_bits({"fc.weight": tensors["fc.weight"].half()}, WEIGHTS)
    assert stored.dense == 120 * 16
    assert stored.relative == 88 + 64 + 2 * (16 + 7)
    assert stored.bitmask == 88 + 64 + 2 * 16 + 120


def test_a_tied_weight_is_stored_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    once = stored_bits(model[0].state_dict(), ["weight"])
    model[1].weight, model[1].bias = model[0].weight, model[0].bias
    assert stored_bits(model.state_dict(), prunable(model)) == once
    # Two views of one memory that are not the same tensor are two.
    rows = torch.ones(2, 3)
    assert stored_bits({"a": rows[0], "b": rows[1], "c": torch.ones(0), "d": torch.ones(0)}, []).dense == 6 * 32
    assert stored_bits({"a": rows[0], "b": rows[0, :2]}, []).dense == 5 * 32


def test_the_dense_form_needs_no_memory() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.BatchNorm1d(4))
    model[2].weight = model[1].weight
    assert dense_bits(model.state_dict(keep_vars=True)) == (2 * 16 + 3 * 4 + 4 * 4) * 32 + 64


def test_han_keeps_a_twelfth_of_lenet5_and_stores_a_ninth() -> None:
    # Kept 66, 12, 8 and 19 %. Fillers by the formula: 0, 0, 2386 and 1; 580 biases; 36,280 weights are left of 430,500.
    model = lenet_5()
    torch.manual_seed(0)
    with torch.no_grad():
        for weight, kept in zip(prunable(model).values(), (0.66, 0.12, 0.08, 0.19), strict=True):
            chosen = torch.randperm(weight.numel())[: round(kept * weight.numel())]
            mask = torch.zeros(weight.numel())
            mask[chosen] = 1.0
            weight.copy_(mask.view_as(weight))
    stored = stored_bits(model.state_dict(), prunable(model))
    assert stored.dense == 431_080 * 32 == 13_794_560
    assert stored.relative_han == pytest.approx(
        (330 + 3_000) * 40 + (32_000 + 2_386 + 950 + 1) * 37 + 580 * 32 + 4 * 88 + 12 * 32, rel=0.003
    )
    assert 13_794_560 / stored.relative_han == pytest.approx(9.45, rel=0.003)
    assert stored.relative < stored.relative_han
    assert stored.widths is not None
    assert stored.widths[0] <= stored.widths[1] == 6


def test_the_count_is_what_encoding_takes() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 50))
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in prunable(model).values():
            weight.mul_(torch.rand_like(weight) < 0.1)  # zeros of both signs
    stored = stored_bits(model.state_dict(), prunable(model))
    rest = (8 + 4 * 8 + 50) * 32 + 64
    conv, fc = model[0].weight, model[3].weight
    assert stored.relative == rest + encode(conv).bits + encode(fc).bits
    assert stored.relative_han == rest + encode(conv, 8).bits + encode(fc, 5).bits
    assert stored.dense == rest + (216 + 400) * 32
    assert stored.rate == stored.dense / stored.relative


def test_counting_changes_nothing_and_reads_back(tensors: dict[str, Tensor]) -> None:
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    stored = stored_bits(tensors, WEIGHTS)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors.items())
    assert StoredBits.model_validate_json(stored.model_dump_json()) == stored


def at_random(*shape: int, density: float) -> Tensor:
    draws = torch.Generator().manual_seed(0)
    dense = torch.randn(*shape, generator=draws)
    return dense.where(torch.rand(*shape, generator=draws) < density, 0.0)


def test_the_packed_file_has_so_many_bytes_and_its_header() -> None:
    tensors = {"a": at_random(50, 40, 3, 3, density=0.1), "b": at_random(10, 500, density=0.6), "c": torch.zeros(300)}
    tensors |= {
        "tied": tensors["a"],
        "signs": torch.randn(500) * (torch.arange(500) % 7 == 0),
        "steps": torch.tensor(3),
        "e": torch.ones(7).half(),
    }
    file = pack(tensors, {"note": "x" * 77})
    header = int.from_bytes(file[:8], "little")
    assert 8 * (len(file) - header - 8) == stored_bits(tensors, ["a", "b"]).packed


@pytest.mark.parametrize("density", [0.5, 0.1, 0.02])
def test_random_zeros_come_near_the_bound_and_never_below(density: float) -> None:
    weight = at_random(300, 1000, density=density)
    values = 32 * int(torch.count_nonzero(weight))
    stored = stored_bits({"w": weight}, ["w"])
    assert stored.rice is not None
    assert stored.packed is not None
    assert stored.entropy is not None
    bound = stored.entropy - values
    share = int(torch.count_nonzero(weight)) / 300_000
    assert bound == pytest.approx(300_000 * scipy.stats.entropy([share, 1 - share], base=2), abs=1)
    assert bound < stored.packed - values < 1.04 * bound
    assert stored.packed <= stored.rice <= stored.packed + 88 + 64
    assert stored.packed <= min(stored.bitmask, stored.relative, stored.relative_han)
