"""Golden structures: L1 filter pruning of all convolutions, thinned, against the published architectures by hand.

Every layer table below is the paper's: where a convolution reads, what it writes, its kernel and its output's side.
Layers that write to one *stream* are added up, so that they lose the same filters; `a + b` is a concatenation. With
kept = N - floor(f N) of each stream's N channels, the widths, the MACs (of a convolution volume(output) * C_in / groups
* kh * kw, of a linear layer in * out) and the weights follow by arithmetic that knows nothing of the code under test.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor import models
from compressor.thinning.equivalence import thin
from compressor.tracing.macs import macs

SCHEDULE = """\
version: 2
policies:
  - pruner:
      class: Pruner
      criterion: l1
      structure: Filters
      scope: coupled
      weights: 'type:Conv2d'
      rate: {{sparsity: {}}}
    epochs: [0]
"""


@dataclass
class Table:
    """A network's layers in the order of its modules; `streams` are the channels of what they write."""

    share: float
    streams: dict[str, int] = field(default_factory=lambda: {"image": 3})
    convolutions: list[tuple[int, int, int]] = field(default_factory=list)
    """Inputs, outputs and groups of each, pruned."""
    linear: list[tuple[int, int]] = field(default_factory=list)
    macs: int = 0
    weights: int = 0

    def kept(self, stream: str) -> int:
        """The channels that stay of a stream, or of several one behind the other."""
        if stream == "image":
            return self.streams[stream]
        if " + " in stream:
            return sum(self.kept(one) for one in stream.split(" + "))
        return self.streams[stream] - math.floor(self.share * self.streams[stream])

    def conv(self, reads: str, writes: str, filters: int, kernel: int, side: int) -> str:
        """A convolution whose output is side x side."""
        assert self.streams.setdefault(writes, filters) == filters
        return self._add(self.kept(reads), self.kept(writes), 1, kernel, side, writes)

    def depthwise(self, stream: str, side: int) -> str:
        """A 3x3 convolution of each channel by itself."""
        return self._add(self.kept(stream), self.kept(stream), self.kept(stream), 3, side, stream)

    def _add(self, inputs: int, outputs: int, groups: int, kernel: int, side: int, writes: str) -> str:
        self.convolutions.append((inputs, outputs, groups))
        self.macs += side**2 * outputs * inputs // groups * kernel**2
        self.weights += outputs * inputs // groups * kernel**2
        return writes

    def fc(self, inputs: int, outputs: int) -> int:
        """A linear layer; none of its outputs is pruned."""
        self.linear.append((inputs, outputs))
        self.macs += inputs * outputs
        self.weights += inputs * outputs
        return outputs


def lenet_5(t: Table) -> None:
    t.streams["image"] = 1
    t.conv("image", "conv1", 20, 5, 24)
    t.conv("conv1", "conv2", 50, 5, 8)
    t.fc(t.fc(t.kept("conv2") * 4 * 4, 500), 10)


def simplenet_cifar(t: Table) -> None:
    t.conv("image", "conv1", 6, 5, 28)
    t.conv("conv1", "conv2", 16, 5, 10)
    t.fc(t.fc(t.fc(t.kept("conv2") * 5 * 5, 120), 84), 10)


def vgg(t: Table, plan: str) -> int:
    at, side = "image", 32
    for number, layer in enumerate(plan.split()):
        if layer == "M":
            side //= 2
        else:
            at = t.conv(at, f"conv{number}", int(layer), 3, side)
    return t.kept(at)


def vgg16_cifar(t: Table) -> None:
    plan = "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M"
    t.fc(vgg(t, plan), 10)


def vgg11_bn(t: Table) -> None:
    # The 1x1 map of a 32x32 image is repeated to 7x7 for the classifier of 224x224 ones.
    plan = "64 M 128 M 256 256 M 512 512 M 512 512 M"
    t.fc(t.fc(t.fc(vgg(t, plan) * 7 * 7, 4096), 4096), 10)


