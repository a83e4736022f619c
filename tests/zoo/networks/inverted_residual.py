"""Depthwise convolutions: each goes with the channel that it reads."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from zoo.blocks import Classifier, cb, cbr
from zoo.entry import expect


@expect(widths={"stem": 8, "one.0": 8, "one.1": 12, "two.0": 12, "two.1": 8})
class MobileNetV1(Classifier):
    """Depthwise and pointwise convolutions in turn."""

    def layers(self) -> None:
        self.one = nn.Sequential(cbr(16, 16, groups=16), cbr(16, 24, 1))
        self.two = nn.Sequential(cbr(24, 24, 3, 2, groups=24), cbr(24, 16, 1))

    def body(self, x: Tensor) -> Tensor:
        out: Tensor = self.two(self.one(x))
        return out


class Excitation(nn.Module):
    """Squeeze and excitation by 1x1 convolutions."""

    def __init__(self, channels: int, gate: type[nn.Module] = nn.Sigmoid) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(channels, 8, 1), nn.Conv2d(8, channels, 1)
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x * self.gate(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))
        return out


class Inverted(nn.Module):
    """Expand, depthwise, project; with a shortcut where the shape does not change."""

    def __init__(self, inputs: int, inner: int, outputs: int, stride: int = 1, act: type[nn.Module] = nn.ReLU6) -> None:
        super().__init__()
        self.expand = nn.Sequential(*cb(inputs, inner, 1), act())
        self.depthwise = nn.Sequential(*cb(inner, inner, 3, stride, inner), act())
        self.between, self.project, self.end = nn.Identity(), cb(inner, outputs, 1), nn.Identity()
        self.same = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.end(self.project(self.between(self.depthwise(self.expand(x)))))
        out: Tensor = x + y if self.same else y
        return out


class TwoBlocks(Classifier):
    """A block with a shortcut, and one of half the side."""

    features = 24

    def body(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x))
        return out


BLOCKS = {
    "stem": 8,
    "first": 16,
    "first.project": 8,
    "second": 12,
    "second.project": 12,
}


@expect(widths=BLOCKS)  # in make test
class MobileNetV2(TwoBlocks):
    """Inverted residuals."""

    def layers(self) -> None:
        self.first, self.second = Inverted(16, 32, 16), Inverted(16, 24, 24, 2)


EXCITED = {**BLOCKS, "first.between.squeeze": 4, "second.between.squeeze": 4}


@expect(widths=EXCITED)
class MobileNetV3(TwoBlocks):
    """With squeeze and excitation between, and hard activations."""

    def layers(self) -> None:
        self.first, self.second = Inverted(16, 32, 16, act=nn.Hardswish), Inverted(16, 24, 24, 2, nn.Hardswish)
        self.first.between, self.second.between = Excitation(32, nn.Hardsigmoid), Excitation(24, nn.Hardsigmoid)


@expect(widths=EXCITED)
class EfficientNet(TwoBlocks):
    """With squeeze and excitation, SiLU, and stochastic depth: a block that is left out of a step."""

    def layers(self) -> None:
        self.first, self.second = Inverted(16, 32, 16, act=nn.SiLU), Inverted(16, 24, 24, 2, nn.SiLU)
        self.first.between, self.second.between = Excitation(32), Excitation(24)
        self.first.end = StochasticDepth(1e-9, "row")  # never drawn: the losses of two runs are compared


@expect(widths={"stem": 8, "expand": 16, "project": 8, "last": 12})
class EfficientNetV2(Classifier):
    """A fused block: one 3x3 convolution in place of expansion and depthwise convolution."""

    features = 24

    def layers(self) -> None:
        self.expand, self.project, self.last = cbr(16, 32), cb(32, 16, 1), cbr(16, 24, 1)

    def body(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(x + self.project(self.expand(x)))
        return out


@expect(widths={"stem": 8, "depthwise": 8, "scale": 8, "same": 8, "pointwise": 12, "last": 8})
class MobileOne(Classifier):
    """Vasu et al. 2023, in its form for training: sums of several depthwise, and of several 1x1 convolutions."""

    def layers(self) -> None:
        self.depthwise = nn.ModuleList(cb(16, 16, groups=16) for _ in range(2))
        self.scale, self.same = cb(16, 16, 1, groups=16), nn.BatchNorm2d(16)
        self.pointwise = nn.ModuleList(cb(16, 24, 1) for _ in range(2))
        self.last = cbr(24, 16)

    def body(self, x: Tensor) -> Tensor:
        y = self.scale(x) + self.same(x)
        for branch in self.depthwise:
            y = y + branch(x)
        one, two = self.pointwise
        out: Tensor = self.last(F.relu(one(F.relu(y)) + two(F.relu(y))))
        return out


class Ghost(nn.Module):
    """Half of the outputs are made from the other half by a cheap depthwise convolution (Han et al. 2020)."""

    def __init__(self, inputs: int, outputs: int, act: bool = True) -> None:
        super().__init__()
        half, make = outputs // 2, cbr if act else cb
        self.outputs = outputs
        self.primary, self.cheap = make(inputs, half, 1), make(half, half, groups=half)

    def forward(self, x: Tensor) -> Tensor:
        x = self.primary(x)
        return torch.cat([x, self.cheap(x)], 1)[:, : self.outputs]  # as published: for odd numbers


@expect(widths={"stem": 8, "ghost": 6, "last": 8})
class GhostNet(Classifier):
    """A ghost module: a channel and its ghost go together."""

    def layers(self) -> None:
        self.ghost, self.last = Ghost(16, 24), cbr(24, 16)

    def body(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.ghost(x))
        return out


@expect(widths={"stem": 8, "expand": 8, "project": 4, "last": 12})
class GhostBottleneck(Classifier):
    """Two ghost modules and a shortcut, so that the stem's channels j and j + 8 go together."""

    features = 24

    def layers(self) -> None:
        self.expand, self.project, self.last = Ghost(16, 32), Ghost(32, 16, act=False), cbr(16, 24, 1)

    def body(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(x + self.project(self.expand(x)))
        return out
