"""Layers and blocks that are called more than once, and weights that several layers share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.blocks import Classifier, cb, cbr
from zoo.entry import expect


@expect(widths={"stem": 8, "down": 8, "shared": 12})
class SharedHead(Classifier):
    """One convolution reads two maps, as the heads of detectors read a pyramid: both maps lose the same channels."""

    features = 24

    def layers(self) -> None:
        self.down, self.shared = cbr(16, 16, 3, 2), cbr(16, 24)

    def body(self, x: Tensor) -> Tensor:
        small = self.down(x)
        return self.shared(x).flatten(2).mean(2, keepdim=True) + self.shared(small).flatten(2).mean(2, keepdim=True)


@expect(widths={"shared": 12}, stays={"stem": "view", "down": "view"})
class SharedHeadOnView(SharedHead):
    """One of the two maps has a hard-coded number of channels: so the other one must keep its own."""

    def body(self, x: Tensor) -> Tensor:
        small = self.down(x).view(-1, 16, 4, 4)
        return self.shared(x).flatten(2).mean(2, keepdim=True) + self.shared(small).flatten(2).mean(2, keepdim=True)


class Towers(nn.Module):
    """A tower that sees the image and its mirror image."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(cbr(3, 16, 3, 2), cbr(16, 24))
        self.head = nn.Linear(24, 10)


@expect(widths={"tower.0": 8, "tower.1": 12})
class TwinDifference(Towers):
    """The distance of two towers with the same weights (Siamese networks)."""

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.tower(x), self.tower(x.flip(3))
        return self.head((one - other).abs().mean((2, 3)))


