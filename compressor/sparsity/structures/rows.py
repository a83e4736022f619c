"""Rows of a linear layer: the weights of one output."""

from typing import ClassVar

from compressor.sparsity.structures.structure import Structure


class Rows(Structure, name="Rows"):
    """Rows of a linear layer: the weights of one output."""

    weight_dims: ClassVar[tuple[int, ...]] = (2,)
    members: ClassVar[tuple[int, ...]] = (1,)
    dim: ClassVar[int | None] = 0
