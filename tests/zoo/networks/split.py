"""Networks that split their channels into parts and treat each in its own way.

Where the size of a part follows from the shape, the j-th channels of all parts go together.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.blocks import Classifier, cb, cbr, small
from zoo.entry import expect
from zoo.networks.shuffles import shuffled


class Unit(nn.Module):
    """ShuffleNet v2: one half goes through three convolutions, then both are interleaved."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(cbr(16, 16, 1), cb(16, 16, groups=16), cbr(16, 16, 1))

    def forward(self, x: Tensor) -> Tensor:
        kept, worked = x.chunk(2, 1)
        return shuffled(torch.cat([kept, self.branch(worked)], 1), 2)


class ShuffleNetV2(Classifier):
    """A unit of half the side, which doubles the channels, and some that keep the shape (Ma et al. 2018)."""

    features, number = 24, 1

    def layers(self) -> None:
        self.left = nn.Sequential(cb(16, 16, 3, 2, 16), cbr(16, 16, 1))
        self.right = nn.Sequential(cbr(16, 16, 1), cb(16, 16, 3, 2, 16), cbr(16, 16, 1))
        self.units = nn.Sequential(*(Unit() for _ in range(self.number)))
        self.last = cbr(32, 24, 1)

    def body(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.units(shuffled(torch.cat([self.left(x), self.right(x)], 1), 2)))
        return out


SHUFFLED = {"stem": 8, "left": 8, "right": 8, "units": 8, "last": 12}


@expect(widths=SHUFFLED)  # in make test
class ShuffleNetV2OfOneUnit(ShuffleNetV2):
    """The 32 channels are 8 sets: the shuffle ties the halves' j-th channels, the split those with j and j + 8."""


@expect(widths=SHUFFLED)
class ShuffleNetV2OfTwoUnits(ShuffleNetV2):
    """Each unit ties twice as many: 4 sets."""

    number = 2


@expect(
    widths={
        "stem": 8,
        "left.0": 8,
        "right.0": 8,
        "right.1": 8,
        "last": 12,
        **{f"units.{unit}.branch.{layer}": 8 for unit in range(4) for layer in range(2)},
    }
)
class ShuffleNetV2OfFourUnits(ShuffleNetV2):
    """All channels are one set, so that the stage keeps its width; the inner layers of its units thin."""

    number = 4


class SplitAttention(nn.Module):
    """ResNeSt (Zhang et al. 2022): two parts from a grouped convolution, weighed by a softmax over them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.squeeze, self.excite = cbr(16, 32, groups=2), cbr(16, 8, 1), nn.Conv2d(8, 32, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        images, channels = x.shape[:2]
        parts = torch.split(x, channels // 2, 1)
        weights = self.excite(self.squeeze(F.adaptive_avg_pool2d(sum(parts), 1)))
        weights = torch.softmax(weights.view(images, 1, 2, -1).transpose(1, 2), 1).reshape(images, -1, 1, 1)
        return sum(
            (weight * part for weight, part in zip(torch.split(weights, channels // 2, 1), parts, strict=True)),
            torch.zeros_like(parts[0]),
        )


@expect(
    widths={
        "stem": 8,
        "reduce": 8,
        "attend.conv": 16,
        "attend.squeeze": 4,
        "attend.excite": 16,
        "expand": 8,
    }
)
class ResNeSt(Classifier):
    """A bottleneck with split attention."""

    def layers(self) -> None:
        self.reduce, self.attend, self.expand = cbr(16, 16, 1), SplitAttention(), cb(16, 16, 1)

    def body(self, x: Tensor) -> Tensor:
        return F.relu(x + self.expand(self.attend(self.reduce(x))))


@expect(
    widths={"stem": 8, "into": 14, "layers_of_parts.2": 2, "out": 8},
    stays={"into": "split", "layers_of_parts.0": "split", "layers_of_parts.1": "split"},
)
class Res2NetOfTimm(Classifier):
    """Four parts whose size is an attribute of the network; the last one passes, and may be smaller.

    What the first two convolutions give is added to a part. Half of every part is small, and pruned first.
    """

    width = 4

    def layers(self) -> None:
        self.into, self.out = cbr(16, 16, 1), cb(16, 16, 1)
        self.layers_of_parts = nn.ModuleList(cbr(4, 4) for _ in range(3))
        small(self.into, slice(0, 2), slice(4, 6), slice(8, 10), slice(12, 14))
        for layer in self.layers_of_parts:
            small(layer, slice(0, 2))

    def body(self, x: Tensor) -> Tensor:
        *parts, last = torch.split(self.into(x), self.width, 1)
        done: list[Tensor] = []
        for part, layer in zip(parts, self.layers_of_parts, strict=True):
            done.append(layer(part + done[-1] if done else part))
        return F.relu(x + self.out(torch.cat([*done, last], 1)))


class ChannelNorm(nn.Module):
    """A LayerNorm over the channels of maps."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return out


@expect(
    widths={"one": 16, "depthwise": 16, "attend": 8, "three": 16},
    stays={"stem": "norm", "two": "norm", "four": "norm"},
)
class NAFNet(Classifier):
    """Simple gates (Chen et al. 2022): one half times the other, twice; all else meets a LayerNorm."""

    def layers(self) -> None:
        self.norm1, self.norm2 = ChannelNorm(16), ChannelNorm(16)
        self.one, self.depthwise, self.two = (
            nn.Conv2d(16, 32, 1),
            nn.Conv2d(32, 32, 3, 1, 1, 1, 32),
            nn.Conv2d(16, 16, 1),
        )
        self.attend, self.three, self.four = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 32, 1), nn.Conv2d(16, 16, 1)
        self.beta, self.gamma = (nn.Parameter(torch.zeros(1, 16, 1, 1)) for _ in range(2))

    def gate(self, x: Tensor) -> Tensor:
        one, two = x.chunk(2, 1)
        return one * two

    def body(self, x: Tensor) -> Tensor:
        y = self.gate(self.depthwise(self.one(self.norm1(x))))
        x = x + self.two(y * self.attend(F.adaptive_avg_pool2d(y, 1))) * self.beta
        return x + self.four(self.gate(self.three(self.norm2(x)))) * self.gamma
