"""Gates for each channel, computed from the means of all: a channel goes with its gate."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.blocks import Classifier, cb, cbr
from zoo.entry import expect
from zoo.networks.inverted_residual import Excitation
from zoo.networks.residual import Bottleneck


class Gate(nn.Module):
    """Two linear layers, viewed as maps, as Hu et al. 2018 published them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Linear(channels, 8, bias=False), nn.Linear(8, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        images, channels, _, _ = x.size()
        gate = F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1).view(images, channels)))
        gate = torch.sigmoid(self.excite(gate)).view(images, channels, 1, 1)
        return x * gate.expand_as(x)


@expect(widths={"stem": 8, "one": 12, "two": 8, "gate": 8, "gate.squeeze": 4})  # in make test
class SENet(Classifier):
    """A residual block with a gate before the sum."""

    def layers(self) -> None:
        self.one, self.two, self.gate = cbr(16, 24), cb(24, 16), Gate(16)

    def body(self, x: Tensor) -> Tensor:
        return F.relu(x + self.gate(self.two(self.one(x))))


@expect(widths={"stem": 8, "reduce": 12, "grouped": 12, "gate": 12, "gate.squeeze": 4, "expand": 8})
class RegNetY(Classifier):
    """A gate behind a grouped convolution: the gate's outputs are ranked within the groups, too."""

    def layers(self) -> None:
        self.reduce, self.grouped = cbr(16, 24, 1), cbr(24, 24, groups=6)
        self.gate, self.expand = Excitation(24), cb(24, 16, 1)

    def body(self, x: Tensor) -> Tensor:
        return F.relu(x + self.expand(self.gate(self.grouped(self.reduce(x)))))


@expect(widths={"stem": 8, "block": 8, "short": 12, "wide": 12, "squeeze": 4, "excite": 12})
class SEResNeXt(Classifier):
    """A gate after the sum of a block and its projection."""

    features = 24

    def layers(self) -> None:
        self.block, self.short, self.wide = Bottleneck(16, 16, 16, groups=4), cb(16, 24, 1, 2), cb(16, 24, 3, 2)
        self.squeeze, self.excite = nn.Linear(24, 8), nn.Linear(8, 24)

    def body(self, x: Tensor) -> Tensor:
        x = self.block(x)
        y = F.relu(self.wide(x) + self.short(x))
        return y * torch.sigmoid(self.excite(F.relu(self.squeeze(y.mean((2, 3))))))[:, :, None, None]


@expect(widths={"stem": 8, "squeeze": 4, "excite": 8})
class SharedExcitation(Classifier):
    """The channel attention of CBAM: the same two layers for means and maxima."""

    def layers(self) -> None:
        self.squeeze, self.excite = nn.Conv2d(16, 8, 1, bias=False), nn.Conv2d(8, 16, 1, bias=False)

    def logits(self, x: Tensor) -> Tensor:
        out: Tensor = self.excite(F.relu(self.squeeze(x)))
        return out

    def body(self, x: Tensor) -> Tensor:
        both = self.logits(F.adaptive_avg_pool2d(x, 1)) + self.logits(F.adaptive_max_pool2d(x, 1))
        return x * torch.sigmoid(both)


@expect(widths={"stem": 8, "a": 8, "squeeze": 4, "excite": 8})
class SpatialAndChannel(Classifier):
    """scSE (Roy et al. 2018): the larger one of two gates, one for each channel, one for each position."""

    def layers(self) -> None:
        self.a, self.where = cbr(16, 16), nn.Conv2d(16, 1, 1)
        self.squeeze, self.excite = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1)

    def body(self, x: Tensor) -> Tensor:
        x = self.a(x)
        which = self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True))))
        return torch.maximum(x * torch.sigmoid(which), x * torch.sigmoid(self.where(x)))


@expect(widths={"stem": 8, "a": 12})
class GatherExcite(Classifier):
    """Hu et al. 2018, without parameters: each map times the sigmoid of its own means over parts of the image."""

    features = 24

    def layers(self) -> None:
        self.a = cbr(16, 24)

    def body(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return x * torch.sigmoid(F.interpolate(F.avg_pool2d(x, 4), x.shape[2:]))
