"""Channels that are split, sliced, joined, turned around or multiplied with each other.

Parts of which a network takes the number or the fraction, not the size, stay equal if the j-th channels of all parts go
together. Hard-coded sizes cannot change.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.blocks import Classifier, cb, cbr, small
from zoo.entry import expect


class Gated(Classifier):
    """A residual block of two 1x1 convolutions with a gate between them: 32 channels become 16."""

    def layers(self) -> None:
        self.c1, self.c2 = nn.Conv2d(16, 32, 1), nn.Conv2d(16, 16, 1)

    def gate(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def body(self, x: Tensor) -> Tensor:
        return x + self.c2(self.gate(self.c1(x)))


GATED = {"stem": 8, "c1": 16, "c2": 8}


@expect(widths=GATED)
class SimpleGate(Gated):
    """NAFNet: one half times the other."""

    def gate(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        return a * b


@expect(widths=GATED)
class Glu(Gated):
    """One half times the sigmoid of the other."""

    def gate(self, x: Tensor) -> Tensor:
        return F.glu(x, 1)


@expect(widths=GATED)
class MaxFeatureMap(Gated):
    """LightCNN: the larger one of two halves."""

    def gate(self, x: Tensor) -> Tensor:
        return torch.max(*x.chunk(2, 1))


@expect(widths=GATED)
class Maxout(Gated):
    """The larger one of each two neighbours."""

    def gate(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (-1, 2)).amax(2)


@expect(widths=GATED)
class EvenTimesOdd(Gated):
    """Each even channel times the odd one behind it."""

    def gate(self, x: Tensor) -> Tensor:
        return x[:, ::2] * x[:, 1::2]


@expect(widths=GATED)
class MeanOfNeighbours(Gated):
    """The mean of each two neighbours."""

    def gate(self, x: Tensor) -> Tensor:
        images, channels, height, width = x.shape
        return x.reshape(images, channels // 2, 2, height, width).mean(2)


@expect(widths={"pc": 2, "c2": 12}, stays={"stem": "split", "c3": "split"})
class PartialConvolution(Classifier):
    """FasterNet: a convolution of the first four channels; their number and that of the others are hard-coded."""

    def layers(self) -> None:
        self.pc = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.c2, self.c3 = cbr(16, 24, 1), nn.Conv2d(24, 16, 1, bias=False)

    def body(self, x: Tensor) -> Tensor:
        some, rest = torch.split(x, [4, 12], 1)
        return x + self.c3(self.c2(torch.cat([self.pc(some), rest], 1)))


@expect(widths={"stem": 8, "cv1": 16, "m": 8, "cv2": 8})
class C2f(Classifier):
    """YOLOv8: both halves, and what two residual blocks make of the second one."""

    def layers(self) -> None:
        self.cv1, self.cv2 = cbr(16, 32, 1), cbr(64, 16, 1)
        self.m = nn.ModuleList(nn.Sequential(cbr(16, 16), cbr(16, 16)) for _ in range(2))

    def body(self, x: Tensor) -> Tensor:
        y = list(self.cv1(x).chunk(2, 1))
        for block in self.m:
            y.append(y[-1] + block(y[-1]))
        return self.cv2(torch.cat(y, 1))


@expect(widths={"stem": 8, "cv2": 8, "m.0": 8, "m.2": 8}, stays={"cv1": "split"})
class C2fSplit(Classifier):
    """The same with `split((c, c), 1)`, as its exportable form has it.

    Half of 32 channels of `cv1` are pruned: the 16 of the first half, for those of the second one have the larger norm,
    together with the outputs of `m.1` and `m.3`.
    """

    def layers(self) -> None:
        self.cv1, self.cv2 = cbr(16, 32, 1), cbr(64, 16, 1)
        self.m = nn.ModuleList(cbr(16, 16) for _ in range(4))

    def body(self, x: Tensor) -> Tensor:
        y = list(self.cv1(x).split((16, 16), 1))
        for first, second in ((self.m[0], self.m[1]), (self.m[2], self.m[3])):
            y.append(y[-1] + second(first(y[-1])))
        return self.cv2(torch.cat(y, 1))


@expect(widths={"stem": 8, "cv1": 6, "m": 6, "cv2": 6, "cv3": 8})
class Csp(Classifier):
    """YOLOv5: two convolutions of the same map, of which one feeds a residual block."""

    def layers(self) -> None:
        self.cv1, self.cv2, self.cv3 = cbr(16, 12, 1), cbr(16, 12, 1), cbr(24, 16, 1)
        self.m = nn.Sequential(cbr(12, 12, 1), cbr(12, 12))

    def body(self, x: Tensor) -> Tensor:
        y = self.cv1(x)
        return self.cv3(torch.cat([y + self.m(y), self.cv2(x)], 1))


@expect(widths={"stem": 8, "i": 16, "m": 12, "t": 8})
class CspStage(Classifier):
    """CSPNet: the second half goes through a block, then the halves are joined in the other order."""

    def layers(self) -> None:
        self.i, self.m, self.t = cbr(16, 32, 1), cbr(16, 24), cbr(40, 16, 1)

    def body(self, x: Tensor) -> Tensor:
        kept, more = self.i(x).chunk(2, 1)
        return self.t(torch.cat([self.m(more), kept], 1))


@expect(widths={"stem": 8, "i": 16, "k": 4, "o": 8})
class Res2Net(Classifier):
    """Four parts; each but the first goes through a convolution with what the one before it gave."""

    def layers(self) -> None:
        self.i, self.o = cbr(16, 32, 1), cbr(32, 16, 1)
        self.k = nn.ModuleList(cbr(8, 8) for _ in range(3))

    def body(self, x: Tensor) -> Tensor:
        first, *rest = self.i(x).chunk(4, 1)
        done = [first]
        for number, (part, layer) in enumerate(zip(rest, self.k, strict=True)):
            done.append(layer(part + done[-1] if number else part))
        return self.o(torch.cat(done, 1))


class Halves(Classifier):
    """Half of the channels are added to what a convolution makes of the others."""

    def layers(self) -> None:
        self.i, self.m, self.o = cbr(16, 32, 1), cbr(16, 16), cbr(16, 16)

    def halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def body(self, x: Tensor) -> Tensor:
        a, b = self.halves(self.i(x))
        return self.o(a + self.m(b))


HALVES = {"stem": 8, "i": 16, "m": 8, "o": 8}


@expect(widths=HALVES)
class SplitFromShape(Halves):
    """split with half of the number of channels."""

    def halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = x.split(x.shape[1] // 2, 1)
        return a, b


@expect(widths=HALVES)
class SlicesFromShape(Halves):
    """Slices at half of the number of channels."""

    def halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        middle = x.size(1) // 2
        return x[:, :middle], x[:, middle:]


@expect(widths={"stem": 8, "i": 24, "o": 8}, stays={"i": "split", "m": "split"})
class SplitHardCoded(Halves):
    """split with a hard-coded size: without a channel of the first part one of the second would move into it.

    The 8 small channels of both halves are pruned; those of the first one, with the outputs of `m`, stay.
    """

    def layers(self) -> None:
        super().layers()
        small(self.i, slice(0, 8), slice(16, 24))
        small(self.m, slice(0, 8))

    def halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = x.split(16, 1)
        return a, b


@expect(widths={"stem": 8, "i": 24, "o": 8}, stays={"i": "slice", "m": "slice"})
class SlicesHardCoded(SplitHardCoded):
    """Slices at a hard-coded channel."""

    def halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :16], x[:, 16:]


@expect(widths={"stem": 8, "a": 12, "b": 8})
class Flip(Classifier):
    """Channels in reverse order."""

    def layers(self) -> None:
        self.a, self.b = cbr(16, 24), cbr(24, 16)

    def body(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).flip(1))


@expect(widths={"stem": 8, "a": 12, "b": 8})
class PlusFlip(Flip):
    """A map and its channels in reverse order: channels j and 23 - j go together."""

    def body(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.b(x + x.flip(1))


@expect(widths={"stem": 8, "a": 12, "b": 8})
class UnbindAndStack(Flip):
    """Channels one by one, stacked in reverse order."""

    def body(self, x: Tensor) -> Tensor:
        return self.b(torch.stack(self.a(x).unbind(1)[::-1], 1))


@expect(widths={"stem": 8, "a": 12, "b": 12, "c": 8})
class Interleaved(Classifier):
    """The channels of two branches in turn: a stack makes them pairs."""

    def layers(self) -> None:
        self.a, self.b, self.c = cbr(16, 24), cbr(16, 24), cbr(48, 16)

    def body(self, x: Tensor) -> Tensor:
        return self.c(torch.stack([self.a(x), self.b(x)], 2).flatten(1, 2))


@expect(widths={"stem": 8, "a": 12, "b": 8})
class SameTwice(Classifier):
    """A map joined with itself: a filter makes two channels."""

    def layers(self) -> None:
        self.a, self.b = cbr(16, 24), cbr(48, 16)

    def body(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.b(torch.cat([x, x], 1))


@expect(widths={"stem": 8, "c0": 4, "c1": 4, "n0": 8, "n1": 12, "n2": 16})
class Dense(Classifier):
    """DenseNet: each layer reads what all before it made, through a batch norm of its own."""

    features = 32

    def layers(self) -> None:
        self.n0, self.n1, self.n2 = nn.BatchNorm2d(16), nn.BatchNorm2d(24), nn.BatchNorm2d(32)
        self.c0, self.c1 = (nn.Conv2d(width, 8, 3, padding=1, bias=False) for width in (16, 24))

    def body(self, x: Tensor) -> Tensor:
        x = torch.cat([x, self.c0(F.relu(self.n0(x)))], 1)
        x = torch.cat([x, self.c1(F.relu(self.n1(x)))], 1)
        return F.relu(self.n2(x))


@expect(widths={"stem": 8, "a": 12, "b": 12, "c": 8})
class ProductOfBranches(Classifier):
    """A channel of a product needs both of its factors."""

    def layers(self) -> None:
        self.a, self.b, self.c = cb(16, 24), cbr(16, 24), cbr(24, 16)

    def body(self, x: Tensor) -> Tensor:
        return self.c(self.a(x) * self.b(x))


@expect(widths={"stem": 8, "a": 8, "b": 8})
class SpatialShift(Classifier):
    """S2-MLP: a quarter of the channels moves by one place to each side; the j-th channels of the quarters are one."""

    def layers(self) -> None:
        self.a, self.b = cbr(16, 16, 1), cbr(16, 16, 1)

    def body(self, x: Tensor) -> Tensor:
        x = self.a(x)
        quarter, y = x.shape[1] // 4, x.clone()
        y[:, :quarter, 1:] = x[:, :quarter, :-1]
        y[:, quarter : 2 * quarter, :-1] = x[:, quarter : 2 * quarter, 1:]
        y[:, 2 * quarter : 3 * quarter, :, 1:] = x[:, 2 * quarter : 3 * quarter, :, :-1]
        y[:, 3 * quarter :, :, :-1] = x[:, 3 * quarter :, :, 1:]
        return self.b(y)


@expect(widths={"stem": 8, "fc": 8, "b": 8})
class EinsumGate(Classifier):
    """A gate by einsum."""

    def layers(self) -> None:
        self.fc, self.b = nn.Linear(16, 16), cbr(16, 16)

    def body(self, x: Tensor) -> Tensor:
        return self.b(torch.einsum("nchw,nc->nchw", x, torch.sigmoid(self.fc(x.mean((2, 3))))))


@expect(widths={"stem": 8, "a": 12, "b": 8})
class Repeated(SameTwice):
    """The same by repeat."""

    def body(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).repeat(1, 2, 1, 1))


@expect(widths={"stem": 8, "a": 12, "b": 8})
class EachTwice(SameTwice):
    """Each channel twice, one behind the other."""

    def body(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).repeat_interleave(2, 1))


@expect(widths={"stem": 8, "b": 8}, stays={"a": "index"})
class Permuted(Flip):
    """A fixed order of the 24 channels."""

    def layers(self) -> None:
        super().layers()
        self.order = [(5 * place) % 24 for place in range(24)]

    def body(self, x: Tensor) -> Tensor:
        return self.b(self.a(x)[:, self.order])


@expect(widths={"stem": 8, "a": 12, "b": 12, "c": 8})
class SplitByAttributes(Classifier):
    """A split whose sizes are the layers' own numbers of outputs, which follow."""

    def layers(self) -> None:
        self.a, self.b, self.c = nn.Conv2d(16, 24, 3, padding=1), nn.Conv2d(16, 24, 1), cbr(24, 16)

    def body(self, x: Tensor) -> Tensor:
        both = F.relu(torch.cat([self.a(x), self.b(x)], 1))
        a, b = both.split([self.a.out_channels, self.b.out_channels], 1)
        return self.c(a + b)
