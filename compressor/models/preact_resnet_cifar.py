"""Pre-activation ResNets for CIFAR: "Identity Mappings in Deep Residual Networks".

K. He, X. Zhang, S. Ren, J. Sun, ECCV 2016. Module names are Distiller's.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compressor.models.checking import Size
from compressor.models.initialization import he_convolutions
from compressor.models.registry import model


class PreactBasicBlock(nn.Module):
    """BN, ReLU, conv, BN, ReLU[, dropout], conv, and a shortcut around them.

    In a stage's first block the shortcut shares the pre-activation (the paper's appendix).
    """

    def __init__(self, inputs: int, outputs: int, stride: int, *, first: bool, dropout: float) -> None:
        super().__init__()
        self.pre_bn = nn.BatchNorm2d(inputs)
        self.pre_relu = nn.ReLU()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.drop = nn.Dropout(dropout) if dropout else nn.Identity()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shared = first
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""
        active = self.pre_relu(self.pre_bn(x))
        y = self.conv2(self.drop(self.relu(self.bn(self.conv1(active)))))
        out: Tensor = y + self.downsample(active if self.shared else x)
        return out


class PreactResNetCifar(nn.Module):
    """A 3x3 stem of 16 filters, three stages of `depth` blocks, BN, ReLU, global average pooling, fc."""

    def __init__(
        self, depth: int, num_classes: int, widths: Sequence[int] = (16, 32, 64), dropout: float = 0.0
    ) -> None:
        super().__init__()

        def stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
            first = PreactBasicBlock(inputs, outputs, stride, first=True, dropout=dropout)
            rest = [PreactBasicBlock(outputs, outputs, 1, first=False, dropout=dropout) for _ in range(depth - 1)]
            return nn.Sequential(first, *rest)

        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.layer1 = stage(16, widths[0], 1)
        self.layer2 = stage(widths[0], widths[1], 2)
        self.layer3 = stage(widths[1], widths[2], 2)
        self.final_bn = nn.BatchNorm2d(widths[2])
        self.final_relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[2], num_classes)
        he_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of (N, 3, 32, 32) images."""
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        x = self.avgpool(self.final_relu(self.final_bn(x)))
        logits: Tensor = self.fc(torch.flatten(x, 1))
        return logits


@model
def preact_resnet20_cifar(num_classes: Size = 10) -> PreactResNetCifar:
    """Pre-activation ResNet-20 for CIFAR (He et al. 2016): 3 blocks a stage."""
    return PreactResNetCifar(3, num_classes)


@model
def preact_resnet32_cifar(num_classes: Size = 10) -> PreactResNetCifar:
    """Pre-activation ResNet-32 for CIFAR (He et al. 2016): 5 blocks a stage."""
    return PreactResNetCifar(5, num_classes)


@model
def preact_resnet44_cifar(num_classes: Size = 10) -> PreactResNetCifar:
    """Pre-activation ResNet-44 for CIFAR (He et al. 2016): 7 blocks a stage."""
    return PreactResNetCifar(7, num_classes)


@model
def preact_resnet56_cifar(num_classes: Size = 10) -> PreactResNetCifar:
    """Pre-activation ResNet-56 for CIFAR (He et al. 2016): 9 blocks a stage."""
    return PreactResNetCifar(9, num_classes)


@model
def preact_resnet110_cifar(num_classes: Size = 10) -> PreactResNetCifar:
    """Pre-activation ResNet-110 for CIFAR (He et al. 2016): 18 blocks a stage, 1.7 M parameters."""
    return PreactResNetCifar(18, num_classes)
