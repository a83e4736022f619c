"""MobileNet v1 for ImageNet, of four widths: "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision
Applications".

A. Howard et al., 2017, arXiv:1704.04861, table 1; module names are Distiller's.
"""

import torch
from torch import Tensor, nn

from compressor.models.checking import Size
from compressor.models.registry import model

# Channels in and out, and stride, of the 13 depthwise separable convolutions, at width 1.
BLOCKS = [
    (32, 64, 1),
    (64, 128, 2),
    (128, 128, 1),
    (128, 256, 2),
    (256, 256, 1),
    (256, 512, 2),
    *[(512, 512, 1)] * 5,
    (512, 1024, 2),
    (1024, 1024, 1),
]
LEAST = 8
"""The smallest number of channels of a narrow net."""


class MobileNet(nn.Module):
    """A 3x3 stem, 13 depthwise separable convolutions with BN and ReLU, global average pooling, fc."""

    def __init__(self, num_classes: int, width: float) -> None:
        super().__init__()

        def of(channels: int) -> int:
            return max(int(channels * width), LEAST)

        stem = nn.Sequential(*_conv_bn_relu(3, of(32), 3, stride=2))
        separable = [
            nn.Sequential(
                *_conv_bn_relu(of(inputs), of(inputs), 3, stride=stride, groups=of(inputs)),
                *_conv_bn_relu(of(inputs), of(outputs), 1),
            )
            for inputs, outputs, stride in BLOCKS
        ]
        self.model = nn.Sequential(stem, *separable, nn.AdaptiveAvgPool2d(1))
        self.fc = nn.Linear(of(1024), num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of (N, 3, H, W) images, 224x224 in the paper."""
        logits: Tensor = self.fc(torch.flatten(self.model(x), 1))
        return logits


def _conv_bn_relu(inputs: int, outputs: int, side: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, side, stride, padding=side // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


@model
def mobilenet(num_classes: Size = 1000) -> MobileNet:
    """MobileNet v1 for ImageNet (Howard et al. 2017), under Distiller's name: 4.2 M parameters."""
    return MobileNet(num_classes, 1.0)


@model
def mobilenet_025(num_classes: Size = 1000) -> MobileNet:
    """MobileNet v1 (Howard et al. 2017) with a quarter of the channels, under Distiller's name."""
    return MobileNet(num_classes, 0.25)


@model
def mobilenet_050(num_classes: Size = 1000) -> MobileNet:
    """MobileNet v1 (Howard et al. 2017) with half of the channels, under Distiller's name."""
    return MobileNet(num_classes, 0.5)


@model
def mobilenet_075(num_classes: Size = 1000) -> MobileNet:
    """MobileNet v1 (Howard et al. 2017) with three quarters of the channels, under Distiller's name."""
    return MobileNet(num_classes, 0.75)