@expect(widths={"tower.0": 8, "tower.1": 12, "mix": 8})
class TwinConcatenation(Towers):
    """Both towers' channels side by side: a filter makes two of them."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.head = cbr(48, 16, 1), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(torch.cat([self.tower(x), self.tower(x.flip(3))], 1)).mean((2, 3)))


@expect(widths={"stem": 8, "i": 12, "c": 12, "o": 8})
class UnrolledLoop(Classifier):
    """A layer that reads its own output."""

    def layers(self) -> None:
        self.i, self.c, self.o = cbr(16, 24), cbr(24, 24), cbr(24, 16)

    def body(self, x: Tensor) -> Tensor:
        x = self.i(x)
        for _ in range(3):
            x = self.c(x)
        return self.o(x)


@expect(widths={"stem": 8, "i": 12, "c": 12, "norms": 12, "o": 8})
class OwnNormForEachCall(UnrolledLoop):
    """A shared convolution with a batch norm for each of its calls."""

    def layers(self) -> None:
        self.i, self.c, self.o = cbr(16, 24), nn.Conv2d(24, 24, 3, padding=1, bias=False), cbr(24, 16)
        self.norms = nn.ModuleList(nn.BatchNorm2d(24) for _ in range(3))

    def body(self, x: Tensor) -> Tensor:
        x = self.i(x)
        for norm in self.norms:
            x = F.relu(norm(self.c(x)))
        return self.o(x)


@expect(widths={"stem": 8, "a": 12, "b": 12, "norm": 12, "o": 8})
class SharedNorm(Classifier):
    """One batch norm behind two convolutions: their channels go together."""

    def layers(self) -> None:
        self.a, self.b = nn.Conv2d(16, 24, 3, padding=1), nn.Conv2d(24, 24, 3, padding=1)
        self.norm, self.o = nn.BatchNorm2d(24), cbr(24, 16)

    def body(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.a(x)))
        return self.o(F.relu(self.norm(self.b(x))))


@expect(widths={"stem": 8, "i": 12, "a": 12, "b": 12, "o": 8})
class TiedWeights(Classifier):
    """Two layers with one weight, and a batch norm each: `b` reads what `a` makes, so inputs and outputs are tied."""

    def layers(self) -> None:
        self.i, self.a, self.b, self.o = cbr(16, 24), cb(24, 24), cb(24, 24), cbr(24, 16)
        self.b[0].weight = self.a[0].weight

    def body(self, x: Tensor) -> Tensor:
        return self.o(F.relu(self.b(F.relu(self.a(self.i(x))))))


@expect(widths={"fc": 4}, stays={"stem": "head|fc.weight"})
class TiedTranspose(Classifier):
    """An autoencoder with tied weights: the decoder makes channel i of what reads channel i of `stem`, and not 0."""

    def layers(self) -> None:
        self.fc = nn.Linear(16, 8)

    def body(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.fc(x.mean((2, 3))))
        return F.linear(hidden, self.fc.weight.t())[:, :, None]


@expect(widths={"stem": 8, "a": 12, "r": 12, "norm": 12, "o": 8})
class RecurrentConvolution(Classifier):
    """Recurrent convolutional layers (Liang and Hu 2015): a state that the input and the state itself feed."""

    def layers(self) -> None:
        self.a, self.r = nn.Conv2d(16, 24, 3, padding=1), nn.Conv2d(24, 24, 3, padding=1)
        self.norm, self.o = nn.BatchNorm2d(24), cbr(24, 16)

    def body(self, x: Tensor) -> Tensor:
        given = self.a(x)
        state = F.relu(self.norm(given))
        for _ in range(2):
            state = F.relu(self.norm(given + self.r(state)))
        return self.o(state)


@expect(widths={"stem": 8, "block.0": 12, "block.1": 8})
class SharedResidual(Classifier):
    """A residual block that is applied twice."""

    def layers(self) -> None:
        self.block = nn.Sequential(cbr(16, 24), cb(24, 16))

    def body(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = F.relu(x + self.block(x))
        return x


@expect(widths={"stem": 8, "a": 12, "mlp.0": 4, "mlp.2": 12, "b": 8})
class SharedMlp(Classifier):
    """The channel attention of CBAM: one MLP reads the mean and the maximum of each map, and scales the maps."""

    def layers(self) -> None:
        self.a, self.b = cbr(16, 24), cbr(24, 16)
        self.mlp = nn.Sequential(nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 24))

    def body(self, x: Tensor) -> Tensor:
        x = self.a(x)
        gate = torch.sigmoid(self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3))))
        return self.b(x * gate[:, :, None, None])


@expect(widths={"stem": 8, "a": 8, "b": 8, "d": 8, "o": 8})
class SharedDepthwise(Classifier):
    """One depthwise convolution on two branches: channel j of both and its own filter j are one."""

    def layers(self) -> None:
        self.a, self.b, self.d, self.o = cbr(16, 16), cbr(16, 16), cbr(16, 16, groups=16), cbr(32, 16)

    def body(self, x: Tensor) -> Tensor:
        return self.o(torch.cat([self.d(self.a(x)), self.d(self.b(x))], 1))


@expect(widths={"stem": 8, "f": 8, "o": 8})
class Cycle(Classifier):
    """Two layers in turn: f.0, f.1, f.0; what `stem` makes f.1 makes, too."""

    def layers(self) -> None:
        self.f = nn.ModuleList([cbr(16, 16), cbr(16, 16)])
        self.o = cbr(16, 16)

    def body(self, x: Tensor) -> Tensor:
        for number in (0, 1, 0):
            x = self.f[number](x)
        return self.o(x)


@expect(widths={"stem": 8, "first": 12, "z": 12, "c": 12, "o": 8})
class ConvGru(Classifier):
    """A convolutional GRU: a channel of the state is 0 where that of the candidate and of the first state are."""

    def layers(self) -> None:
        self.first = nn.Conv2d(16, 24, 1)
        self.z, self.c = nn.Conv2d(40, 24, 3, padding=1), nn.Conv2d(40, 24, 3, padding=1)
        self.o = cbr(24, 16)

    def start(self, x: Tensor) -> Tensor:
        return torch.tanh(self.first(x))

    def body(self, x: Tensor) -> Tensor:
        state = self.start(x)
        for _ in range(2):
            both = torch.cat([x, state], 1)
            update = torch.sigmoid(self.z(both))
            state = (1 - update) * state + update * torch.tanh(self.c(both))
        return self.o(state)


@expect(widths={"stem": 8, "o": 8}, stays={"z": "zeros", "c": "zeros"})
class ConvGruFromZeros(ConvGru):
    """Its first state is made of zeros, 24 of them, whatever the layers have."""

    def layers(self) -> None:
        super().layers()
        del self.first

    def start(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x), 24, 8, 8)


@expect(widths={"stem": 8, "blocks": 8, "o": 8})
class RepeatedObject(Classifier):
    """A list that has one block three times: its state dict has it three times, too."""

    def layers(self) -> None:
        block = cbr(16, 16)
        self.blocks, self.o = nn.ModuleList([block] * 3), cbr(16, 16)

    def body(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.o(x)


@expect(widths={"tower.0": 8, "tower.1": 12})
class ImagePyramid(Towers):
    """A tower that sees the image in two sizes."""

    def forward(self, x: Tensor) -> Tensor:
        small = F.interpolate(x, scale_factor=0.5, mode="bilinear")
        return self.head(torch.maximum(self.tower(x).mean((2, 3)), self.tower(small).mean((2, 3))))


@expect(widths={"tower.0": 8, "tower.1": 12})
class CropsAsImages(Towers):
    """Four crops as images of one batch, and the mean of their features."""

    def forward(self, x: Tensor) -> Tensor:
        crops = torch.cat([x[..., :8, :8], x[..., :8, 8:], x[..., 8:, :8], x[..., 8:, 8:]])
        return self.head(self.tower(crops).mean((2, 3)).view(4, len(x), -1).mean(0))
