"""The largest magnitude of a structure, as Distiller's StructureParameterPruner compares it with a threshold."""

from torch import Tensor

from compressor.criteria.criterion import Criterion, Given
from compressor.sparsity import magnitudes
from compressor.sparsity.structures import Structure


class Largest(Criterion, name="max"):
    """Score the largest |w| of a structure."""

    def score(self, given: Given, name: str, structure: Structure) -> Tensor:
        return structure.largest(magnitudes(given.weights[name]))

    def is_magnitude(self, structure: Structure) -> bool:
        return True
