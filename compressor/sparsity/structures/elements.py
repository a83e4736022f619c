"""Single weights."""

from typing import ClassVar

from compressor.sparsity.structures.structure import ANY, Structure


class Elements(Structure, name="Elements"):
    """Single weights."""

    ranks: ClassVar[tuple[int, ...]] = (1, *ANY)
