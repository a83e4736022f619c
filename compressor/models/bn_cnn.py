"""A small convolutional net with batch normalization, for experiments over many seeds on two CPU cores.

It replaces, at CPU size, the nets of "The Generalization-Stability Tradeoff In Neural Network Pruning" (B. Bartoldson,
A. Morcos, A. Barbu, G. Erlebacher, NeurIPS 2020).
"""

import torch
from torch import Tensor, nn

from compressor.models.checking import Size
from compressor.models.initialization import he_convolutions
from compressor.models.registry import model


class BNCNN(nn.Module):
    """Four 3x3 convolutions with BN and ReLU, the first two followed by a pooling; global average pooling, fc."""

    def __init__(self, num_classes: int, in_channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.conv3 = nn.Conv2d(width, 2 * width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(2 * width)
        self.relu3 = nn.ReLU()
        self.conv4 = nn.Conv2d(2 * width, 2 * width, 3, padding=1, bias=False)
        self.bn4 = nn.BatchNorm2d(2 * width)
        self.relu4 = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2 * width, num_classes)
        he_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of (N, in_channels, H, W) images, 28x28 or 32x32."""
        x = self.pool1(self.relu1(self.bn1(self.conv1(x))))
        x = self.pool2(self.relu2(self.bn2(self.conv2(x))))
        x = self.relu3(self.bn3(self.conv3(x)))
        x = self.relu4(self.bn4(self.conv4(x)))
        logits: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits


@model
def bn_cnn(num_classes: Size = 10, in_channels: Size = 1, width: Size = 32) -> BNCNN:
    """A small conv-BN-ReLU net for experiments on a CPU (after Bartoldson et al. 2020): 65,834 parameters."""
    return BNCNN(num_classes, in_channels, width)
