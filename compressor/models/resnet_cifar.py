"""ResNet-20/32/44/56 for CIFAR, and the plain net beside it: "Deep Residual Learning for Image Recognition".

K. He, X. Zhang, S. Ren, J. Sun, CVPR 2016, section 4.2. Where the shape changes the shortcut is a 1x1
convolution with BN (option B, as in Distiller), not the zero padding of the paper's CIFAR nets.
Module names are Distiller's.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from compressor.models.checking import Size
from compressor.models.initialization import he_convolutions
from compressor.models.registry import model


class PlainBlock(nn.Module):
    """conv, BN, ReLU, twice."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""
        x = self.relu1(self.bn1(self.conv1(x)))
        out: Tensor = self.relu2(self.bn2(self.conv2(x)))
        return out


class BasicBlock(PlainBlock):
    """A `PlainBlock` with a shortcut around it, into the last ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, stride)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""
        y = self.relu1(self.bn1(self.conv1(x)))
        out: Tensor = self.relu2(self.bn2(self.conv2(y)) + self.downsample(x))
        return out


class ResNetCifar(nn.Module):
    """A 3x3 stem, three stages of `depth` blocks with 16, 32 and 64 filters, global average pooling, fc."""

    def __init__(self, block: Callable[[int, int, int], nn.Module], depth: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = nn.Sequential(block(16, 16, 1), *(block(16, 16, 1) for _ in range(depth - 1)))
        self.layer2 = nn.Sequential(block(16, 32, 2), *(block(32, 32, 1) for _ in range(depth - 1)))
        self.layer3 = nn.Sequential(block(32, 64, 2), *(block(64, 64, 1) for _ in range(depth - 1)))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, num_classes)
        he_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of (N, 3, 32, 32) images."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits


@model
def resnet20_cifar(num_classes: Size = 10) -> ResNetCifar:
    """ResNet-20 for CIFAR (He et al. 2016): 3 blocks a stage, 0.27 M parameters."""
    return ResNetCifar(BasicBlock, 3, num_classes)


@model
def resnet32_cifar(num_classes: Size = 10) -> ResNetCifar:
    """ResNet-32 for CIFAR (He et al. 2016): 5 blocks a stage, 0.47 M parameters."""
    return ResNetCifar(BasicBlock, 5, num_classes)


@model
def resnet44_cifar(num_classes: Size = 10) -> ResNetCifar:
    """ResNet-44 for CIFAR (He et al. 2016): 7 blocks a stage, 0.66 M parameters."""
    return ResNetCifar(BasicBlock, 7, num_classes)


@model
def resnet56_cifar(num_classes: Size = 10) -> ResNetCifar:
    """ResNet-56 for CIFAR (He et al. 2016): 9 blocks a stage, 0.86 M parameters."""
    return ResNetCifar(BasicBlock, 9, num_classes)


@model
def plain20_cifar(num_classes: Size = 10) -> ResNetCifar:
    """The plain 20-layer net of He et al. 2016: ResNet-20 without its shortcuts."""
    return ResNetCifar(PlainBlock, 3, num_classes)


@model
def plain20_cifar_nobn(num_classes: Size = 10) -> ResNetCifar:
    """The plain 20-layer net of He et al. 2016 without batch norms, as in Distiller."""
    network = plain20_cifar(num_classes)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
    return network
