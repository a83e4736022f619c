"""The weights of all filters at one (channel, row, column): SSL's fibers, columns of the im2col matrix."""

from typing import ClassVar

from compressor.sparsity.structures.structure import Structure


class Shapes(Structure, name="Shapes"):
    """The weights of all filters at one (channel, row, column): SSL's fibers, columns of the im2col matrix."""

    members: ClassVar[tuple[int, ...]] = (0,)
