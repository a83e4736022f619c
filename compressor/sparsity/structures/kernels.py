"""Kernels of a convolution: the weights of one filter and one channel."""

from typing import ClassVar

from compressor.sparsity.structures.structure import CONVOLUTIONS, Structure


class Kernels(Structure, name="2D", also=("Kernels",)):
    """Kernels of a convolution: the weights of one filter and one channel."""

    weight_dims: ClassVar[tuple[int, ...]] = CONVOLUTIONS
    members: ClassVar[tuple[int, ...]] = (2, 3, 4)
