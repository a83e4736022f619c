"""Z. Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017."""

from typing import ClassVar

import torch
from torch import Tensor

from compressor.criteria.criterion import BatchNorm, Criterion, Given
from compressor.sparsity.structures import Structure


class BatchNormScale(Criterion, name="bn_scale"):
    """Score |gamma| of the batch norm that follows a layer; the sum where several read its outputs (Liu et al.
    2017).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"weights", "batch_norms"})
    of_outputs: ClassVar[bool] = True

    def of(self, norm: BatchNorm) -> Tensor:
        """Return a score for each entry of a batch norm."""
        return norm.scale.abs()

    def score(self, given: Given, name: str, structure: Structure) -> Tensor:
        score = torch.zeros(len(given.weights[name]), dtype=torch.float64)
        for norm in given.batch_norms(name):
            score.index_add_(0, norm.outputs, self.of(norm))
        return score
