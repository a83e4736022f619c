"""Views: with sizes from the shape, and hard-coded ones."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.blocks import Classifier, cb, cbr
from zoo.entry import expect


class Flattened(Classifier):
    """A flattened map before a linear layer: 8 channels of 4x4."""

    features = 32

    def layers(self) -> None:
        self.a, self.fc = cbr(16, 8, 3, 2), nn.Linear(128, 32)

    def flat(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def body(self, x: Tensor) -> Tensor:
        return F.relu(self.fc(self.flat(self.a(x))))[:, :, None]


@expect(widths={"stem": 8, "a": 4, "fc": 16})
class FlattenedRest(Flattened):
    """view(images, -1)."""

    def flat(self, x: Tensor) -> Tensor:
        return x.view(x.size(0), -1)


@expect(widths={"stem": 8, "fc": 16}, stays={"a": "view"})
class FlattenedHardCoded(Flattened):
    """view(-1, 128): of 4 channels it would make half as many images."""

    def flat(self, x: Tensor) -> Tensor:
        return x.view(-1, 128)


@expect(widths={"stem": 8, "fc": 16}, stays={"a": "view|reshape"})
class ReshapedHardCoded(Flattened):
    """reshape(images, 128)."""

    def flat(self, x: Tensor) -> Tensor:
        return x.reshape(x.size(0), 128)


class Excited(Classifier):
    """Squeeze and excitation."""

    def layers(self) -> None:
        self.a, self.b, self.down, self.up = cbr(16, 24), cbr(24, 16), nn.Linear(24, 8), nn.Linear(8, 24)

    def gate(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def body(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.b(x * self.gate(torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3))))))))


@expect(widths={"stem": 8, "a": 12, "down": 4, "up": 12, "b": 8})
class ExcitedFromShape(Excited):
    """view(*shape, 1, 1)."""

    def gate(self, x: Tensor) -> Tensor:
        images, channels = x.size()
        return x.view(images, channels, 1, 1)


@expect(widths={"stem": 8, "down": 4, "b": 8}, stays={"a": "view", "up": "view"})
class ExcitedHardCoded(Excited):
    """view(images, 24, 1, 1)."""

    def gate(self, x: Tensor) -> Tensor:
        return x.view(x.size(0), 24, 1, 1)


@expect(widths={"stem": 8, "fc": 128, "c": 8})
class MapsFromVector(Classifier):
    """The outputs of a linear layer as 16 maps of 4x4: the 16 rows of a map go together."""

    def layers(self) -> None:
        self.fc, self.c = nn.Linear(16, 256), cbr(16, 16)

    def maps(self, x: Tensor) -> Tensor:
        return x.view(len(x), -1, 4, 4)

    def body(self, x: Tensor) -> Tensor:
        return self.c(F.relu(self.maps(self.fc(x.mean((2, 3))))))


@expect(widths={"stem": 8, "c": 8}, stays={"fc": "view"})
class MapsHardCoded(MapsFromVector):
    """view(-1, 16, 4, 4)."""

    def maps(self, x: Tensor) -> Tensor:
        return x.view(-1, 16, 4, 4)


@expect(widths={"a": 8}, stays={"stem": "view"})
class MeanHardCoded(Classifier):
    """A global mean over view(images, 16, -1)."""

    def layers(self) -> None:
        self.a = nn.Linear(16, 16)

    def body(self, x: Tensor) -> Tensor:
        return F.relu(self.a(x.view(x.size(0), 16, -1).mean(2)))[:, :, None]


@expect(widths={"stem": 8, "fc1": 16, "fc2": 8})
class Tokens(Classifier):
    """Places as tokens, channels last."""

    def layers(self) -> None:
        self.fc1, self.fc2 = nn.Linear(16, 32), nn.Linear(32, 16)

    def body(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return (tokens + self.fc2(F.gelu(self.fc1(tokens)))).transpose(1, 2)


@expect(widths={"stem": 8, "c1": 16, "c2": 16, "d": 8})
class Rearranged(Classifier):
    """Focus of YOLOv5: places become channels, four for each channel of `stem`; then a convolution and a shortcut."""

    def layers(self) -> None:
        self.c1, self.c2, self.d = cbr(64, 32), cb(32, 32), cbr(32, 16)

    def body(self, x: Tensor) -> Tensor:
        parts = [x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]]
        y = self.c1(torch.cat(parts, 1))
        return self.d(F.relu(y + self.c2(y)))


@expect(widths={"stem": 8, "a": 4, "fc": 16})
class FlattenedByAttribute(Flattened):
    """view(-1, the number of outputs of the layer before * 16), which follows."""

    def flat(self, x: Tensor) -> Tensor:
        return x.view(-1, self.a[0].out_channels * 16)


@expect(widths={"stem": 8, "fc": 16}, stays={"a": "assert|expected"})
class Asserted(Flattened):
    """The number of channels is asserted."""

    def flat(self, x: Tensor) -> Tensor:
        assert x.shape[1] == 8, "8 channels are expected"
        return x.flatten(1)


class Checked(nn.Module):
    """A layer of a library that checks what it made."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = cbr(16, 24)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        if y.shape[1] != 24:
            raise ValueError(f"{y.shape[1]} channels are not 24")
        return y


@expect(widths={"stem": 8, "b": 8}, stays={"a": "channels are not 24"})
class CheckedInside(Classifier):
    """The number of channels is checked in a part of the network."""

    def layers(self) -> None:
        self.a, self.b = Checked(), cbr(24, 16)

    def body(self, x: Tensor) -> Tensor:
        return self.b(self.a(x))


@expect(widths={"stem": 8, "b": 8}, stays={"a": "view"})
class TwoChannelsHardCoded(Classifier):
    """Two channels, as of a flow, flattened to a number of values."""

    def layers(self) -> None:
        self.a, self.b = cbr(16, 2), nn.Linear(128, 16)

    def body(self, x: Tensor) -> Tensor:
        return F.relu(self.b(self.a(x).view(-1, 128)))[:, :, None]


@expect(widths={"stem": 8, "a": 1, "b": 8})
class TwoChannels(TwoChannelsHardCoded):
    """The same with what is left of the size: one channel stays."""

    def body(self, x: Tensor) -> Tensor:
        return F.relu(self.b(self.a(x).flatten(1)))[:, :, None]


@expect(widths={"stem": 8, "a": 4, "patches": 8})
class Unfolded(Classifier):
    """Patches of 2x2 places as vectors (F.unfold): four inputs of the linear layer for each channel."""

    def layers(self) -> None:
        self.a, self.patches = cbr(16, 8), nn.Linear(32, 16)

    def body(self, x: Tensor) -> Tensor:
        return F.relu(self.patches(F.unfold(self.a(x), 2, stride=2).transpose(1, 2))).transpose(1, 2)
