"""Operations between layers: what is 0 where a channel is 0 lets it go, also in a product or a maximum."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.blocks import Classifier, cbr
from zoo.entry import expect


class Between(Classifier):
    """A convolution with a bias, the operation, another convolution."""

    outputs = read = 24

    def layers(self) -> None:
        self.a, self.b = nn.Conv2d(16, self.outputs, 3, padding=1), cbr(self.read, 16)

    def between(self, x: Tensor) -> Tensor:
        return x

    def body(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(self.between(self.a(x)))
        return out


THINS, STAYS = {"stem": 8, "a": 12, "b": 8}, {"stem": 8, "b": 8}


@expect(widths=STAYS, stays={"a": "sigmoid"})  # in make test
class Sigmoid(Between):
    """It is 1/2 at 0, and padding makes that differ at the border."""

    def between(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)


@expect(widths=THINS, trained={"a": 24})
class SigmoidAbsorbed(Between):
    """Before a convolution with a bias and without padding: 1/2 moves into the bias after training."""

    def layers(self) -> None:
        super().layers()
        self.b = nn.Conv2d(24, 16, 1)

    def between(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)


@expect(widths=STAYS, stays={"a": "softplus"})
class Softplus(Between):
    """log 2 at 0."""

    def between(self, x: Tensor) -> Tensor:
        return F.softplus(x)


@expect(widths=STAYS, stays={"a": "add"})
class PlusOne(Between):
    """A constant that is added."""

    def between(self, x: Tensor) -> Tensor:
        return F.relu(x) + 1


@expect(widths=THINS)
class ShiftedSigmoid(Between):
    """2 sigmoid(x) - 1 is 0 at 0."""

    def between(self, x: Tensor) -> Tensor:
        return 2 * torch.sigmoid(x) - 1


@expect(widths=THINS)
class ZeroAtZero(Between):
    """A sum of activations that are 0 at 0."""

    def between(self, x: Tensor) -> Tensor:
        acts = (F.gelu, F.silu, F.elu, F.selu, F.hardswish, F.mish, F.softshrink, F.hardtanh, torch.tanh, F.softsign)
        return sum((act(x) for act in acts), torch.zeros_like(x))


@expect(widths=STAYS, stays={"a": "response"})
class LocalResponse(Between):
    """AlexNet's norm over five neighbouring channels: a removed one would let others become neighbours."""

    def layers(self) -> None:
        super().layers()
        self.response = nn.LocalResponseNorm(5)

    def between(self, x: Tensor) -> Tensor:
        out: Tensor = self.response(F.relu(x))
        return out


@expect(widths=THINS)
class SoftmaxOverPositions(Between):
    """Each map weighed by its own softmax: 0 times a constant."""

    def between(self, x: Tensor) -> Tensor:
        return x * torch.softmax(x.flatten(2), 2).view_as(x)


@expect(widths=THINS)
class ConcatenatedReLU(Between):
    """CReLU (Shang et al. 2016): x and -x."""

    read = 48

    def between(self, x: Tensor) -> Tensor:
        return F.relu(torch.cat([x, -x], 1))


class Parametric(Between):
    """A PReLU between."""

    def layers(self) -> None:
        super().layers()
        self.act = self.make()

    def make(self) -> nn.Module:
        return nn.PReLU()

    def between(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(x)
        return out


@expect(widths=THINS)
class PReLUOfAll(Parametric):
    """One slope."""


@expect(widths={**THINS, "act": 12})
class PReLUOfEach(Parametric):
    """A slope for each channel."""

    def make(self) -> nn.Module:
        return nn.PReLU(24)


@expect(widths={"stem": 8, "a": 8, "act": 8, "b": 8})
class PReLUShared(Parametric):
    """The same slopes in two places: both lose the same channels."""

    outputs = read = 16

    def make(self) -> nn.Module:
        return nn.PReLU(16)

    def body(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.b(self.act(self.a(x))))
        return out


@expect(widths=THINS)
class SquaredReLU(Between):
    """The activation of Primer."""

    def between(self, x: Tensor) -> Tensor:
        return F.relu(x).square()


@expect(widths={"stem": 8, "a": 4, "b": 8})
class ChannelAttention(Between):
    """Products of all pairs of channels weigh the channels (XCiT, DANet without its softmax): 0 for one that is 0."""

    outputs, read = 8, 8

    def between(self, x: Tensor) -> Tensor:
        flat = F.relu(x).flatten(2)
        return ((flat @ flat.transpose(1, 2) / flat.shape[-1]) @ flat).view_as(x)


@expect(widths={"stem": 8}, stays={"a": "bmm"})
class BilinearFeatures(Classifier):
    """B-CNN as published: the head reads all pairs of 8 channels."""

    features = 64

    def layers(self) -> None:
        self.a = nn.Conv2d(16, 8, 3, padding=1)

    def body(self, x: Tensor) -> Tensor:
        flat = F.relu(self.a(x)).flatten(2)
        return (flat @ flat.transpose(1, 2) / flat.shape[-1]).flatten(1)[..., None]


@expect(widths={"stem": 8, "left": 12, "right": 12})
class BilinearByProduct(Classifier):
    """Low-rank bilinear pooling (Kim et al. 2017): the product of two projections couples their channels."""

    features = 24

    def layers(self) -> None:
        self.left, self.right = nn.Conv2d(16, 24, 1), nn.Conv2d(16, 24, 1)

    def body(self, x: Tensor) -> Tensor:
        return torch.tanh(self.left(x)) * torch.tanh(self.right(x))


@expect(widths={"stem": 8, "a": 12, "b": 8})
class Casts(Between):
    """A norm in double precision, as some write it, and back."""

    def between(self, x: Tensor) -> Tensor:
        return F.instance_norm(x.double()).to(x.dtype)
