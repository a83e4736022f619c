"""Shortcuts without weights where a block has more channels than its input: the new ones are zeros (He et al., A)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.blocks import Classifier, cb, cbr, small
from zoo.entry import expect


class Widened(Classifier):
    """A strided block of 32 channels behind the 16 of `stem`."""

    features = 32

    def layers(self) -> None:
        self.a, self.b = cbr(16, 24, 3, 2), cb(24, 32)

    def shortcut(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def body(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.b(self.a(x)))


@expect(widths={"stem": 8, "a": 12, "b": 16, "projection": 16})
class Projection(Widened):
    """Option B, with weights, to compare."""

    def layers(self) -> None:
        super().layers()
        self.projection = cb(16, 32, 1, 2)

    def shortcut(self, x: Tensor) -> Tensor:
        return self.projection(x)


@expect(widths={"stem": 8, "a": 12, "b": 24}, stays={"b": "pad"})
class PadBothSides(Widened):
    """CIFAR ResNets: strided, with 8 channels of zeros on both sides, whatever `stem` has.

    Channels 8 .. 23 of `b` go with those of `stem`; the others meet the zeros. Of the 32 channels the 16 small ones are
    pruned: 8 of `stem` with those of `b`, and 8 of `b` that stay.
    """

    def layers(self) -> None:
        super().layers()
        small(self.stem, slice(0, 8))
        small(self.b, slice(0, 16))

    def shortcut(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 8, 8))


@expect(widths={"stem": 8, "a": 12, "b": 24}, stays={"b": "pad"})
class PadAtEnd(Widened):
    """The same with all zeros behind; of `b` the channels 0 .. 7 (with `stem`) and 16 .. 23 are pruned."""

    def layers(self) -> None:
        super().layers()
        small(self.stem, slice(0, 8))
        small(self.b, slice(0, 8), slice(16, 24))

    def shortcut(self, x: Tensor) -> Tensor:
        return F.pad(F.avg_pool2d(x, 2), (0, 0, 0, 0, 0, 16))


@expect(widths={"stem": 8, "a": 12, "b": 16})
class ZerosLike(Widened):
    """As many zeros as channels: channels j and 16 + j of `b` go with channel j of `stem`."""

    def shortcut(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(x, 2)
        return torch.cat([x, torch.zeros_like(x)], 1)


@expect(widths={"stem": 8, "a": 12, "b": 16})
class TimesZero(Widened):
    """The same by x * 0, as in DenseNet's and ShakeShake's code of old."""

    def shortcut(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(x, 2)
        return torch.cat([x, x.mul(0)], 1)


@expect(widths={"stem": 8, "a": 12, "b": 24}, stays={"b": "zeros"})
class NewZeros(Widened):
    """16 zeros, whatever `stem` has; of `b` the channels 0 .. 7 (with `stem`) and 16 .. 23 are pruned."""

    def layers(self) -> None:
        super().layers()
        small(self.stem, slice(0, 8))
        small(self.b, slice(0, 8), slice(16, 24))

    def shortcut(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(x, 2)
        return torch.cat([x, x.new_zeros(len(x), 16, 4, 4)], 1)


@expect(widths={"a": 12}, stays={"stem": "zeros", "b": "zeros"})
class ZerosUpTo(NewZeros):
    """Zeros up to 32 channels in all: where `stem` loses one, all behind it would move."""

    def shortcut(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(x, 2)
        return torch.cat([x, torch.zeros(len(x), 32 - x.size(1), 4, 4, dtype=x.dtype, device=x.device)], 1)


class Block(Classifier):
    """A residual block of 16 channels."""

    def layers(self) -> None:
        self.a, self.b = cbr(16, 24), cb(24, 16)


BLOCK = {"stem": 8, "a": 12, "b": 8}


@expect(widths=BLOCK)
class InPlace(Block):
    """Sums and activations in place."""

    def body(self, x: Tensor) -> Tensor:
        y = self.b(self.a(x))
        y += x
        return F.relu_(y)


@expect(widths=BLOCK)
class Weighted(Block):
    """BiFPN's weighted sum: one parameter of two numbers."""

    def layers(self) -> None:
        super().layers()
        self.share = torch.nn.Parameter(torch.tensor([0.6, 0.9]))

    def body(self, x: Tensor) -> Tensor:
        share = F.relu(self.share)
        share = share / (share.sum() + 1e-4)
        return F.silu(share[0] * x + share[1] * self.b(self.a(x)))


@expect(widths=BLOCK)
class Interpolated(Block):
    """A shortcut by torch.lerp."""

    def body(self, x: Tensor) -> Tensor:
        return torch.lerp(x, self.b(self.a(x)), 0.3)


@expect(widths={"stem": 8, "down": 12, "up": 12, "out": 8})
class UNet(Classifier):
    """A smaller map, enlarged again and joined with the larger one."""

    def layers(self) -> None:
        self.down, self.up, self.out = cbr(16, 24, 3, 2), cbr(24, 24), cbr(40, 16)

    def body(self, x: Tensor) -> Tensor:
        small = self.up(self.down(x))
        return self.out(torch.cat([F.interpolate(small, size=x.shape[2:], mode="nearest"), x], 1))
