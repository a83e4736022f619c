"""Filters of a convolution, or rows of a linear layer: all weights of one output."""

from typing import ClassVar

from compressor.sparsity.structures.structure import Structure


class Filters(Structure, name="Filters", also=("3D",)):
    """Filters of a convolution, or rows of a linear layer: all weights of one output."""

    members: ClassVar[tuple[int, ...]] = (1, 2, 3, 4)
    dim: ClassVar[int | None] = 0
