"""The mean magnitude of a structure, as Distiller's StructureParameterPruner compares it with a threshold."""

from torch import Tensor

from compressor.criteria.criterion import Criterion, Given
from compressor.sparsity import magnitudes
from compressor.sparsity.structures import Structure


class MeanAbs(Criterion, name="mean_abs"):
    """Score the mean |w| of a structure."""

    def score(self, given: Given, name: str, structure: Structure) -> Tensor:
        weight = given.weights[name]
        return structure.sums(magnitudes(weight)) / structure.size(weight.shape)

    def is_magnitude(self, structure: Structure) -> bool:
        return True
