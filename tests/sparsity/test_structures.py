"""Structures: literal norms and masks, and each against slow loops over the entries of a weight."""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from compressor.sparsity.structures import Blocks, Norm, Runs, Structure, Taps, largest_of_runs, plain_structures

BY_NAME = plain_structures()

Key = Callable[[tuple[int, ...]], tuple[int, ...]]

KEYS: dict[str, Key] = {
    "Elements": lambda at: at,
    "2D": lambda at: at[:2],
    "Kernels": lambda at: at[:2],
    "Filters": lambda at: at[:1],
    "3D": lambda at: at[:1],
    "Channels": lambda at: at[1:2],
    "Rows": lambda at: at[:1],
    "Cols": lambda at: at[1:2],
    "4D": lambda at: (),
    "Layer": lambda at: (),
    "Shapes": lambda at: at[1:],
}
"""Which structure an entry at (filter, channel, row, column) belongs to, as its definition says."""


def taps_key(stride: int, sides: tuple[int, ...]) -> Key:
    """In raster order of the kernel, the taps k, k + stride, ... of one channel, whatever the filter."""

    def key(at: tuple[int, ...]) -> tuple[int, ...]:
        raster = 0
        for place, side in zip(at[2:], sides, strict=True):
            raster = raster * side + place
        return at[1], raster % stride

    return key


def groups(shape: tuple[int, ...], key: Key) -> list[list[tuple[int, ...]]]:
    """The entries of every structure, by a loop; structures in the order of their keys."""
    found: dict[tuple[int, ...], list[tuple[int, ...]]] = defaultdict(list)
    for at in itertools.product(*map(range, shape)):
        found[key(at)].append(at)
    return [found[k] for k in sorted(found)]


def check(structure: Structure, shape: tuple[int, ...], key: Key) -> None:
    """Count, size, norms and expansion against loops over the entries."""
    expected = groups(shape, key)
    assert structure.misfit(shape) is None
    assert structure.count(shape) == len(expected)
    assert math.prod(structure.index_shape(shape)) == len(expected)
    assert structure.size(shape) == min(map(len, expected))
    weight = torch.randint(-9, 10, shape, generator=torch.Generator().manual_seed(7)).float()
    l1 = [sum(abs(weight[at].item()) for at in entries) for entries in expected]
    l2 = [math.sqrt(sum(weight[at].item() ** 2 for at in entries)) for entries in expected]
    for criterion, norms in (("l1", l1), ("l2", l2)):
        found = structure.norms(weight, "l1" if criterion == "l1" else "l2")
        assert found.shape == structure.index_shape(shape)
        torch.testing.assert_close(found.flatten(), torch.tensor(norms), rtol=1e-5, atol=1e-5)
    index = torch.arange(len(expected)).reshape(structure.index_shape(shape))
    wide = structure.expand(index, shape)
    assert wide.shape == shape
    for number, entries in enumerate(expected):
        assert {int(wide[at]) for at in entries} == {number}


CONV, WIDE, LINEAR = (3, 2, 2, 3), (2, 3, 4), (4, 3)


@pytest.mark.parametrize("shape", [CONV, WIDE, LINEAR, (2, 2, 1, 2, 3), (1, 1, 1, 1)], ids=str)
@pytest.mark.parametrize("name", [name for name in KEYS if name not in ("2D", "Kernels", "Rows", "Cols")])
def test_structures_of_every_weight_hold_the_entries_that_their_definition_says(
    name: str, shape: tuple[int, ...]
) -> None:
    check(BY_NAME[name], shape, KEYS[name])


@pytest.mark.parametrize(
    ("name", "shape"),
    [("2D", CONV), ("Kernels", WIDE), ("2D", (2, 2, 1, 2, 3)), ("Rows", LINEAR), ("Cols", LINEAR), ("Rows", (1, 5))],
)
def test_kernels_rows_and_columns_hold_the_entries_that_their_definition_says(
    name: str, shape: tuple[int, ...]
) -> None:
    check(BY_NAME[name], shape, KEYS[name])


def test_every_name_of_a_structure_is_known_and_only_those() -> None:
    assert set(BY_NAME) == set(KEYS)
    assert BY_NAME["2D"] is BY_NAME["Kernels"]
    assert BY_NAME["3D"] is BY_NAME["Filters"]
    assert BY_NAME["4D"] is BY_NAME["Layer"]


