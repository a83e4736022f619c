"""The L2 norm."""

import math

from torch import Tensor

from compressor.criteria.criterion import Criterion, Given
from compressor.sparsity.structures import Shape, Structure


class L2Norm(Criterion, name="l2"):
    """Score the L2 norm of a structure; of single weights |w|."""

    def score(self, given: Given, name: str, structure: Structure) -> Tensor:
        return structure.norms(given.weights[name], "l2")

    def comparable(self, score: Tensor, structure: Structure, shape: Shape) -> Tensor:
        return score / math.sqrt(structure.size(shape))

    def is_magnitude(self, structure: Structure) -> bool:
        return structure.single
