"""AlexNet with batch norms for ImageNet, as in "DoReFa-Net" and in Distiller.

A. Krizhevsky, I. Sutskever, G. Hinton, NIPS 2012; S. Zhou et al., 2016, arXiv:1606.06160, whose network TensorPack
published and Distiller took over, with its names.
"""

import torch
from torch import Tensor, nn

from compressor.models.checking import Size
from compressor.models.registry import model


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-4)


class AlexNetBN(nn.Module):
    """Five convolutions (12x12, 5x5, 3x3), three of them in two groups, and three linear layers."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 96, 12, stride=4),
            nn.ReLU(),
            nn.Conv2d(96, 256, 5, padding=2, groups=2, bias=False),
            _norm(256),
            nn.MaxPool2d(3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 384, 3, padding=1, bias=False),
            _norm(384),
            nn.MaxPool2d(3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 384, 3, padding=1, groups=2, bias=False),
            _norm(384),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1, groups=2, bias=False),
            _norm(256),
            nn.MaxPool2d(3, stride=2),
            nn.ReLU(),
        )
        self.classifier = nn.Sequential(
            nn.Linear(256 * 6 * 6, 4096, bias=False),
            nn.BatchNorm1d(4096, eps=1e-4),
            nn.ReLU(),
            nn.Linear(4096, 4096, bias=False),
            nn.BatchNorm1d(4096, eps=1e-4),
            nn.ReLU(),
            nn.Linear(4096, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of (N, 3, 224, 224) images."""
        logits: Tensor = self.classifier(torch.flatten(self.features(x), 1))
        return logits


@model
def alexnet_bn(num_classes: Size = 1000) -> AlexNetBN:
    """AlexNet with batch norms for ImageNet (Zhou et al. 2016), as in Distiller: 61 M parameters."""
    return AlexNetBN(num_classes)
