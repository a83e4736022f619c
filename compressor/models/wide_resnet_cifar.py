"""WRN-28-10 for CIFAR: "Wide Residual Networks" (S. Zagoruyko, N. Komodakis, BMVC 2016)."""

from compressor.models.checking import Rate, Size
from compressor.models.preact_resnet_cifar import PreactResNetCifar
from compressor.models.registry import model


@model
def wrn_28_10_cifar(num_classes: Size = 10, dropout: Rate = 0.0) -> PreactResNetCifar:
    """WRN-28-10 (Zagoruyko & Komodakis 2016): 4 blocks a stage, ten times as wide, 36.5 M parameters.

    `dropout` is between the two convolutions of a block (0.3 in the paper).
    """
    return PreactResNetCifar(4, num_classes, widths=(160, 320, 640), dropout=dropout, convolves=True)
