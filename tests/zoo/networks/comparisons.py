"""Activations that compare, index or clamp: all but the last are 0 where their channel is 0."""

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.blocks import Classifier, cb
from zoo.entry import expect


class Activated(Classifier):
    """Two convolutions, each with batch norm and the activation."""

    def layers(self) -> None:
        self.a, self.b = cb(16, 24), cb(24, 16)

    def act(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def body(self, x: Tensor) -> Tensor:
        return self.act(self.b(self.act(self.a(x))))


ALL = {"stem": 8, "a": 12, "b": 8}


@expect(widths=ALL)
class Where(Activated):
    """A leaky ReLU by torch.where."""

    def act(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, 0.1 * x)


@expect(widths=ALL)
class TimesMask(Activated):
    """A ReLU as x times whether it is positive."""

    def act(self, x: Tensor) -> Tensor:
        return x * (x > 0)


@expect(widths=ALL)
class TimesFloatMask(Activated):
    """The same with the comparison as a number."""

    def act(self, x: Tensor) -> Tensor:
        return x.ge(0.0).type_as(x) * x


@expect(widths=ALL)
class MaskedFill(Activated):
    """A ReLU by masked_fill."""

    def act(self, x: Tensor) -> Tensor:
        return x.masked_fill(x < 0, 0.0)


@expect(widths=ALL)
class Clamp(Activated):
    """A ReLU6 by clamp."""

    def act(self, x: Tensor) -> Tensor:
        return x.clamp(0, 6)


@expect(widths=ALL)
class Maximum(Activated):
    """A ReLU by the maximum with a tensor of one zero."""

    def act(self, x: Tensor) -> Tensor:
        return torch.maximum(x, torch.zeros((), dtype=x.dtype, device=x.device))


@expect(widths=ALL)
class MaxWithZeros(Activated):
    """A ReLU by the maximum with a map of zeros."""

    def act(self, x: Tensor) -> Tensor:
        return torch.max(x, torch.zeros_like(x))


@expect(widths=ALL)
class Threshold(Activated):
    """Small values become 0."""

    def act(self, x: Tensor) -> Tensor:
        return F.threshold(x, 0.1, 0.0)


@expect(widths=ALL)
class Sign(Activated):
    """The logarithm of the magnitude, with the sign."""

    def act(self, x: Tensor) -> Tensor:
        return x.sign() * x.abs().log1p()


@expect(widths=ALL)
class BooleanIndex(Activated):
    """A ReLU that sets negative values of a copy to 0 in place."""

    def act(self, x: Tensor) -> Tensor:
        x = x.clone()
        x[x < 0] = 0
        return x


@expect(widths=ALL)
class HardSwish(Activated):
    """MobileNetV3's activation by its definition: x * ReLU6(x + 3) / 6."""

    def act(self, x: Tensor) -> Tensor:
        return x * F.relu6(x + 3) / 6


@expect(widths=ALL)
class SoftShrink(Activated):
    """Soft shrinkage by torch.where and the sign."""

    def act(self, x: Tensor) -> Tensor:
        return torch.where(x.abs() > 0.3, x - 0.3 * x.sign(), torch.zeros_like(x))


@expect(widths=ALL)
class ThresholdedByMean(Activated):
    """Values below the mean of their own map become 0."""

    def act(self, x: Tensor) -> Tensor:
        return torch.where(x > x.mean((2, 3), keepdim=True), x, torch.zeros_like(x))


@expect(widths={"stem": 8, "b": 8}, stays={"a": "constant"}, trained={"b": 16})
class WhereElseMinusOne(Activated):
    """A channel of zeros becomes -1: `head` can absorb that in its bias, a padded convolution cannot."""

    def act(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, torch.full_like(x, -1.0))
