"""Transposed convolutions: the inputs are the first dim of their weights, a filter is an entry of the second one."""

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.blocks import Classifier, cbr
from zoo.entry import expect


class UpAndDown(Classifier):
    """Maps of twice the size, and back."""

    outputs, groups = 12, 1

    def layers(self) -> None:
        up = nn.ConvTranspose2d(16, self.outputs, 4, 2, 1, groups=self.groups)
        self.up = nn.Sequential(up, nn.BatchNorm2d(self.outputs), nn.ReLU())
        self.down = cbr(self.outputs, 16, 3, 2)

    def body(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(self.up(x))
        return out


@expect(widths={"stem": 8, "up": 6, "down": 8})  # in make test
class Transposed(UpAndDown):
    """A transposed convolution (decoders, DCGAN)."""


@expect(widths={"stem": 8, "up": 8, "down": 8})
class TransposedGrouped(UpAndDown):
    """Four groups: each loses half of its inputs and half of its outputs."""

    outputs, groups = 16, 4


@expect(widths={"stem": 8, "up": 8, "down": 8})
class TransposedDepthwise(UpAndDown):
    """One filter a channel: it goes with the channel that it reads."""

    outputs, groups = 16, 16


@expect(widths={"up": 16, "down": 8})
class TransposedMultiplier(UpAndDown):
    """Two filters a channel, ranked as those of every grouped convolution: each group loses one of them, and none
    its only channel.
    """

    outputs, groups = 32, 16


@expect(widths={"down": 12, "last": 8}, stays={"stem": "read"})
class TransposedTied(Classifier):
    """An autoencoder with one weight for both ways: what is made with its inputs is not 0 where its outputs are."""

    def layers(self) -> None:
        self.down = nn.Sequential(nn.Conv2d(16, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU())
        self.last = cbr(16, 16)

    def body(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(F.relu(F.conv_transpose2d(self.down(x), self.down[0].weight, padding=1)))
        return out


class FromVector(Classifier):
    """A linear layer whose outputs are viewed as 8 maps of 4x4 (generators, decoders of autoencoders)."""

    def layers(self) -> None:
        self.vector = nn.Linear(16, 8 * 4 * 4)
        self.first, self.second = nn.ConvTranspose2d(8, 12, 4, 2, 1), nn.ConvTranspose2d(12, 16, 4, 2, 1)

    def maps(self, x: Tensor) -> Tensor:
        return x.view(len(x), self.first.in_channels, 4, 4)

    def body(self, x: Tensor) -> Tensor:
        x = self.maps(F.relu(self.vector(x.mean((2, 3)))))
        return F.relu(self.second(F.relu(self.first(x))))


@expect(widths={"stem": 8, "vector": 64, "first": 6, "second": 8})
class VectorToMaps(FromVector):
    """The number of maps is read from the layer: a map is 16 outputs of the linear layer."""


@expect(widths={"stem": 8, "vector": 64, "first": 6, "second": 8})
class VectorUnflattened(FromVector):
    """The number of maps follows from the shape."""

    def maps(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (-1, 4, 4))


@expect(widths={"stem": 8, "first": 6, "second": 8}, stays={"vector": "view|reshape"})
class VectorToEightMaps(FromVector):
    """The number of maps is a constant of the network's text."""

    def maps(self, x: Tensor) -> Tensor:
        return x.view(-1, 8, 4, 4)
