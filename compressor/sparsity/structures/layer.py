"""A weight as a whole."""

from typing import ClassVar

from compressor.sparsity.structures.structure import Structure


class WholeWeight(Structure, name="4D", also=("Layer",)):
    """A weight as a whole."""

    members: ClassVar[tuple[int, ...]] = (0, 1, 2, 3, 4)
