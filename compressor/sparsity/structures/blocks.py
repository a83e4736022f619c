"""Blocks of neighbouring filters and channels."""

from typing import ClassVar

from pydantic import Field

from compressor.sparsity.structures.structure import Shape, Structure


class Blocks(Structure, name="Blocks"):
    """Blocks of `filters` x `depth`: so many neighbouring filters and channels at one place of the kernel."""

    example: ClassVar[str] = "{Blocks: {filters: 2, depth: 1}}"
    members: ClassVar[tuple[int, ...]] = (1, 3)

    filters: int = Field(default=1, ge=1)
    depth: int = Field(default=1, ge=1, description="channels")

    def view_shape(self, shape: Shape) -> tuple[int, ...]:
        return (shape[0] // self.filters, self.filters, shape[1] // self.depth, self.depth, *shape[2:])

    def misfit(self, shape: Shape) -> str | None:
        if (said := super().misfit(shape)) is not None:
            return said
        if shape[0] % self.filters or shape[1] % self.depth:
            return f"blocks of {self.filters} filters x {self.depth} channels do not divide {shape[0]} x {shape[1]}"
        return None
