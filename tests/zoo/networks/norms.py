"""Norms other than batch norms with affine parameters.

Those that take means over several channels count a masked one, too: such channels stay, or go with all that share their
mean. Those that look at each channel alone give 0 where their gamma and beta are 0.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from zoo.blocks import Classifier, cbr
from zoo.entry import expect


class Normed(Classifier):
    """A convolution, the norm of its 32 maps, SiLU, another convolution."""

    def layers(self) -> None:
        self.a, self.norm, self.b = nn.Conv2d(16, 32, 3, padding=1), self.make(), cbr(32, 16)

    def make(self) -> nn.Module:
        """Return the norm."""
        return nn.Identity()

    def normed(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x)
        return out

    def body(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(F.silu(self.normed(self.a(x))))
        return out


EVERY = {"stem": 8, "a": 16, "norm": 16, "b": 8}
OTHERS = {"stem": 8, "b": 8}


@expect(widths=EVERY)  # in make test
class GroupNormOfFour(Normed):
    """Four groups of 8 channels: two whole groups go."""

    def make(self) -> nn.Module:
        return nn.GroupNorm(4, 32)


@expect(widths=EVERY)
class GroupNormOfEight(Normed):
    """Eight groups of 4 channels."""

    def make(self) -> nn.Module:
        return nn.GroupNorm(8, 32)


@expect(widths=EVERY)
class GroupNormOfEach(Normed):
    """A group for each channel (that of an InstanceNorm)."""

    def make(self) -> nn.Module:
        return nn.GroupNorm(32, 32)


@expect(widths=OTHERS, stays={"a": "norm"})
class GroupNormOfOne(Normed):
    """One group: all channels share a mean."""

    def make(self) -> nn.Module:
        return nn.GroupNorm(1, 32)


@expect(widths=OTHERS, stays={"a": "group_norm"})
class GroupNormByFunction(Normed):
    """Always four groups, a constant of the network's text: they would be of other channels."""

    def normed(self, x: Tensor) -> Tensor:
        return F.group_norm(x, 4)


@expect(widths=EVERY)  # in make test
class InstanceNorm(Normed):
    """The mean of one map alone."""

    def make(self) -> nn.Module:
        return nn.InstanceNorm2d(32, affine=True)


@expect(widths=EVERY)
class InstanceNormWithoutAffine(Normed):
    """A map of zeros has the mean 0."""

    def make(self) -> nn.Module:
        return nn.InstanceNorm2d(32)


@expect(widths=EVERY)
class InstanceNormWithStatistics(Normed):
    """It uses running means in evaluation mode, as a batch norm."""

    def make(self) -> nn.Module:
        return nn.InstanceNorm2d(32, affine=True, track_running_stats=True)


@expect(widths=OTHERS, stays={"a": "norm"})
class LayerNormOfMaps(Normed):
    """Over channels and positions."""

    def make(self) -> nn.Module:
        return nn.LayerNorm([32, 8, 8])


class ChannelsLast(Normed):
    """Over the channels of each position."""

    def normed(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return out


@expect(widths=OTHERS, stays={"a": "norm"})
class LayerNormChannelsLast(ChannelsLast):
    """The norm of ConvNeXt and Swin."""

    def make(self) -> nn.Module:
        return nn.LayerNorm(32)


@expect(widths=OTHERS, stays={"a": "norm"})
class LayerNormWithoutAffine(ChannelsLast):
    """A mean over all channels, without parameters."""

    def make(self) -> nn.Module:
        return nn.LayerNorm(32, elementwise_affine=False)


@expect(widths={"stem": 8, "a": 16, "b": 8})
class LayerNormOfPositions(Normed):
    """Over the positions of each map: no channel meets another one."""

    def make(self) -> nn.Module:
        return nn.LayerNorm([8, 8], elementwise_affine=False)


@expect(widths=OTHERS, stays={"a": "norm"})
class LayerNormOfPositionsWithBias(Normed):
    """The same with a bias for each position, which all channels share: none of them is 0 behind it."""

    def make(self) -> nn.Module:
        return nn.LayerNorm([8, 8])


@expect(widths=OTHERS, stays={"a": "norm"})
class RMSNorm(ChannelsLast):
    """A mean of squares counts the channels that are 0."""

    def make(self) -> nn.Module:
        return nn.RMSNorm(32)


@expect(widths=OTHERS, stays={"a": "mean"})
class RMSNormByHand(Normed):
    """The same as many write it, with a bare gamma."""

    def make(self) -> nn.Module:
        return nn.ParameterList([torch.ones(32, 1, 1)])

    def normed(self, x: Tensor) -> Tensor:
        out: Tensor = x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6) * self.norm[0]
        return out


@expect(widths=OTHERS, stays={"a": "mean"})
class LayerNormByHand(Normed):
    """Channels first, as in the ConvNeXt of its authors."""

    def make(self) -> nn.Module:
        return nn.ParameterList([torch.ones(32, 1, 1), torch.zeros(32, 1, 1)])

    def normed(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).square().mean(1, keepdim=True)
        out: Tensor = (x - mean) / torch.sqrt(variance + 1e-6) * self.norm[0] + self.norm[1]
        return out


@expect(widths=OTHERS, stays={"a": "norm"})
class BatchNormWithoutAffine(Normed):
    """Without a beta that could be 0, a channel of zeros is a constant; padding makes it differ at the border."""

    def make(self) -> nn.Module:
        return nn.BatchNorm2d(32, affine=False)


class Absorbing(Normed):
    """The second convolution has a bias and no padding: a constant input can be moved into the bias."""

    def layers(self) -> None:
        super().layers()
        self.b = nn.Conv2d(32, 16, 1)


@expect(widths=EVERY, trained={"a": 32, "norm": 32})
class BatchNormWithoutAffineAbsorbed(Absorbing):
    """Removed after training; in mid-training the constant still changes."""

    def make(self) -> nn.Module:
        return nn.BatchNorm2d(32, affine=False)


FROZEN = {f"norm.{name}": (16,) for name in ("weight", "bias", "running_mean", "running_var")}


@expect(widths={"stem": 8, "a": 16, "b": 8, **FROZEN})
class FrozenBatchNorm(Normed):
    """torchvision's frozen batch norm: four buffers; it is new, so that it gives 0 for 0."""

    def make(self) -> nn.Module:
        return FrozenBatchNorm2d(32)


def used(norm: FrozenBatchNorm2d) -> FrozenBatchNorm2d:
    """Return a frozen batch norm with the statistics of some training."""
    for buffer in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        buffer.uniform_(0.5, 1.5)
    return norm


@expect(widths=OTHERS, stays={"a": "norm"})
class FrozenBatchNormOfATrainedNetwork(Normed):
    """Its bias, a buffer, is not 0 where the channel is."""

    def make(self) -> nn.Module:
        return used(FrozenBatchNorm2d(32))
