"""Residual networks: the last layers of all blocks of a stage, and what begins it, lose the same channels."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.blocks import Classifier, cb, cbr
from zoo.entry import expect


class Basic(nn.Module):
    """Two 3x3 convolutions and a shortcut, with a projection where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.one, self.two = cbr(inputs, outputs, 3, stride), cb(outputs, outputs)
        same = inputs == outputs and stride == 1
        self.short = nn.Identity() if same else cb(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.two(self.one(x)) + self.short(x))


class TwoStages(Classifier):
    """A block of 16 channels and one of 24 with half the side."""

    features = 24

    def layers(self) -> None:
        self.first, self.second = Basic(16, 16), Basic(16, 24, 2)

    def body(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x))
        return out


@expect(widths={"stem": 8, "first": 8, "second": 12})  # in make test
class BasicBlocks(TwoStages):
    """ResNet-18."""


class Bottleneck(nn.Module):
    """1x1, 3x3 in groups, 1x1 and a shortcut."""

    def __init__(self, inputs: int, inner: int, outputs: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.reduce, self.conv = cbr(inputs, inner, 1), cbr(inner, inner, 3, stride, groups)
        self.expand = cb(inner, outputs, 1)
        same = inputs == outputs and stride == 1
        self.short = nn.Identity() if same else cb(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.expand(self.conv(self.reduce(x))) + self.short(x))


@expect(
    widths={
        "stem": 8,
        "first": 4,
        "first.expand": 8,
        "second": 6,
        "second.expand": 12,
        "second.short": 12,
    }
)
class Bottlenecks(TwoStages):
    """ResNet-50."""

    def layers(self) -> None:
        self.first, self.second = Bottleneck(16, 8, 16), Bottleneck(16, 12, 24, 2)


@expect(widths={"stem": 8, "first": 8, "second": 12})
class ResNeXt(TwoStages):
    """Bottlenecks with four groups."""

    def layers(self) -> None:
        self.first, self.second = Bottleneck(16, 16, 16, groups=4), Bottleneck(16, 24, 24, 2, groups=4)


@expect(widths={"stem": 8, "first": 12, "second": 16})
class RegNetX(TwoStages):
    """Groups of a fixed width of 4, six in one stage and eight in the next."""

    features = 32

    def layers(self) -> None:
        self.first, self.second = Bottleneck(16, 24, 24, 2, groups=6), Bottleneck(24, 32, 32, 2, groups=8)


class PreActivated(nn.Module):
    """Norm and ReLU before each convolution; what is added is not normed."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(outputs), nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        same = inputs == outputs and stride == 1
        self.short = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(x))
        x = x if self.short is None else self.short(y)
        out: Tensor = x + self.conv2(F.relu(self.norm2(self.conv1(y))))
        return out


@expect(widths={"stem": 8, "first": 8, "second": 12, "second.norm1": 8, "last": 12})
class PreActivation(TwoStages):
    """ResNet v2."""

    def layers(self) -> None:
        self.first, self.second = PreActivated(16, 16), PreActivated(16, 24, 2)
        self.last = nn.BatchNorm2d(24)

    def body(self, x: Tensor) -> Tensor:
        return F.relu(self.last(super().body(x)))


class ThreeBranches(nn.Module):
    """3x3, 1x1 and, where the shape does not change, a batch norm alone: all are added."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.three, self.one = cb(inputs, outputs, 3, stride), cb(inputs, outputs, 1, stride)
        self.same = nn.BatchNorm2d(inputs) if inputs == outputs and stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.three(x) + self.one(x)
        return F.relu(y if self.same is None else y + self.same(x))


@expect(widths={"stem": 8, "first": 8, "second": 12})
class RepVGG(TwoStages):
    """In its form for training."""

    def layers(self) -> None:
        self.first, self.second = ThreeBranches(16, 16), ThreeBranches(16, 24, 2)


@expect(widths={"stem": 8, "first": 8, "second": 12})
class ReZero(TwoStages):
    """Each block's output times one learned number, without a norm."""

    def layers(self) -> None:
        self.first, self.second = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 24, 3, 2, 1)
        self.alpha = nn.Parameter(torch.zeros(1))

    def body(self, x: Tensor) -> Tensor:
        return F.relu(self.second(x + self.alpha * F.relu(self.first(x))))


@expect(
    widths={
        "stem": 8,
        "high": 6,
        "high_block": 6,
        "to_high": 6,
        "low": 10,
        "low_block": 10,
        "to_low": 10,
        "last": 8,
    }
)
class HRNet(Classifier):
    """Maps of two sizes, each of which is added to the other one."""

    def layers(self) -> None:
        self.high, self.low = cbr(16, 12), cbr(16, 20, 3, 2)
        self.high_block, self.low_block = Basic(12, 12), Basic(20, 20)
        self.to_high, self.to_low = cb(20, 12, 1), cb(12, 20, 3, 2)
        self.last = cbr(32, 16, 1)

    def body(self, x: Tensor) -> Tensor:
        high, low = self.high_block(self.high(x)), self.low_block(self.low(x))
        up = F.interpolate(self.to_high(low), scale_factor=2.0, mode="nearest")
        high, low = F.relu(high + up), F.relu(low + self.to_low(high))
        both = [high, F.interpolate(low, high.shape[2:], mode="bilinear", align_corners=False)]
        out: Tensor = self.last(torch.cat(both, 1))
        return out


class SeriesActivation(nn.Module):
    """The activation of VanillaNet (Chen et al. 2023): a ReLU summed over neighbours, and a batch norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.weight = nn.Parameter(torch.randn(channels, 1, 3, 3))
        self.norm = nn.BatchNorm2d(channels)

    def groups(self, x: Tensor) -> int:
        return self.channels

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(F.conv2d(F.relu(x), self.weight, padding=1, groups=self.groups(x)))
        return out


class SeriesActivationByShape(SeriesActivation):
    """The number of groups is that of the input's channels."""

    def groups(self, x: Tensor) -> int:
        return x.shape[1]


class Vanilla(Classifier):
    """A layer of two 1x1 convolutions, pooling, and the activation."""

    features = 24
    act: type[SeriesActivation] = SeriesActivation

    def layers(self) -> None:
        self.one, self.two, self.series = cb(16, 20, 1), cb(20, 24, 1), self.act(24)

    def body(self, x: Tensor) -> Tensor:
        x = self.two(F.leaky_relu(self.one(x), 0.3))
        out: Tensor = self.series(F.max_pool2d(x, 2))
        return out


@expect(widths={"stem": 8, "one": 10}, stays={"two": "series"})
class VanillaNet(Vanilla):
    """The number of groups is an attribute of the network's own module, a constant after it was made."""


@expect(widths={"stem": 8, "one": 10, "two": 12, "series.norm": 12, "series.weight": (12, 1, 3, 3)})
class VanillaNetByShape(Vanilla):
    """A depthwise convolution by function, with a bare weight."""

    act = SeriesActivationByShape
