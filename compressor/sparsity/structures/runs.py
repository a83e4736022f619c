"""Runs of channels: the M weights of which N are kept in N:M sparsity."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from compressor.sparsity.structures.structure import Shape, Structure


class Runs(Structure, name="Runs"):
    """Runs of `length` neighbouring channels of one filter at one position of the kernel: the M of N:M sparsity."""

    example: ClassVar[str] = "{Runs: 2}"
    members: ClassVar[tuple[int, ...]] = (2,)
    main: ClassVar[str] = "length"

    length: int = Field(default=4, ge=1, description="number of neighbouring channels in one run: M of N:M sparsity")

    def view_shape(self, shape: Shape) -> tuple[int, ...]:
        return (shape[0], shape[1] // self.length, self.length, *shape[2:])

    def misfit(self, shape: Shape) -> str | None:
        if (said := super().misfit(shape)) is not None:
            return said
        return f"{shape[1]} channels are not divisible into runs of {self.length}" if shape[1] % self.length else None


def largest_of_runs(weight: Tensor, count: int, length: int) -> Tensor:
    """Return true at the `count` largest |w| of every run (N:M sparsity, Zhou et al. 2021); of equal ones the later."""
    runs = Runs(length=length)
    score = runs.view(weight.detach().abs())
    order = score.argsort(dim=2, stable=True)
    keep = torch.zeros_like(score, dtype=torch.bool)
    keep.scatter_(2, order.narrow(2, length - count, count), True)
    return keep.reshape(weight.shape)
