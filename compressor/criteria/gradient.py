"""The change of the loss, to first order, if a structure were set to zero."""

from typing import ClassVar

from torch import Tensor

from compressor.criteria.criterion import Criterion, Given, unit_length
from compressor.sparsity.structures import Shape, Structure


class GradientCriterion(Criterion, name="gradient"):
    """Score |sum over a structure of w dL/dw|, L the mean loss over the calibration batches."""

    needs: ClassVar[frozenset[str]] = frozenset({"weights", "gradient_sums"})

    def score(self, given: Given, name: str, structure: Structure) -> Tensor:
        weight = given.weights[name].detach()
        return structure.sums(weight * given.gradient_sums(name).to(weight.device)).abs()

    def comparable(self, score: Tensor, structure: Structure, shape: Shape) -> Tensor:
        return unit_length(score)
