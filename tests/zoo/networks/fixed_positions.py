"""Channels that are read at hard-coded positions: kept are those without which others would stand there."""

import torch
from torch import Tensor, nn

from zoo.blocks import Classifier, cbr, small
from zoo.entry import expect


class Fixed(Classifier):
    """24 channels, some of which a second convolution reads."""

    pruned: tuple[slice, ...] = ()
    """The 12 filters of `a` that are pruned."""
    read = 24

    def layers(self) -> None:
        self.a, self.b = cbr(16, 24), cbr(self.read, 16)
        small(self.a, *self.pruned)

    def positions(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def body(self, x: Tensor) -> Tensor:
        return self.b(self.positions(self.a(x)))


@expect(widths={"stem": 8, "a": 20, "b": 8}, stays={"a": "slice"})
class FirstTwenty(Fixed):
    """Without one of the first 20 channels the next one would be read; the last four are never read."""

    pruned, read = (slice(0, 8), slice(20, 24)), 20

    def positions(self, x: Tensor) -> Tensor:
        return x[:, :20]


@expect(widths={"stem": 8, "a": 20, "b": 8}, stays={"a": "slice"})
class FirstTwentyOnTheLineOfTheLayers(FirstTwenty):
    """The slice stands on the line of the layers that make and read its channels."""

    def body(self, x: Tensor) -> Tensor:
        return self.b(self.a(x)[:, :20])


@expect(widths={"stem": 8, "a": 18, "b": 8}, stays={"a": "slice"})
class FromTwelve(Fixed):
    """Nobody reads the first 12 channels, which hold the place of the others; those behind may go."""

    pruned, read = (slice(0, 6), slice(12, 18)), 12

    def positions(self, x: Tensor) -> Tensor:
        return x[:, 12:]


@expect(widths={"stem": 8, "a": 8, "b": 8}, stays={"a": "slice"})
class LastEight(Fixed):
    """The first 16 channels are never read; without one of the others the one in front of them would be."""

    pruned, read = (slice(0, 8), slice(20, 24)), 8

    def positions(self, x: Tensor) -> Tensor:
        return x[:, -8:]


@expect(widths={"stem": 8, "a": 20, "b": 8}, stays={"a": "slice"})
class Middle(Fixed):
    """All but the first four and the last six: these ten stay, and those between them may go."""

    pruned, read = (slice(0, 8), slice(20, 24)), 14

    def positions(self, x: Tensor) -> Tensor:
        return x[:, 4:-6]


@expect(widths={"stem": 8, "a": 23, "b": 8}, stays={"a": "slice"})
class EverySecond(Fixed):
    """Without one channel all behind it would change their places; the last one is not read."""

    pruned, read = (slice(0, 12),), 12

    def positions(self, x: Tensor) -> Tensor:
        return x[:, ::2]


@expect(widths={"stem": 8, "a": 15, "b": 8}, stays={"a": "roll"})
class Rolled(Fixed):
    """Without one of the last three, which come first, the one in front of them would."""

    pruned = slice(0, 9), slice(21, 24)

    def positions(self, x: Tensor) -> Tensor:
        return torch.roll(x, 3, 1)


@expect(widths={"stem": 8, "a": 16, "b": 8}, stays={"a": "select"})
class GatedByTheFourth(Fixed):
    """The channel at place 3 is a gate: the first four stay."""

    pruned = slice(0, 4), slice(12, 20)

    def positions(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x[:, 3])[:, None]


class Shift(Fixed):
    """TSM: a part of the channels moves forward, another one back, the rest stays."""

    def fold(self, x: Tensor) -> int:
        raise NotImplementedError

    def positions(self, x: Tensor) -> Tensor:
        fold, y = self.fold(x), torch.zeros_like(x)
        y[:, :fold, :-1] = x[:, :fold, 1:]
        y[:, fold : 2 * fold, 1:] = x[:, fold : 2 * fold, :-1]
        y[:, 2 * fold :] = x[:, 2 * fold :]
        return y


@expect(widths={"stem": 8, "a": 16, "b": 8}, stays={"a": "slice"})
class ShiftHardCoded(Shift):
    """Four channels each: the first eight stay."""

    pruned = slice(0, 4), slice(8, 16)

    def fold(self, x: Tensor) -> int:
        return 4


@expect(widths={"stem": 8, "a": 16, "b": 8}, stays={"a": "slice"})
class ShiftThirds(ShiftHardCoded):
    """The three parts are equal, and hard-coded: the last one may go alone."""

    pruned = slice(0, 4), slice(16, 24)

    def fold(self, x: Tensor) -> int:
        return 8


@expect(widths={"stem": 8, "a": 16, "b": 8})
class ShiftFromShape(Shift):
    """An eighth each: the j-th channels of the eighths go together, two of four."""

    def layers(self) -> None:
        self.a, self.b = cbr(16, 32), cbr(32, 16)

    def fold(self, x: Tensor) -> int:
        return x.shape[1] // 8


class GhostModule(Classifier):
    """GhostNet: cheap maps of each channel, and as many of all as are wanted."""

    read = 24

    def layers(self) -> None:
        self.p, self.cheap, self.b = cbr(16, 12, 1), cbr(12, 12, groups=12), cbr(self.read, 16)

    def body(self, x: Tensor) -> Tensor:
        x = self.p(x)
        return self.b(torch.cat([x, self.cheap(x)], 1)[:, : self.read])


@expect(widths={"stem": 8, "p": 6, "cheap": 6, "b": 8})
class Ghost(GhostModule):
    """All of them are wanted."""


@expect(widths={"stem": 8, "b": 8}, stays={"p": "slice", "cheap": "slice"})
class GhostOfTwenty(GhostModule):
    """The last four are not: without a channel of `p` another one of them would be read."""

    read = 20


@expect(widths={"stem": 10, "pc": 2, "c2": 12, "c3": 10}, stays={"stem": "slice", "c3": "slice"})
class PartialConvolutionBySlices(Classifier):
    """FasterNet: the first four channels, which the convolution reads, stay, and two of them are pruned."""

    def layers(self) -> None:
        self.pc = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.c2, self.c3 = cbr(16, 24, 1), nn.Conv2d(24, 16, 1, bias=False)
        for layer in (self.stem, self.c3):
            small(layer, slice(0, 2), slice(4, 10))

    def body(self, x: Tensor) -> Tensor:
        return x + self.c3(self.c2(torch.cat([self.pc(x[:, :4]), x[:, 4:]], 1)))
