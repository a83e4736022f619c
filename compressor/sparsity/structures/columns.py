"""Columns of a linear layer: the weights that read one input."""

from typing import ClassVar

from compressor.sparsity.structures.structure import Structure


class Columns(Structure, name="Cols"):
    """Columns of a linear layer: the weights that read one input."""

    weight_dims: ClassVar[tuple[int, ...]] = (2,)
    members: ClassVar[tuple[int, ...]] = (0,)
    dim: ClassVar[int | None] = 1
