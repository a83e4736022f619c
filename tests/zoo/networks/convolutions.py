"""Convolutions of all dimensions, groups, strides and paddings."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.blocks import Classifier, cb, cbr
from zoo.entry import expect


@expect(widths={"stem": 8, "a": 12, "b": 8})
class OneDimensional(Classifier):
    """Convolutions over the positions in a row."""

    def layers(self) -> None:
        self.a = nn.Sequential(nn.Conv1d(16, 24, 3, padding=1), nn.BatchNorm1d(24), nn.ReLU())
        self.b = nn.Sequential(nn.Conv1d(24, 16, 3, 2, dilation=2), nn.BatchNorm1d(16), nn.ReLU())

    def body(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(self.a(x.flatten(2)))
        return out


@expect(widths={"stem": 8, "a": 6, "b": 8})
class ThreeDimensional(Classifier):
    """Two frames, which a convolution joins."""

    def layers(self) -> None:
        self.a = nn.Sequential(nn.Conv3d(16, 12, (2, 3, 3), padding=(0, 1, 1)), nn.BatchNorm3d(12), nn.ReLU())
        self.b = cbr(12, 16)

    def body(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(self.a(torch.stack([x, x.flip(-1)], 2)).squeeze(2))
        return out


@expect(widths={"volume": 4, "a": 8})  # in make test
class Spectral(nn.Module):
    """HybridSN (hyperspectral images): the image's channels are a depth, which then becomes channels."""

    def __init__(self) -> None:
        super().__init__()
        self.volume = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU())
        self.a, self.head = cbr(24, 16, 3, 2), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.a(self.volume(x[:, None]).flatten(1, 2)).mean((2, 3)))
        return out


@expect(widths={"stem": 8, "wide": 12, "tall": 12, "b": 8})
class Atrous(Classifier):
    """1x3 and 3x1 kernels, dilation, padding by reflection and around the border."""

    def layers(self) -> None:
        self.wide = nn.Conv2d(16, 24, (1, 3), padding=(0, 2), dilation=(1, 2), padding_mode="reflect")
        self.tall = nn.Conv2d(24, 24, (3, 1), (2, 1), padding=(1, 0), padding_mode="circular")
        self.b = nn.Conv2d(24, 16, 3, padding="same", bias=False)

    def body(self, x: Tensor) -> Tensor:
        return F.relu(self.b(F.relu(self.tall(F.relu(self.wide(x))))))


@expect(widths={"stem": 8, "a": 16, "grouped": 16, "b": 8})
class Grouped(Classifier):
    """Four groups: each loses half of what it reads and half of what it gives."""

    def layers(self) -> None:
        self.a, self.grouped, self.b = cbr(16, 32, 1), cbr(32, 32, groups=4), cb(32, 16, 1)

    def body(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.b(self.grouped(self.a(x))))


@expect(widths={"stem": 8, "left": 4, "right": 4, "grouped": 8})
class GroupedBranches(Classifier):
    """Two branches side by side, and a convolution with a group for each."""

    def layers(self) -> None:
        self.left, self.right, self.grouped = cbr(16, 8), cbr(16, 8, 1), cbr(16, 16, groups=2)

    def body(self, x: Tensor) -> Tensor:
        out: Tensor = self.grouped(torch.cat([self.left(x), self.right(x)], 1))
        return out


@expect(widths={"several": 16, "b": 8})
class DepthwiseMultiplier(Classifier):
    """Two filters for each channel (`depth_multiplier` in Keras), ranked as those of every grouped convolution: each
    group loses as many of its filters, and none its only channel.
    """

    def layers(self) -> None:
        self.several, self.b = cbr(16, 32, groups=16), cbr(32, 16, 1)

    def body(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(self.several(x))
        return out
