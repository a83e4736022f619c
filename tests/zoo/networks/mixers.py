"""Networks after the transformer without attention: mixers and modern convolutional networks."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.blocks import Classifier, cb, cbr
from zoo.entry import expect


@expect(
    widths={"stem": 8, "tokens1": 16, "channels1": 24},
    stays={"patches": "norm", "tokens2": ".", "channels2": "norm"},
)  # in make test
class MLPMixer(Classifier):
    """Linear layers over positions and over channels; a filter of `tokens2` is a position of the map, which stays."""

    def layers(self) -> None:
        self.patches, self.norm1, self.norm2 = nn.Conv2d(16, 16, 2, 2), nn.LayerNorm(16), nn.LayerNorm(16)
        self.tokens1, self.tokens2 = nn.Linear(16, 32), nn.Linear(32, 16)
        self.channels1, self.channels2 = nn.Linear(16, 48), nn.Linear(48, 16)

    def body(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.tokens2(F.gelu(self.tokens1(self.norm1(x).transpose(1, 2)))).transpose(1, 2)
        x = x + self.channels2(F.gelu(self.channels1(self.norm2(x))))
        return x.transpose(1, 2)


@expect(widths={"patches": 8, "depthwise": 8, "pointwise": 8, "last": 12, "stem": 8})
class ConvMixer(Classifier):
    """Depthwise convolutions with a shortcut and 1x1 convolutions; each norm stands behind its GELU."""

    features = 24

    def layers(self) -> None:
        self.patches = nn.Sequential(nn.Conv2d(16, 16, 2, 2), nn.GELU(), nn.BatchNorm2d(16))
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, 1, 16), nn.GELU(), nn.BatchNorm2d(16))
        self.pointwise = nn.Sequential(nn.Conv2d(16, 16, 1), nn.GELU(), nn.BatchNorm2d(16))
        self.last = cbr(16, 24, 1)

    def body(self, x: Tensor) -> Tensor:
        x = self.patches(x)
        out: Tensor = self.last(self.pointwise(x + self.depthwise(x)))
        return out


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, LayerNorm, two linear layers, and a scale for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(16, 16, 7, 1, 3, 1, 16), nn.LayerNorm(16)
        self.one, self.two = nn.Linear(16, 64), nn.Linear(64, 16)
        self.scale = nn.Parameter(torch.full((16,), 1e-1))

    def hidden(self, x: Tensor) -> Tensor:
        return F.gelu(self.one(x))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.two(self.hidden(y)) * self.scale).permute(0, 3, 1, 2)


KEPT = {"patches": "norm", "block.depthwise": "norm", "block.two": "norm"}


@expect(widths={"stem": 8, "block.one": 32}, stays=KEPT)
class ConvNeXt(Classifier):
    """The hidden units thin, and what comes before the first norm."""

    block_class: type[ConvNeXtBlock] = ConvNeXtBlock

    def layers(self) -> None:
        self.patches, self.block, self.norm = nn.Conv2d(16, 16, 2, 2), self.block_class(), nn.LayerNorm(16)

    def body(self, x: Tensor) -> Tensor:
        return self.norm(self.block(self.patches(x)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ResponseNormed(ConvNeXtBlock):
    """With a global response norm over the hidden units: each is divided by the mean of all."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma, self.beta = (nn.Parameter(torch.zeros(1, 1, 1, 64)) for _ in range(2))

    def hidden(self, x: Tensor) -> Tensor:
        x = super().hidden(x)
        energy = x.norm(p=2, dim=(1, 2), keepdim=True)
        return self.gamma * (x * (energy / (energy.mean(-1, keepdim=True) + 1e-6))) + self.beta + x


@expect(widths={"stem": 8}, stays={**KEPT, "block.one": "mean"})
class ConvNeXtV2(ConvNeXt):
    """Here the hidden units meet, too."""

    block_class = ResponseNormed


@expect(widths={"stem": 8, "depthwise": 8, "one": 32, "two": 8, "scale": (8, 1, 1), "last": 12})
class ConvNeXtWithBatchNorm(Classifier):
    """The same block with a batch norm thins wholly, with its scale (a bare parameter)."""

    features = 24

    def layers(self) -> None:
        self.depthwise, self.one, self.two = cb(16, 16, 7, groups=16), nn.Conv2d(16, 64, 1), nn.Conv2d(64, 16, 1)
        self.scale, self.last = nn.Parameter(torch.full((16, 1, 1), 1e-1)), cbr(16, 24)

    def body(self, x: Tensor) -> Tensor:
        x = x + self.scale * self.two(F.gelu(self.one(self.depthwise(x))))
        out: Tensor = self.last(x)
        return out


@expect(widths={"stem": 8, "depthwise": 8, "f1": 12, "f2": 12, "g": 8, "last": 12})
class StarNet(Classifier):
    """Ma et al. 2024: the product of two 1x1 convolutions between depthwise ones."""

    features = 24

    def layers(self) -> None:
        self.depthwise, self.f1, self.f2 = cb(16, 16, 7, groups=16), nn.Conv2d(16, 24, 1), nn.Conv2d(16, 24, 1)
        self.g, self.last = cb(24, 16, 1), cbr(16, 24)

    def body(self, x: Tensor) -> Tensor:
        y = self.depthwise(x)
        out: Tensor = self.last(x + self.g(F.relu6(self.f1(y)) * self.f2(y)))
        return out
