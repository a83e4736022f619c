"""Zero rows and columns left out of the products: the same outputs, as few columns as the formula says."""

import copy
import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compressor.evaluating import evaluating
from compressor.reports.formats import as_table
from compressor.reports.report import Thinning, compared, measure
from compressor.sparsity.structures import Taps
from compressor.thinning import compaction
from compressor.thinning.compaction import CompactConv2d, CompactLinear, compact, compact_layers, thin_and_compact
from compressor.thinning.graph import Untraceable

SHAPE = (3, 12, 12)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@torch.no_grad()
def strided(conv: nn.Conv2d, stride: int, offsets: list[int], filters: tuple[int, ...] = ()) -> nn.Conv2d:
    """Only the taps offset, offset + stride, ... of each channel; and no filter of `filters`."""
    for channel, offset in enumerate(offsets):
        taps = conv.weight[:, channel].flatten(1)
        kept = torch.zeros_like(taps)
        kept[:, offset::stride] = taps[:, offset::stride]
        conv.weight[:, channel] = kept.reshape(conv.weight[:, channel].shape)
    conv.weight[list(filters)] = 0
    return conv


@torch.no_grad()
def same(network: nn.Module, images: Tensor, **how: Any) -> nn.Module:
    """The compact network, whose outputs are compared in single and in double precision."""
    found = compact(network, **how)
    network = copy.deepcopy(network).eval()
    torch.testing.assert_close(found(images), network(images), atol=1e-5, rtol=1e-5)
    exact, wanted = found.double()(images.double()), network.double()(images.double())
    torch.testing.assert_close(exact, wanted, atol=1e-9, rtol=0)
    return found.float()


def columns_by_formula(kernel: tuple[int, int], stride: int, offsets: list[int]) -> int:
    return sum(math.ceil((kernel[0] * kernel[1] - offset) / stride) for offset in offsets)


GEOMETRIES = [
    {"kernel_size": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    for kernel, stride, padding, dilation in itertools.product([3, (2, 5)], [1, (2, 3)], [0, (1, 2)], [1, (2, 1)])
]


@pytest.mark.parametrize("taps", [2, 3, 5])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_a_strided_convolution_is_the_product_of_the_columns_that_are_left(geometry: dict[str, Any], taps: int) -> None:
    torch.manual_seed(0)
    offsets = [0, taps - 1, 1]
    conv = strided(nn.Conv2d(3, 4, **geometry), taps, offsets)
    found = same(conv, random(2, *SHAPE))
    assert isinstance(found, CompactConv2d)
    assert found.gathers
    assert found.matrix.shape == (4, columns_by_formula(conv.kernel_size, taps, offsets))


@settings(max_examples=25)
@given(
    channels=st.integers(1, 3),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    step=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    bias=st.booleans(),
    density=st.sampled_from([0.0, 0.2, 0.6, 1.0]),
    layout=st.sampled_from([torch.contiguous_format, torch.channels_last]),
    seed=st.integers(0, 2**16),
)
@torch.no_grad()
def test_any_rows_and_columns_of_any_convolution(
    channels: int,
    kernel: tuple[int, int],
    step: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    bias: bool,
    density: float,
    layout: torch.memory_format,
    seed: int,
) -> None:
    draws = torch.Generator().manual_seed(seed)
    conv = nn.Conv2d(channels, 3, kernel, step, padding, dilation, bias=bias)
    columns = torch.rand(channels, *kernel, generator=draws) < density
    rows = torch.rand(3, 1, 1, 1, generator=draws) < 0.7
    weight = torch.randn(conv.weight.shape, generator=draws)
    conv.weight.copy_(torch.where(rows & columns, weight, 0.0))
    found = same(conv, random(2, channels, 9, 8, seed=seed).to(memory_format=layout))
    whole = bool((rows & columns).all())
    assert type(found) is (nn.Conv2d if whole else CompactConv2d)
    if isinstance(found, CompactConv2d):
        left = (int(rows.sum()) if columns.any() else 0, int(columns.sum()) if rows.any() else 0)
        assert found.matrix.numel() == left[0] * left[1]
        assert torch.equal(found.weight, conv.weight)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", ["same", "valid", (1, 2)])
def test_every_way_of_padding(padding: Any, mode: str) -> None:
    torch.manual_seed(0)
    conv = strided(nn.Conv2d(3, 4, (4, 3), padding=padding, padding_mode=mode), 2, [0, 1, 1], (2,))
    same(conv, random(2, *SHAPE))


def test_many_images_are_multiplied_in_parts_and_one_may_come_without_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    conv = strided(nn.Conv2d(3, 4, 3), 2, [0, 1, 1])
    images = random(7, *SHAPE)
    columns_of_one = columns_by_formula((3, 3), 2, [0, 1, 1]) * 10 * 10 * 4
    monkeypatch.setattr(compaction, "_IN_CACHE", 3 * columns_of_one)
    found = same(conv, images)
    sizes = []
    product = CompactConv2d._product
    monkeypatch.setattr(CompactConv2d, "_product", lambda self, x: (sizes.append(len(x)), product(self, x))[1])
    whole = found(images)
    assert sizes == [3, 3, 1]
    torch.testing.assert_close(found(images[4]), whole[4])


def test_whole_channels_and_filters_leave_a_smaller_convolution() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3, padding=1, stride=2, dilation=2)
    with torch.no_grad():
        conv.weight[:, 1] = 0
        conv.weight[[0, 3]] = 0
    found = same(conv, random(2, *SHAPE))
    assert isinstance(found, CompactConv2d)
    assert not found.gathers
    assert found.matrix.shape == (2, 2 * 9)


