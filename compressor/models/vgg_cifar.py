"""VGG for CIFAR: "Very Deep Convolutional Networks for Large-Scale Image Recognition".

K. Simonyan, A. Zisserman, ICLR 2015; at 32x32 five poolings leave 1x1, so one linear layer takes the place
of the paper's three. Module names are Distiller's: `features.N` and `classifier`.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from compressor.models.checking import Size
from compressor.models.initialization import he_convolutions
from compressor.models.registry import model

FILTERS = (64, 128, 256, 512, 512)
# Convolutions in each of the five groups of the paper's table 1.
DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class VGGCifar(nn.Module):
    """Five groups of 3x3 convolutions, each ended by max-pooling, and a linear classifier."""

    def __init__(self, depths: Sequence[int], num_classes: int, batch_norm: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for (before, filters), depth in zip(pairwise((3, *FILTERS)), depths, strict=True):
            for inputs in [before] + [filters] * (depth - 1):
                layers.append(nn.Conv2d(inputs, filters, 3, padding=1))
                if batch_norm:
                    layers.append(nn.BatchNorm2d(filters))
                layers.append(nn.ReLU())
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(512, num_classes)
        he_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of (N, 3, 32, 32) images."""
        logits: Tensor = self.classifier(torch.flatten(self.features(x), 1))
        return logits


@model
def vgg11_cifar(num_classes: Size = 10) -> VGGCifar:
    """VGG-11 for CIFAR (Simonyan & Zisserman 2015)."""
    return VGGCifar(DEPTHS[11], num_classes, batch_norm=False)


@model
def vgg13_cifar(num_classes: Size = 10) -> VGGCifar:
    """VGG-13 for CIFAR (Simonyan & Zisserman 2015)."""
    return VGGCifar(DEPTHS[13], num_classes, batch_norm=False)


@model
def vgg16_cifar(num_classes: Size = 10) -> VGGCifar:
    """VGG-16 for CIFAR (Simonyan & Zisserman 2015)."""
    return VGGCifar(DEPTHS[16], num_classes, batch_norm=False)


@model
def vgg19_cifar(num_classes: Size = 10) -> VGGCifar:
    """VGG-19 for CIFAR (Simonyan & Zisserman 2015)."""
    return VGGCifar(DEPTHS[19], num_classes, batch_norm=False)


@model
def vgg11_bn_cifar(num_classes: Size = 10) -> VGGCifar:
    """VGG-11 for CIFAR (Simonyan & Zisserman 2015) with batch normalization."""
    return VGGCifar(DEPTHS[11], num_classes, batch_norm=True)


@model
def vgg13_bn_cifar(num_classes: Size = 10) -> VGGCifar:
    """VGG-13 for CIFAR (Simonyan & Zisserman 2015) with batch normalization."""
    return VGGCifar(DEPTHS[13], num_classes, batch_norm=True)


@model
def vgg16_bn_cifar(num_classes: Size = 10) -> VGGCifar:
    """VGG-16 for CIFAR (Simonyan & Zisserman 2015) with batch normalization."""
    return VGGCifar(DEPTHS[16], num_classes, batch_norm=True)


@model
def vgg19_bn_cifar(num_classes: Size = 10) -> VGGCifar:
    """VGG-19 for CIFAR (Simonyan & Zisserman 2015) with batch normalization."""
    return VGGCifar(DEPTHS[19], num_classes, batch_norm=True)
