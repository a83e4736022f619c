"""Parts that most networks of the zoo share."""

import torch
from torch import Tensor, nn


def cbr(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution without bias, batch norm and ReLU."""
    return nn.Sequential(*cb(inputs, outputs, kernel, stride, groups), nn.ReLU())


def cb(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution without bias, and batch norm."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


@torch.no_grad()
def small(layer: nn.Module, *outputs: slice) -> nn.Module:
    """Return the layer (or the block that begins with it) with some outputs so small that they are pruned first."""
    first = layer[0] if isinstance(layer, nn.Sequential) else layer
    for some in outputs:
        first.weight[some] *= 0.01
    return layer


class Classifier(nn.Module):
    """Images 3x16x16 -> `stem` 16x8x8 -> `body` -> mean over places -> `head`."""

    features = 16
    """The channels that `body` gives."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = cbr(3, 16, 3, 2)
        self.layers()
        self.head = nn.Linear(self.features, 10)

    def layers(self) -> None:
        """Make the layers of `body`."""

    def body(self, x: Tensor) -> Tensor:
        """Return (N, features, ...) for (N, 16, 8, 8)."""
        return x

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(self.stem(x)).flatten(2).mean(2))
        return logits
