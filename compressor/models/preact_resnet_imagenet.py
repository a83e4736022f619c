"""Pre-activation ResNets for ImageNet: "Identity Mappings in Deep Residual Networks".

K. He, X. Zhang, S. Ren, J. Sun, ECCV 2016. As in Distiller the convolutions, their strides and their names are those of
torchvision's ResNets; a convolution in a shortcut reads the pre-activation.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compressor.models.checking import Size
from compressor.models.initialization import he_convolutions
from compressor.models.registry import model


class PreactBasic(nn.Module):
    """BN, ReLU, 3x3 convolution, twice, and a shortcut around them."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.pre_bn = nn.BatchNorm2d(inputs)
        self.pre_relu = nn.ReLU()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, inputs, H, W) -> (N, width, H/stride, W/stride)."""
        active = self.pre_relu(self.pre_bn(x))
        y: Tensor = self.conv2(self.relu2(self.bn2(self.conv1(active))))
        return y + (x if self.downsample is None else self.downsample(active))


class PreactBottleneck(nn.Module):
    """BN, ReLU, convolution, three times: 1x1, 3x3, 1x1 to four times the width; and a shortcut around them."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.pre_bn = nn.BatchNorm2d(inputs)
        self.pre_relu = nn.ReLU()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.relu3 = nn.ReLU()
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.downsample = _shortcut(inputs, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, inputs, H, W) -> (N, 4 * width, H/stride, W/stride)."""
        active = self.pre_relu(self.pre_bn(x))
        y = self.conv2(self.relu2(self.bn2(self.conv1(active))))
        y = self.conv3(self.relu3(self.bn3(y)))
        out: Tensor = y + (x if self.downsample is None else self.downsample(active))
        return out


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """Return the 1x1 convolution where shapes change, else None: the input itself is added."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False))


class PreactResNet(nn.Module):
    """A 7x7 stem with BN, ReLU and pooling, four stages of 64 to 512 channels, BN, ReLU, average pooling, fc."""

    def __init__(self, block: type[PreactBasic | PreactBottleneck], depths: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self._inputs = 64
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.layer1 = self._stage(block, 64, depths[0], 1)
        self.layer2 = self._stage(block, 128, depths[1], 2)
        self.layer3 = self._stage(block, 256, depths[2], 2)
        self.layer4 = self._stage(block, 512, depths[3], 2)
        self.final_bn = nn.BatchNorm2d(self._inputs)
        self.final_relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(self._inputs, num_classes)
        he_convolutions(self)

    def _stage(self, block: type[PreactBasic | PreactBottleneck], width: int, depth: int, stride: int) -> nn.Sequential:
        blocks = []
        for index in range(depth):
            blocks.append(block(self._inputs, width, stride if index == 0 else 1))
            self._inputs = width * block.expansion
        return nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of (N, 3, H, W) images, 224x224 in the paper."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = self.avgpool(self.final_relu(self.final_bn(x)))
        logits: Tensor = self.fc(torch.flatten(x, 1))
        return logits


@model
def preact_resnet18(num_classes: Size = 1000) -> PreactResNet:
    """Pre-activation ResNet-18 for ImageNet (He et al. 2016), as in Distiller: 11.7 M parameters."""
    return PreactResNet(PreactBasic, (2, 2, 2, 2), num_classes)


@model
def preact_resnet34(num_classes: Size = 1000) -> PreactResNet:
    """Pre-activation ResNet-34 for ImageNet (He et al. 2016), as in Distiller: 21.8 M parameters."""
    return PreactResNet(PreactBasic, (3, 4, 6, 3), num_classes)


@model
def preact_resnet50(num_classes: Size = 1000) -> PreactResNet:
    """Pre-activation ResNet-50 for ImageNet (He et al. 2016), as in Distiller: 25.5 M parameters."""
    return PreactResNet(PreactBottleneck, (3, 4, 6, 3), num_classes)


@model
def preact_resnet101(num_classes: Size = 1000) -> PreactResNet:
    """Pre-activation ResNet-101 for ImageNet (He et al. 2016), as in Distiller: 44.5 M parameters."""
    return PreactResNet(PreactBottleneck, (3, 4, 23, 3), num_classes)
