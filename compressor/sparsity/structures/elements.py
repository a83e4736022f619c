"""Single weights."""

from typing import ClassVar

from compressor.sparsity.structures.structure import ANY, Structure


class Elements(Structure, name="Elements"):
    """Single weights, each kept or pruned by itself."""

    weight_dims: ClassVar[tuple[int, ...]] = (1, *ANY)