def resnet_cifar(t: Table, depth: int) -> None:
    at, side = t.conv("image", "16", 16, 3, 32), 32
    for width in (16, 32, 64):
        side = 32 * 16 // width
        for block in range(depth):
            t.conv(at, f"{width}.{block}", width, 3, side)
            t.conv(f"{width}.{block}", str(width), width, 3, side)
            if at != str(width):
                t.conv(at, str(width), width, 1, side)
            at = str(width)
    t.fc(t.kept("64"), 10)


def resnet20_cifar(t: Table) -> None:
    resnet_cifar(t, 3)


def resnet56_cifar(t: Table) -> None:
    resnet_cifar(t, 9)


def resnet18(t: Table) -> None:
    # 32x32: 16 after the stem, 8 after its pooling.
    at = t.conv("image", "stage64", 64, 7, 16)
    for width, side in ((64, 8), (128, 4), (256, 2), (512, 1)):
        for block in range(2):
            t.conv(at, f"{width}.{block}", width, 3, side)
            t.conv(f"{width}.{block}", f"stage{width}", width, 3, side)
            if at != f"stage{width}":
                t.conv(at, f"stage{width}", width, 1, side)
            at = f"stage{width}"
    t.fc(t.kept(at), 10)


def resnet50(t: Table) -> None:
    at, before = t.conv("image", "stem", 64, 7, 16), 8
    for width, side, depth in ((64, 8, 3), (128, 4, 4), (256, 2, 6), (512, 1, 3)):
        for block in range(depth):
            t.conv(at, f"{width}.{block}.1", width, 1, before)
            t.conv(f"{width}.{block}.1", f"{width}.{block}.2", width, 3, side)
            t.conv(f"{width}.{block}.2", f"stage{width}", 4 * width, 1, side)
            if at != f"stage{width}":
                t.conv(at, f"stage{width}", 4 * width, 1, side)
            at, before = f"stage{width}", side
    t.fc(t.kept(at), 10)


def mobilenet_v2(t: Table) -> None:
    # Sandler et al. 2018, table 2: expansion, filters, repeats, stride.
    at, side = t.conv("image", "stem", 32, 3, 16), 16
    rows = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expansion, filters, repeats, stride in rows:
        for block in range(repeats):
            wide = at
            if expansion > 1:
                wide = t.conv(at, f"{filters}.{block}", expansion * t.streams[at], 1, side)
            side //= stride if block == 0 else 1
            t.depthwise(wide, side)
            at = t.conv(wide, f"row{filters}", filters, 1, side)
    t.conv(at, "last", 1280, 1, side)
    t.fc(t.kept("last"), 10)


def densenet121(t: Table) -> None:
    at, side = t.conv("image", "stem", 64, 7, 16), 8
    width = 64
    for number, depth in enumerate((6, 12, 24, 16)):
        for layer in range(depth):
            t.conv(at, f"{number}.{layer}.1", 128, 1, side)
            at += " + " + t.conv(f"{number}.{layer}.1", f"{number}.{layer}.2", 32, 3, side)
        width += 32 * depth
        if number < 3:
            width //= 2
            at = t.conv(at, f"transition{number}", width, 1, side)
            side //= 2
    t.fc(t.kept(at), 10)


