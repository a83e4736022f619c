"""Random scores, a baseline."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from compressor.criteria.criterion import Criterion, Given
from compressor.sparsity.structures import Structure


class Chance(Criterion, name="random"):
    """Score a new random number each time."""

    example: ClassVar[str] = "{random: {zeros_first: false}}"

    zeros_first: bool = Field(
        default=True,
        # Behind a relu, without bias and batch norm, it would not come back.
        description="true: structures that are zero already, after an earlier draw, are pruned first (Distiller)",
    )

    def score(self, given: Given, name: str, structure: Structure) -> Tensor:
        weight = given.weights[name]
        drawn = torch.rand(structure.index_shape(weight.shape), dtype=torch.float64, generator=given.stream)
        if not self.zeros_first:
            return drawn
        return torch.where(structure.norms(weight).cpu() == 0, -1.0, drawn)
