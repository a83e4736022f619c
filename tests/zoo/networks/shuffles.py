"""Channels that change places with positions of the map, or with each other."""

import torch
from torch import Tensor, nn

from zoo.blocks import Classifier, cb, cbr, small
from zoo.entry import expect


def shuffled(x: Tensor, groups: int) -> Tensor:
    """The channel shuffle of ShuffleNet, as torchvision has it."""
    images, channels, height, width = x.shape
    x = x.view(images, groups, channels // groups, height, width).transpose(1, 2)
    return x.reshape(images, channels, height, width)


@expect(widths={"stem": 8, "a": 8, "b": 8})  # in make test
class PixelShuffle(Classifier):
    """Sub-pixel convolution (ESPCN): four neighbouring channels are one map of twice the side."""

    def layers(self) -> None:
        self.a, self.shuffle, self.b = cbr(16, 16, 1), nn.PixelShuffle(2), cbr(4, 16)

    def body(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(self.shuffle(self.a(x)))
        return out


@expect(widths={"stem": 8, "a": 4, "b": 8})
class PixelUnshuffle(Classifier):
    """One map becomes four of half the side, which go with it."""

    def layers(self) -> None:
        self.a, self.unshuffle, self.b = cbr(16, 8, 1), nn.PixelUnshuffle(2), cbr(32, 16)

    def body(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(self.unshuffle(self.a(x)))
        return out


@expect(widths={"stem": 8, "a": 12, "depthwise": 12, "b": 8})
class ShuffleByView(Classifier):
    """Two groups are interleaved: their j-th channels are tied, so that each loses half."""

    def layers(self) -> None:
        self.a, self.depthwise, self.b = cbr(16, 24, 1, groups=2), cb(24, 24, groups=24), cbr(24, 16, 1)

    def body(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(self.depthwise(shuffled(self.a(x), 2)))
        return out


@expect(widths={"stem": 8, "a": 8, "b": 8})
class ShuffleByModule(Classifier):
    """Four groups, by nn.ChannelShuffle."""

    def layers(self) -> None:
        self.a, self.shuffle, self.b = cbr(16, 16, 1, groups=4), nn.ChannelShuffle(4), cbr(16, 16, 1)

    def body(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(self.shuffle(self.a(x)))
        return out


@expect(widths={"stem": 8, "a": 8, "depthwise": 8, "b": 8})
class ShuffleNetV1(Classifier):
    """A unit of ShuffleNet (Zhang et al. 2018): two grouped convolutions, a shuffle between them, a shortcut.

    After the shuffle the second convolution's first group reads the channels 0 to 3 of both groups of the first one.
    The filters 2, 3, 6 and 7 of each are the small ones, so that both groups keep as many.
    """

    def layers(self) -> None:
        self.a, self.depthwise, self.b = cbr(16, 16, 1, groups=2), cb(16, 16, groups=16), cb(16, 16, 1, groups=2)
        small(self.a, slice(2, 4), slice(6, 8), slice(10, 12), slice(14, 16))

    def body(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.b(self.depthwise(shuffled(self.a(x), 2))))


@expect(widths={"stem": 8, "a": 12})
class SpaceToDepth(Classifier):
    """The stem of TResNet: 2x2 neighbours become channels by views whose sizes follow from the shape."""

    features = 24

    def layers(self) -> None:
        self.a = cbr(64, 24)

    def body(self, x: Tensor) -> Tensor:
        images, channels, height, width = x.shape
        x = x.view(images, channels, height // 2, 2, width // 2, 2).permute(0, 3, 5, 1, 2, 4)
        out: Tensor = self.a(x.reshape(images, channels * 4, height // 2, width // 2))
        return out


@expect(widths={"stem": 8, "a": 12})
class Focus(Classifier):
    """The stem of YOLOv5: 2x2 neighbours become channels by slices and a concatenation."""

    features = 24

    def layers(self) -> None:
        self.a = cbr(64, 24)

    def body(self, x: Tensor) -> Tensor:
        parts = [x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]]
        out: Tensor = self.a(torch.cat(parts, 1))
        return out