def test_a_removed_filter_says_its_bias() -> None:
    conv = strided(nn.Conv2d(1, 2, 2), 2, [0], (1,))
    with torch.no_grad():
        conv.bias.copy_(torch.tensor([0.5, -2.0]))
    out = compact(conv)(random(1, 1, 3, 3))
    assert torch.equal(out[0, 1], torch.full((2, 2), -2.0))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("rows", "columns"), [([1], []), ([], [0, 3]), ([0, 2], [4]), ([0, 1, 2], [])])
def test_a_linear_layer_without_rows_and_columns(rows: list[int], columns: list[int], bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(5, 3, bias=bias)
    with torch.no_grad():
        layer.weight[rows] = 0
        layer.weight[:, columns] = 0
    found = same(layer, random(2, 4, 5))
    assert isinstance(found, CompactLinear)
    left = 3 - len(rows), 5 - len(columns)
    assert found.matrix.shape == (left if left[0] else (0, 0))
    assert torch.equal(found.weight, layer.weight)


class Net(nn.Module):
    """A convolution that is called twice under two names, a linear layer whose weight is read past it, others."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = strided(nn.Conv2d(3, 4, 3, padding=1), 3, [0, 1, 2])
        self.twice = strided(nn.Conv2d(4, 4, 3, padding=1), 2, [0, 1, 1, 0])
        self.again = nn.ModuleDict({"twice": self.twice})
        self.grouped = nn.Conv2d(4, 4, 3, groups=4)
        self.norm = nn.BatchNorm2d(4)
        self.read = nn.Linear(400, 6)
        self.last = nn.Linear(6, 5)
        with torch.no_grad():
            self.grouped.weight[:, :, 0] = 0
            self.read.weight[:, ::2] = 0

    def forward(self, x: Tensor) -> Tensor:
        x = self.again["twice"](self.twice(self.first(x)).relu())
        x = self.norm(self.grouped(x)).flatten(1)
        return self.last(nn.functional.linear(x, self.read.weight, self.read.bias))


def test_a_network_is_copied_and_each_layer_that_loses_something_is_compact() -> None:
    network = Net().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = same(network, random(2, *SHAPE))
    assert set(compact_layers(found)) == {"first", "twice", "read"}
    assert found.get_submodule("again.twice") is found.get_submodule("twice")
    assert network.training
    assert not found.training
    assert type(network.first) is nn.Conv2d
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not any(
        parameter.requires_grad for layer in compact_layers(found).values() for parameter in layer.parameters()
    )


def test_a_dense_network_and_scattered_zeros_have_nothing_to_leave_out() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(400, 5))
    assert compact_layers(compact(network)) == {}
    with torch.no_grad():
        network[0].weight[0, :, 0] = 0  # in one filter alone
        network[2].weight[torch.arange(400) % 5, torch.arange(400)] = 0
    assert compact_layers(compact(network)) == {}
    assert thin_and_compact(network, random(2, *SHAPE)) is None


def test_a_subclass_may_compute_something_else_and_stays() -> None:
    class Own(nn.Conv2d):
        """Squares."""

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) ** 2

    assert compact_layers(compact(nn.Sequential(strided(Own(3, 4, 3), 2, [0, 1, 1])))) == {}


# Of 27 columns a stride of 2 leaves 5 + 4 + 4, 0.48; of 8 filters 5 are 0.625 of the work, 7 are 0.875.
@pytest.mark.parametrize(
    ("stride", "gone", "gathers", "shape"),
    [(2, 0, True, (8, 13)), (2, 3, True, (5, 13)), (1, 3, False, (5, 27)), (1, 1, None, ())],
)
def test_if_it_pays_only_few_columns_are_gathered_and_little_work_is_replaced(
    stride: int, gone: int, gathers: bool | None, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    conv = strided(nn.Conv2d(3, 8, 3), stride, [0, stride - 1, stride - 1], tuple(range(gone)))
    found = same(conv, random(2, *SHAPE), if_it_pays=True)
    assert getattr(found, "gathers", None) is gathers
    if isinstance(found, CompactConv2d):
        assert found.matrix.shape == shape


def test_where_most_columns_are_left_the_librarys_convolution_of_the_live_filters_is_taken() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 8, 3)
    with torch.no_grad():
        conv.weight[:, :, 1, 1] = 0  # 24 of 27 columns
        conv.weight[4:] = 0
    found = same(conv, random(2, *SHAPE), if_it_pays=True)
    assert isinstance(found, CompactConv2d)
    assert not found.gathers
    assert found.matrix.shape == (4, 27)
    assert same(conv, random(2, *SHAPE)).matrix.shape == (4, 24)


def lenet(stride: int) -> nn.Sequential:
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
    if stride > 1:
        strided(second, stride, [channel % stride for channel in range(8)])
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), nn.Linear(8 * 8 * 8, 5))


@torch.no_grad()
def test_what_thinning_leaves_is_compacted_and_what_it_can_take_is_its_own() -> None:
    images = random(3, *SHAPE)
    network = lenet(1)
    for parameter in network[0].parameters():
        parameter[:5] = 0
    assert thin_and_compact(network, images) is None  # five maps: thinning removes them, and nothing is left
    network = lenet(2)
    found = thin_and_compact(network, images)
    assert found is not None
    assert not found.thinned
    assert list(compact_layers(found.network)) == ["2"]
    for parameter in network[0].parameters():
        parameter[:5] = 0
    found = thin_and_compact(network, images)
    assert found is not None
    assert found.thinned
    assert found.network[0].weight.shape == (3, 3, 3, 3)
    assert found.network[2].matrix.shape == (8, 4 + 5 + 4)  # maps 5, 6, 7 have offsets 1, 0, 1
    assert found.largest_difference < 1e-5
    with evaluating(network):
        torch.testing.assert_close(found.network(images), network(images), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_where_channels_cannot_be_followed_the_masked_network_is_compacted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(network: nn.Module, images: Tensor) -> None:
        raise Untraceable("nothing can be followed here")

    monkeypatch.setattr(compaction, "thin", refuse)
    found = thin_and_compact(lenet(2), random(3, *SHAPE))
    assert found is not None
    assert not found.thinned
    assert list(compact_layers(found.network)) == ["2"]
    assert found.stays == ("nothing can be followed here",)


@torch.no_grad()
def test_the_report_says_why_zero_filters_are_compacted_and_not_thinned() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.LayerNorm([8, 10, 10]), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(512, 5)
    )
    network[0].weight[:6] = 0
    report = compared(measure(network, SHAPE), {"dense": lenet(1), "masked": network}, SHAPE, measures=False)
    assert report.comparison is not None
    [stay] = report.comparison.stays
    assert stay.startswith("0.weight: 6 zero filters stay: ")
    assert f"not thinned: {stay}" in " ".join(as_table(report).split())
    record = Thinning(
        when="", parameters_before=1, parameters_after=1, images=1, largest_difference=0.0, stays=[stay]
    )  # named already
    report = compared(measure(network, SHAPE, None, [record]), {"dense": network}, SHAPE, measures=False)
    assert report.comparison is not None
    assert (report.comparison.compacted, report.comparison.stays) == (["0"], [])


@torch.no_grad()
def test_the_comparison_has_the_compacted_stage_with_its_work_and_its_logits() -> None:
    dense, masked = lenet(1), lenet(2)
    report = compared(measure(masked, SHAPE), {"dense": dense, "masked": masked}, SHAPE)
    found, times = report.comparison, report.latency
    assert found is not None
    assert times is not None
    stages = {stage.name: stage for stage in found.stages}
    assert list(stages) == ["dense", "masked", "compacted"]
    columns = sum(math.ceil((9 - channel % 2) / 2) for channel in range(8))  # of 72
    work = {"first": 8 * 27 * 100, "last": 512 * 5}
    assert stages["masked"].macs == sum(work.values()) + 8 * 72 * 64
    assert stages["compacted"].macs == sum(work.values()) + 8 * columns * 64
    assert stages["compacted"].parameters == stages["masked"].parameters - 8 * (72 - columns)
    assert [(timing.stage, timing.batch) for timing in times.timings] == [(name, n) for n in (1, 16) for name in stages]
    assert found.compacted == ["2"]
    images = torch.rand(16, *SHAPE, generator=torch.Generator().manual_seed(0))
    difference = float((compact(masked)(images) - masked(images)).abs().max())
    assert found.largest_difference == difference < 1e-5
    table = as_table(report)
    assert "without the zero rows and columns of 2; the largest difference of a logit on 16 random images is" in table
    assert [line.split()[0] for line in table.splitlines() if "compacted " in line] == ["compacted"]


@torch.no_grad()
def test_the_comparison_of_a_network_that_thinning_suffices_for_is_as_it_was() -> None:
    network = lenet(1)
    network[0].weight[:5] = 0
    network[0].bias[:5] = 0
    report = compared(measure(network, SHAPE), {"dense": lenet(1), "masked": network}, SHAPE, measures=False)
    found = report.comparison
    assert found is not None
    assert report.latency is None
    assert [stage.name for stage in found.stages] == ["dense", "masked"]
    assert (found.compacted, found.largest_difference) == ([], None)
    assert "compacted" not in as_table(report)
    network = lenet(2)
    network[0].weight[:5] = 0
    network[0].bias[:5] = 0
    found = compared(report, {"dense": lenet(1), "masked": network}, SHAPE, measures=False).comparison
    assert found is not None
    assert [stage.name for stage in found.stages] == ["dense", "masked", "thin, compacted"]


def test_taps_are_the_structure_that_is_compacted() -> None:
    """`Taps` masks what the formula of the paper counts, for every stride and offset."""
    for stride in range(2, 10):
        for offset in range(stride):
            keep = Taps(stride=stride).expand(torch.eye(stride).bool()[[offset]], (2, 1, 3, 3))
            assert int(keep[0].sum()) == columns_by_formula((3, 3), stride, [offset])
