"""H. Hu et al., "Network Trimming: A Data-Driven Neuron Pruning Approach", 2016 (arXiv 1607.03250)."""

from typing import ClassVar

from torch import Tensor

from compressor.criteria.activations import ActivationCriterion
from compressor.criteria.criterion import Given
from compressor.sparsity.structures import Structure


class APoZ(ActivationCriterion, name="apoz"):
    """Score 1 - the average percentage of zeros after the activation (Hu et al. 2016)."""

    by_position: ClassVar[bool] = True
    counts_zeros: ClassVar[bool] = True

    def summed(self, maps: Tensor, gradient: Tensor | None) -> Tensor:
        return (maps == 0).flatten(2).sum(2)  # counted: equal numbers of zeros are equal scores

    def score(self, given: Given, name: str, structure: Structure) -> Tensor:
        return 1 - super().score(given, name, structure)
