"""Parameters and buffers over channels that belong to no layer."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from zoo.blocks import Classifier, cb, cbr
from zoo.entry import expect


class Scaled(Classifier):
    """A residual block, scaled by a parameter (LayerScale)."""

    shape: tuple[int, ...] = (16, 1, 1)

    def layers(self) -> None:
        self.a, self.b = cbr(16, 24), cb(24, 16)
        self.gamma = nn.Parameter(torch.full(self.shape, 0.5))

    def scale(self) -> Tensor:
        return self.gamma

    def body(self, x: Tensor) -> Tensor:
        return x + self.scale() * self.b(self.a(x))


@expect(widths={"stem": 8, "a": 12, "b": 8, "gamma": (8, 1, 1)})
class LayerScale(Scaled):
    """Of C x 1 x 1."""


@expect(widths={"stem": 8, "a": 12, "b": 8, "gamma": (1, 8, 1, 1)})
class LayerScale4d(Scaled):
    """Of 1 x C x 1 x 1."""

    shape = (1, 16, 1, 1)


@expect(widths={"stem": 8, "a": 12, "b": 8, "gamma": (8,)})
class LayerScaleVector(Scaled):
    """Of C, with dims added in the forward pass."""

    shape = (16,)

    def scale(self) -> Tensor:
        return self.gamma.view(1, -1, 1, 1)


@expect(widths={"a": 12}, stays={"stem": "view", "b": "view"})
class LayerScaleHardCoded(Scaled):
    """Of C, with a hard-coded view."""

    shape = (16,)

    def scale(self) -> Tensor:
        return self.gamma.view(1, 16, 1, 1)


@expect(widths={"stem": 8, "a": 12, "b": 8})
class SkipScale(Scaled):
    """One number for all channels (ReZero)."""

    shape = (1,)


class Before(Classifier):
    """Something is done with the stem's map before the next convolution."""

    def layers(self) -> None:
        self.b = cbr(16, 16)
        self.more()

    def more(self) -> None:
        raise NotImplementedError

    def change(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def body(self, x: Tensor) -> Tensor:
        return self.b(self.change(x))


@expect(widths={"b": 8}, stays={"stem": "table"})
class AddedTable(Before):
    """A position table is not 0 where the stem's channel is."""

    def more(self) -> None:
        self.table = nn.Parameter(torch.randn(1, 16, 8, 8))

    def change(self, x: Tensor) -> Tensor:
        return x + self.table


@expect(widths={"stem": 8, "b": 8, "table": (8, 8, 8)})
class MultipliedTable(Before):
    """A table of factors."""

    def more(self) -> None:
        self.table = nn.Parameter(torch.randn(16, 8, 8))

    def change(self, x: Tensor) -> Tensor:
        return x * self.table


@expect(widths={"b": 8}, stays={"stem": "table"})
class AddedBuffer(Before):
    """Sines of the position, as a buffer."""

    def more(self) -> None:
        places = torch.arange(64.0).view(1, 8, 8)
        self.register_buffer("table", torch.sin(places / torch.arange(1.0, 17.0).view(16, 1, 1)), persistent=False)

    def change(self, x: Tensor) -> Tensor:
        return x + self.table


@expect(widths={"stem": 8, "b": 8, "scale": (1, 8, 1, 1)})
class BufferOfFactors(Before):
    """Fixed factors by channel."""

    def more(self) -> None:
        self.register_buffer("scale", torch.rand(1, 16, 1, 1) + 0.5)

    def change(self, x: Tensor) -> Tensor:
        return x * self.scale


@expect(widths={"stem": 8, "b": 8, "kernel": (8, 1, 3, 3)})
class BlurPool(Before):
    """A fixed depthwise filter for as many channels as there are."""

    def more(self) -> None:
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("kernel", (row[:, None] * row)[None, None].repeat(16, 1, 1, 1))

    def change(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), self.kernel, stride=2, groups=x.shape[1])


@expect(widths={"b": 8}, stays={"stem": "conv"})
class BlurPoolHardCoded(BlurPool):
    """The same for 16 channels."""

    def change(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), self.kernel, stride=2, groups=16)


@expect(widths={"stem": 8, "b": 8, "slope": (8,)})
class BareSlopes(Before):
    """F.prelu with a parameter of the network."""

    def more(self) -> None:
        self.slope = nn.Parameter(torch.rand(16))

    def change(self, x: Tensor) -> Tensor:
        return F.prelu(x - 1 * x.mean((2, 3), keepdim=True), self.slope)


@expect(widths={"stem": 8, "b": 8})
class NormalizedInput(Before):
    """The mean and deviation of the image's channels, which stay."""

    def more(self) -> None:
        self.register_buffer("mean", torch.rand(1, 3, 1, 1))
        self.register_buffer("std", torch.rand(1, 3, 1, 1) + 0.5)

    def change(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x - self.mean) / self.std)


@expect(widths={"stem": 8, "b": 8, "w": (16, 8, 3, 3)})
class FunctionalConvolution(Before):
    """F.conv2d with a parameter of the network: its inputs go with the stem's channels."""

    def more(self) -> None:
        self.w = nn.Parameter(torch.randn(16, 16, 3, 3) / 12)

    def change(self, x: Tensor) -> Tensor:
        return F.relu(F.conv2d(x, self.w, padding=1))


@expect(widths={"stem": 8, "b": 8, "w": (16, 8)})
class EinsumWeight(Before):
    """A 1x1 convolution by einsum."""

    def more(self) -> None:
        self.w = nn.Parameter(torch.randn(16, 16) / 4)

    def change(self, x: Tensor) -> Tensor:
        return F.relu(torch.einsum("nchw,oc->nohw", x, self.w))


@expect(widths={"stem": 8, "b": 8, "w": (8, 24), "v": (24, 16)})
class MatmulWeight(Before):
    """An MLP of bare matrices by @."""

    def more(self) -> None:
        self.w, self.v = nn.Parameter(torch.randn(16, 24) / 4), nn.Parameter(torch.randn(24, 16) / 5)

    def change(self, x: Tensor) -> Tensor:
        tokens = F.relu(x.flatten(2).transpose(1, 2) @ self.w) @ self.v
        return tokens.transpose(1, 2).unflatten(2, x.shape[2:])


NORM = ("n.weight", "n.bias", "n.running_mean", "n.running_var")


@expect(
    widths={"stem": 8, "a": 12, "b": 8, **dict.fromkeys(NORM, (12,))},
    trained={"a": 24, **dict.fromkeys(NORM, (24,))},
)
class FrozenNorm(Classifier):
    """A batch norm of buffers: it makes a constant of a channel of zeros, which the norm behind `b` can absorb."""

    def layers(self) -> None:
        self.a, self.n, self.b = nn.Conv2d(16, 24, 3, padding=1), FrozenBatchNorm2d(24), cbr(24, 16, 1)
        self.n.weight.uniform_(0.5, 1.5)
        self.n.bias.uniform_(0.1, 0.5)
        self.n.running_mean.uniform_(-0.5, 0.0)

    def body(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.n(self.a(x))))


@expect(widths={"stem": 8, "a": 12, "b": 8, "gamma": (8, 1, 1)})
class LayerScaleAddcmul(Scaled):
    """LayerScale by torch.addcmul."""

    def body(self, x: Tensor) -> Tensor:
        return torch.addcmul(x, self.gamma, self.b(self.a(x)))
