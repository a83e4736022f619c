"""The L1 norm: H. Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017."""

from torch import Tensor

from compressor.criteria.criterion import Criterion, Given
from compressor.sparsity.structures import Shape, Structure


class L1Norm(Criterion, name="l1"):
    """Score the L1 norm of a structure; of single weights |w|."""

    def score(self, given: Given, name: str, structure: Structure) -> Tensor:
        return structure.norms(given.weights[name], "l1")

    def comparable(self, score: Tensor, structure: Structure, shape: Shape) -> Tensor:
        return score / structure.size(shape)

    def is_magnitude(self, structure: Structure) -> bool:
        return structure.single
