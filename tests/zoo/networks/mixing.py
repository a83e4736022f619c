"""Operations over the channels: some need all of them, some do not notice a channel of zeros."""

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.blocks import Classifier, cbr
from zoo.entry import expect


class Between(Classifier):
    """Two convolutions, and the operation between them."""

    def layers(self) -> None:
        self.a, self.b = cbr(16, 24), cbr(24, 16)

    def mix(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def body(self, x: Tensor) -> Tensor:
        return self.b(self.mix(self.a(x)))


@expect(widths={"stem": 8, "b": 8}, stays={"a": "softmax"})
class Softmax(Between):
    """exp(0) is 1: a channel of zeros has its share."""

    def mix(self, x: Tensor) -> Tensor:
        return x.softmax(1)


@expect(widths={"stem": 8, "b": 8}, stays={"a": "cumsum"})
class CumulativeSum(Between):
    """Each channel has the sum of all before it."""

    def mix(self, x: Tensor) -> Tensor:
        return x.cumsum(1)


@expect(widths={"stem": 8, "b": 8}, stays={"a": "sort"})
class Sorted(Between):
    """The place of a channel depends on the others."""

    def mix(self, x: Tensor) -> Tensor:
        return x.sort(1).values


@expect(widths={"stem": 8, "b": 8}, stays={"a": "mean"})
class MinusMean(Between):
    """The mean of fewer channels is another one."""

    def mix(self, x: Tensor) -> Tensor:
        return x - x.mean(1, keepdim=True)


@expect(widths={"stem": 8, "a": 12, "b": 8})
class GatedBySum(Between):
    """A sum does not notice that a channel of zeros is gone."""

    def mix(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x.sum(1, keepdim=True))


@expect(widths={"stem": 8, "b": 8}, stays={"a": "mul"})
class ScaledByItsWidth(Between):
    """A factor that is made of the number of channels changes with it."""

    def mix(self, x: Tensor) -> Tensor:
        return x * x.shape[1] ** -0.5


@expect(widths={"stem": 8, "b": 8}, stays={"a": "sum|div"})
class GatedBySumOverWidth(Between):
    """A mean by hand: the sum may lose a channel of zeros, the number by which it is divided may not change."""

    def mix(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x.sum(1, keepdim=True) / x.shape[1])


@expect(widths={"stem": 8, "a": 12, "b": 8})
class L2Normalized(Between):
    """Nor does a sum of squares."""

    def mix(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1)


@expect(widths={"stem": 8, "a": 12, "b": 8})
class SquaredDistance(Between):
    """A weight that depends on the inner product of two places: channels are summed over."""

    def mix(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        return (flat @ (flat.transpose(1, 2) @ flat)).unflatten(2, x.shape[2:]) / 64
