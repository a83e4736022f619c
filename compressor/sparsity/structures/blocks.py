"""Blocks of neighbouring filters and channels."""

from typing import ClassVar

from pydantic import Field

from compressor.sparsity.structures.structure import Shape, Structure


class Blocks(Structure, name="Blocks"):
    """Blocks of `filters` neighbouring filters and `depth` neighbouring channels at one position of the kernel."""

    example: ClassVar[str] = "{Blocks: {filters: 2, depth: 1}}"
    members: ClassVar[tuple[int, ...]] = (1, 3)

    filters: int = Field(default=1, ge=1, description="number of neighbouring filters in one block")
    depth: int = Field(default=1, ge=1, description="number of neighbouring channels in one block")

    def view_shape(self, shape: Shape) -> tuple[int, ...]:
        return (shape[0] // self.filters, self.filters, shape[1] // self.depth, self.depth, *shape[2:])

    def misfit(self, shape: Shape) -> str | None:
        if (said := super().misfit(shape)) is not None:
            return said
        if shape[0] % self.filters or shape[1] % self.depth:
            return f"{shape[0]} filters x {shape[1]} channels are not divisible by {self.filters} x {self.depth}"
        return None
