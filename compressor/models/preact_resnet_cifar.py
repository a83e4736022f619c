"""Pre-activation ResNets for CIFAR: "Identity Mappings in Deep Residual Networks".

K. He, X. Zhang, S. Ren, J. Sun, ECCV 2016. Shortcuts and module names are Distiller's.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compressor.models.checking import Size
from compressor.models.initialization import he_convolutions
from compressor.models.registry import model


class PreactBasicBlock(nn.Module):
    """BN, ReLU, conv, BN, ReLU[, dropout], conv, and a shortcut around them.

    `convolves`: where shapes change the shortcut is a 1x1 convolution, else average pooling and channels of zeros on
    both sides. `shared`: the shortcut reads the pre-activation (the paper's appendix), else the block's input.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, *, convolves: bool, shared: bool, dropout: float
    ) -> None:
        super().__init__()
        self.pre_bn = nn.BatchNorm2d(inputs)
        self.pre_relu = nn.ReLU()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.drop = nn.Dropout(dropout) if dropout else nn.Identity()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shared = shared
        self.downsample: nn.Module = nn.Identity()
        if convolves and (stride != 1 or inputs != outputs):
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False))
        elif stride != 1 or inputs != outputs:
            before = (outputs - inputs) // 2
            padding = nn.ConstantPad3d((0, 0, 0, 0, before, outputs - inputs - before), 0.0)
            self.downsample = nn.Sequential(nn.AvgPool2d(stride, ceil_mode=True), padding)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""
        active = self.pre_relu(self.pre_bn(x))
        y = self.conv2(self.drop(self.relu(self.bn(self.conv1(active)))))
        out: Tensor = y + self.downsample(active if self.shared else x)
        return out


class PreactResNetCifar(nn.Module):
    """A 3x3 stem of 16 filters, three stages of `depth` blocks, BN, ReLU, global average pooling, fc.

    With `convolves` a stage's first block has a convolution in its shortcut, if any, and shares its pre-activation.
    """

    def __init__(
        self,
        depth: int,
        num_classes: int,
        widths: Sequence[int] = (16, 32, 64),
        dropout: float = 0.0,
        *,
        convolves: bool = False,
    ) -> None:
        super().__init__()

        def block(inputs: int, outputs: int, stride: int, shared: bool) -> PreactBasicBlock:
            return PreactBasicBlock(inputs, outputs, stride, convolves=convolves, shared=shared, dropout=dropout)

        def stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
            rest = [block(outputs, outputs, 1, False) for _ in range(depth - 1)]
            return nn.Sequential(block(inputs, outputs, stride, convolves), *rest)

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

    def why_unknown(self, names: Sequence[str]) -> str | None:
        """Return why this network has no parameters of these names, where earlier versions had them."""
        known = dict(self.named_modules())
        paths = [name.removesuffix(".weight") for name in names if name.endswith(".downsample.0.weight")]
        if any(isinstance(known.get(path), nn.AvgPool2d) for path in paths):
            return (
                f"written by an earlier version, whose pre-activation ResNets had convolutions in their shortcuts"
                f" ({paths[0]}); they are free of parameters now, as in Distiller: train the network again"
            )
        return None


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