# The first line is pencil work: conv1 24*24*14*25 = 201,600 MACs, conv2 8*8*35*14*25 = 784,000, fc1 35*16*500 =
# 280,000, fc2 5,000. The dense figures of the design are in the last two columns where it has them (lenet_5 has the
# layers of its simplenet_mnist).
GOLDEN = [
    (lenet_5, 0.3, 1_270_600, 297_600, 2_293_000, 430_500),
    (simplenet_cifar, 0.3, 490_920, 48_795, 651_720, 61_770),
    (resnet20_cifar, 0.3, 21_589_890, 136_590, 40_813_184, 270_896),
    (resnet56_cifar, 0.5, 31_547_712, 213_144, 125_747_840, 851_504),
    (vgg16_cifar, 0.3, 154_901_906, 7_242_605, 313_201_664, 14_715_584),
    (resnet18, 0.3, 18_783_017, 5_505_092, 37_016_576, 11_172_032),
    (resnet50, 0.5, 21_465_088, 5_876_320, 83_431_424, 23_475_392),
    (mobilenet_v2, 0.3, 3_193_576, 1_099_108, 6_124_928, 2_202_560),
    (densenet121, 0.3, 29_566_822, 3_454_213, 57_829_376, 6_880_448),
    (vgg11_bn, 0.5, 106_831_872, 70_503_264, 272_343_040, 128_796_352),
]
LARGE = (resnet56_cifar, resnet50, densenet121, vgg11_bn)
each = pytest.mark.parametrize(
    ("plan", "share", "count", "size", "dense_count", "dense_size"),
    [pytest.param(*row, id=row[0].__name__, marks=[pytest.mark.slow] * (row[0] in LARGE)) for row in GOLDEN],
)


def built(name: str) -> nn.Module:
    """The network with random weights that let the image through, and batch norms that do something."""
    torch.manual_seed(0)
    network = models.build(name, num_classes=10)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, std=math.sqrt(3 / fan_in))
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            assert isinstance(module.running_mean, Tensor)
            assert isinstance(module.running_var, Tensor)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


def layers(network: nn.Module) -> tuple[list[tuple[int, int, int]], list[tuple[int, int]]]:
    """As the tables have them."""
    every = list(network.modules())
    convolutions = [(m.in_channels, m.out_channels, m.groups) for m in every if isinstance(m, nn.Conv2d)]
    return convolutions, [(m.in_features, m.out_features) for m in every if isinstance(m, nn.Linear)]


def size_of(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters() if p.dim() in (2, 4))


@each
def test_the_tables_without_pruning_have_the_published_figures(
    plan: Callable[[Table], None], share: float, count: int, size: int, dense_count: int, dense_size: int
) -> None:
    table = Table(0.0)
    plan(table)
    assert (table.macs, table.weights) == (dense_count, dense_size)


@each
def test_a_pruned_and_thinned_network_has_the_widths_by_hand_and_the_same_logits(
    plan: Callable[[Table], None],
    share: float,
    count: int,
    size: int,
    dense_count: int,
    dense_size: int,
    run_of: Callable[..., Any],
) -> None:
    table = Table(share)
    plan(table)
    assert (table.macs, table.weights) == (count, size)
    network = built(plan.__name__)
    shape = (table.streams["image"], 28, 28) if plan is lenet_5 else (3, 32, 32)
    draws = torch.Generator().manual_seed(1)
    images, others = torch.randn(2, 4, *shape, generator=draws)
    run = run_of(SCHEDULE.format(share), network)
    run.images(images)
    run.begin(0)
    with torch.no_grad():
        masked = network(others)
    assert size_of(network) == dense_size
    thinned = thin(network, images)
    assert not thinned.stays
    thinned.cut.model(network)
    assert layers(network) == (table.convolutions, table.linear)
    assert (macs(network, shape)[0], size_of(network)) == (count, size)
    with torch.no_grad():
        assert torch.allclose(network(others), masked, rtol=1e-4, atol=1e-4)
    assert masked.std(0).max() > 1e-3  # the images are told apart


def test_control_a_filter_too_few_is_noticed(run_of: Callable[..., Any]) -> None:
    network = built("lenet_5")
    run = run_of(SCHEDULE.format(0.35), network)
    run.images(torch.randn(2, 1, 28, 28))
    run.begin(0)
    thin(network, torch.randn(2, 1, 28, 28)).cut.model(network)
    table = Table(0.3)
    lenet_5(table)
    assert layers(network) != (table.convolutions, table.linear)
