"""Attention that scales channels or places."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.blocks import Classifier, cbr
from zoo.entry import expect


class Attended(Classifier):
    """Two convolutions; the map between them is scaled."""

    def layers(self) -> None:
        self.a, self.b = cbr(16, 24), cbr(24, 16)
        self.gates()

    def gates(self) -> None:
        raise NotImplementedError

    def scaled(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def body(self, x: Tensor) -> Tensor:
        return self.b(self.scaled(self.a(x)))


@expect(widths={"stem": 8, "a": 12, "b": 8})
class SpatialAttention(Attended):
    """One map scales all channels."""

    def gates(self) -> None:
        self.m = nn.Conv2d(24, 1, 3, padding=1)

    def scaled(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.m(x))


@expect(widths={"stem": 8, "b": 8}, stays={"a": "mean|amax"})
class CbamSpatial(Attended):
    """The map is made of the mean and the maximum over the channels."""

    def gates(self) -> None:
        self.m = nn.Conv2d(2, 1, 7, padding=3)

    def scaled(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.m(torch.cat([x.mean(1, True), x.amax(1, True)], 1)))


@expect(widths={"stem": 8, "b": 8, "mlp.0": 4}, stays={"a": "mean|amax", "mlp.2": "mean|amax"})
class Cbam(CbamSpatial):
    """Channel attention, then spatial attention."""

    def gates(self) -> None:
        super().gates()
        self.mlp = nn.Sequential(nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 24))

    def scaled(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3))))
        return super().scaled(x * gate[:, :, None, None])


@expect(widths={"stem": 8, "b": 8}, stays={"a": "conv"})
class Eca(Attended):
    """A convolution along the channels mixes neighbours."""

    def gates(self) -> None:
        self.m = nn.Conv1d(1, 1, 3, padding=1)

    def scaled(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.m(x.mean((2, 3))[:, None]).squeeze(1))[..., None, None]


@expect(widths={"stem": 8, "a": 12, "c": 4, "rows": 12, "columns": 12, "b": 8})
class CoordinateAttention(Attended):
    """A gate by row and one by column (Hou et al. 2021)."""

    def gates(self) -> None:
        self.c, self.rows, self.columns = cbr(24, 8, 1), nn.Conv2d(8, 24, 1), nn.Conv2d(8, 24, 1)

    def scaled(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        both = torch.cat([x.mean(3, keepdim=True), x.mean(2, keepdim=True).permute(0, 1, 3, 2)], 2)
        rows, columns = torch.split(self.c(both), [height, width], 2)
        return x * torch.sigmoid(self.rows(rows)) * torch.sigmoid(self.columns(columns.permute(0, 1, 3, 2)))


@expect(widths={"stem": 8, "a": 12, "fc": 12, "b": 8})
class EffectiveSe(Attended):
    """One layer in place of squeeze and excitation."""

    def gates(self) -> None:
        self.fc = nn.Conv2d(24, 24, 1)

    def scaled(self, x: Tensor) -> Tensor:
        return x * F.hardsigmoid(self.fc(x.mean((2, 3), keepdim=True)))


@expect(widths={"stem": 8, "a": 12, "other": 12, "fc": 4, "gate": 12, "b": 8})
class SelectiveKernel(Attended):
    """SK: a softmax over two branches says, for each channel, how much of each is taken."""

    def gates(self) -> None:
        self.other, self.fc = cbr(16, 24, 5), nn.Linear(24, 8)
        self.gate = nn.ModuleList([nn.Linear(8, 24), nn.Linear(8, 24)])

    def body(self, x: Tensor) -> Tensor:
        branches = torch.stack([self.a(x), self.other(x)], 1)
        hidden = F.relu(self.fc(branches.sum(1).mean((2, 3))))
        gates = torch.stack([gate(hidden) for gate in self.gate], 1).softmax(1)
        return self.b((branches * gates[..., None, None]).sum(1))


@expect(widths={"stem": 8, "a": 12, "b": 8, "gamma": (1, 12, 1, 1)})
class SimAm(Attended):
    """A gate without layers, by each map's own mean and variance (SimAM), with a learned factor by channel."""

    def gates(self) -> None:
        self.gamma = nn.Parameter(torch.ones(1, 24, 1, 1))

    def scaled(self, x: Tensor) -> Tensor:
        square = (x - x.mean((2, 3), keepdim=True)).square()
        variance = square.sum((2, 3), keepdim=True) / (x.shape[2] * x.shape[3] - 1)
        return x * torch.sigmoid(self.gamma * square / (4 * (variance + 1e-4)) + 0.5)