@given(
    sides=st.tuples(*[st.integers(1, 3)] * 4), filters=st.integers(1, 3), depth=st.integers(1, 3), linear=st.booleans()
)
def test_blocks_are_neighbouring_filters_and_channels_at_one_place(
    sides: tuple[int, ...], filters: int, depth: int, linear: bool
) -> None:
    shape = (sides[0] * filters, sides[1] * depth, *([] if linear else sides[2:]))
    check(Blocks(filters=filters, depth=depth), shape, lambda at: (at[0] // filters, at[1] // depth, *at[2:]))


@given(sides=st.tuples(*[st.integers(1, 4)] * 4), stride=st.integers(1, 4), flat=st.booleans())
def test_taps_are_every_so_many_places_of_one_channel_whether_the_stride_divides_them_or_not(
    sides: tuple[int, ...], stride: int, flat: bool
) -> None:
    shape = sides[:3] if flat else sides
    if math.prod(shape[2:]) >= stride:  # else there are offsets without a tap
        check(Taps(stride=stride), shape, taps_key(stride, shape[2:]))


@given(sides=st.tuples(*[st.integers(1, 3)] * 4), length=st.integers(1, 4), linear=st.booleans())
def test_fibers_are_runs_of_channels_of_one_filter_at_one_place(
    sides: tuple[int, ...], length: int, linear: bool
) -> None:
    shape = (sides[0], sides[1] * length, *([] if linear else sides[2:]))
    check(Runs(length=length), shape, lambda at: (at[0], at[1] // length, *at[2:]))


@given(
    shape=st.tuples(*[st.integers(1, 4)] * 4),
    name=st.sampled_from([name for name in KEYS if name not in ("Rows", "Cols")]),
    seed=st.integers(0, 99),
)
def test_an_expansion_is_constant_on_each_structure_and_the_norm_of_it_counts_its_entries(
    shape: tuple[int, ...], name: str, seed: int
) -> None:
    structure = BY_NAME[name]
    alive = torch.rand(structure.index_shape(shape), generator=torch.Generator().manual_seed(seed)) < 0.5
    wide = structure.expand(alive, shape)
    for entries in groups(shape, KEYS[name]):
        assert len({bool(wide[at]) for at in entries}) == 1
    assert torch.equal(structure.norms(wide.float(), "l1"), alive * float(structure.size(shape)))


# --- by hand ---------------------------------------------------------------------------------------------------------

MATRIX = torch.tensor([[3.0, -4.0, 0.0], [0.0, 0.0, -12.0]])
KERNEL = torch.tensor([[[[1.0, -2.0]], [[2.0, 0.0]]], [[[0.0, 0.0]], [[-3.0, 4.0]]], [[[6.0, 6.0]], [[7.0, 0.0]]]])
"""Three filters of two channels of 1 x 2 taps."""


@pytest.mark.parametrize(
    ("name", "criterion", "weight", "expected"),
    [
        ("Rows", "l1", MATRIX, [7.0, 12.0]),
        ("Rows", "l2", MATRIX, [5.0, 12.0]),
        ("Filters", "l2", MATRIX, [5.0, 12.0]),
        ("Cols", "l1", MATRIX, [3.0, 4.0, 12.0]),
        ("Channels", "l1", MATRIX, [3.0, 4.0, 12.0]),
        ("Layer", "l1", MATRIX, 19.0),
        ("4D", "l2", MATRIX, 13.0),
        ("Elements", "l1", MATRIX, [[3.0, 4.0, 0.0], [0.0, 0.0, 12.0]]),
        ("Elements", "l2", MATRIX, [[3.0, 4.0, 0.0], [0.0, 0.0, 12.0]]),
        ("Filters", "l1", KERNEL, [5.0, 7.0, 19.0]),
        ("3D", "l2", KERNEL, [3.0, 5.0, 11.0]),
        ("Channels", "l1", KERNEL, [15.0, 16.0]),
        ("2D", "l1", KERNEL, [[3.0, 2.0], [0.0, 7.0], [12.0, 7.0]]),
        ("Kernels", "l2", KERNEL, [[5**0.5, 2.0], [0.0, 5.0], [72**0.5, 7.0]]),
        ("Shapes", "l1", KERNEL, [[[7.0, 8.0]], [[12.0, 4.0]]]),
    ],
)
def test_norms_are_those_of_a_pencil(name: str, criterion: Norm, weight: Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(BY_NAME[name].norms(weight, criterion), torch.tensor(expected))


def test_rows_of_a_matrix_are_the_columns_of_its_transpose() -> None:
    shape = (5, 7)
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    rows, columns = BY_NAME["Rows"], BY_NAME["Cols"]
    for criterion in ("l1", "l2"):
        of: Norm = "l1" if criterion == "l1" else "l2"
        torch.testing.assert_close(rows.norms(weight, of), columns.norms(weight.T, of))
    index = torch.arange(5)
    assert torch.equal(rows.expand(index, shape), columns.expand(index, (7, 5)).T)


@pytest.mark.parametrize("name", ["2D", "Filters", "Channels", "4D", "Shapes"])
def test_a_parameter_in_another_memory_format_has_the_same_norms_and_they_need_no_gradient(name: str) -> None:
    weight = torch.randint(-5, 6, (4, 3, 2, 2), generator=torch.Generator().manual_seed(3)).float()
    parameter = torch.nn.Parameter(weight.contiguous(memory_format=torch.channels_last))
    norms = BY_NAME[name].norms(parameter, "l1")
    assert torch.equal(norms, BY_NAME[name].norms(weight, "l1"))
    assert not norms.requires_grad


def test_strided_taps_of_a_three_by_three_kernel_by_hand() -> None:
    # Taps 1 to 9 of one filter, and ten times as much in the second: offset 0 has 1 4 7, offset 1 has 2 5 8 ...
    weight = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3) * torch.tensor([1.0, -10.0]).reshape(2, 1, 1, 1)
    assert Taps(stride=3).norms(weight, "l1").tolist() == [[12 * 11, 15 * 11, 18 * 11]]
    assert Taps(stride=2).norms(weight, "l1").tolist() == [[25 * 11, 20 * 11]]  # 1 3 5 7 9 and 2 4 6 8
    assert Taps(stride=2).size((2, 1, 3, 3)) == 8
    keep = Taps(stride=2).expand(torch.tensor([[True, False]]), (2, 1, 3, 3))
    assert keep[0].int().tolist() == keep[1].int().tolist() == [[[1, 0, 1], [0, 1, 0], [1, 0, 1]]]
    keep = Taps(stride=4).expand(torch.tensor([[False, True, False, False]]), (2, 1, 3, 3))
    assert keep[1].int().tolist() == [[[0, 1, 0], [0, 0, 1], [0, 0, 0]]]


def test_blocks_by_hand() -> None:
    weight = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    assert Blocks(filters=2, depth=2).norms(weight, "l1").tolist() == [[14.0, 22.0]]
    assert Blocks(filters=1, depth=2).norms(weight, "l1").tolist() == [[3.0, 7.0], [11.0, 15.0]]
    keep = Blocks(filters=1, depth=2).expand(torch.tensor([[False, True], [True, False]]), (2, 4))
    assert keep.int().tolist() == [[0, 0, 1, 1], [1, 1, 0, 0]]


# --- n of m ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "length", "expected"),
    [
        (2, 4, [[1, 0, 1, 0, 0, 0, 1, 1], [0, 1, 1, 0, 0, 0, 1, 1]]),
        (1, 4, [[0, 0, 1, 0, 0, 0, 0, 1], [0, 0, 1, 0, 0, 0, 0, 1]]),
        (1, 2, [[1, 0, 1, 0, 0, 1, 0, 1], [0, 1, 1, 0, 0, 1, 0, 1]]),
        (4, 4, [[1] * 8, [1] * 8]),
        (0, 4, [[0] * 8, [0] * 8]),
    ],
)
def test_the_largest_of_each_run_stay_and_of_equal_ones_the_later(
    count: int, length: int, expected: list[list[int]]
) -> None:
    weight = torch.tensor([[5.0, -1.0, -6.0, 2.0, 3.0, 3.0, -3.0, 3.0], [0.5, 1.0, 1.0, 0.1, 0.0, 0.0, 0.0, 0.0]])
    assert largest_of_runs(weight, count, length).int().tolist() == expected


def test_runs_of_a_convolution_go_along_its_channels() -> None:
    weight = torch.tensor([1.0, 8.0, 4.0, 2.0, 3.0, 5.0, 6.0, 7.0]).reshape(1, 4, 1, 2)  # (filter, channel, 1, tap)
    # Tap 0 of channels 0 to 3: 1 4 3 6; tap 1: 8 2 5 7.
    keep = largest_of_runs(weight, 2, 4)
    assert keep[0, :, 0, 0].tolist() == [False, True, False, True]
    assert keep[0, :, 0, 1].tolist() == [True, False, False, True]


# --- what does not fit -----------------------------------------------------------------------------------------------

CONVS = "1-d convolutions and convolutions and 3-d convolutions"
ANY = f"linear layers and {CONVS}"


@pytest.mark.parametrize(
    ("structure", "shape", "said"),
    [
        (BY_NAME["Rows"], CONV, "Rows are structures of weights of linear layers, this weight's shape is 3x2x2x3"),
        (BY_NAME["Cols"], WIDE, "Cols are structures of weights of linear layers, this weight's shape is 2x3x4"),
        (BY_NAME["Kernels"], LINEAR, f"2D are structures of weights of {CONVS}, this weight's shape is 4x3"),
        (Taps(stride=2), LINEAR, f"Taps are structures of weights of {CONVS}, this weight's shape is 4x3"),
        (
            BY_NAME["Filters"],
            (5,),
            f"Filters are structures of weights of {ANY}, this weight's shape is 5",
        ),
        (Blocks(filters=3, depth=2), (20, 8, 5, 5), "20 filters x 8 channels are not divisible by 3 x 2"),
        (Blocks(filters=2, depth=3), (20, 8, 5, 5), "20 filters x 8 channels are not divisible by 2 x 3"),
        (Blocks(filters=2, depth=4), (20, 8), None),
        (Runs(length=4), (5, 6, 3, 3), "6 channels are not divisible into runs of 4"),
        (Runs(length=3), (5, 6), None),
        (BY_NAME["Elements"], (5,), None),
        (BY_NAME["Filters"], LINEAR, None),
    ],
)
def test_a_weight_that_cannot_be_cut_so_is_said_with_its_shape(
    structure: Structure, shape: tuple[int, ...], said: str | None
) -> None:
    assert structure.misfit(shape) == said


@pytest.mark.parametrize("structure", [Blocks(filters=2), Runs(length=2)], ids=lambda structure: structure.name)
def test_blocks_and_runs_of_a_vector_are_a_misfit(structure: Structure) -> None:
    assert "this weight's shape is 4" in (structure.misfit((4,)) or "")
