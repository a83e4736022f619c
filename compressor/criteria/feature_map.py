"""B. Bartoldson et al., "The Generalization-Stability Tradeoff In Neural Network Pruning", NeurIPS 2020."""

from typing import ClassVar

from torch import Tensor

from compressor.criteria.activations import ActivationCriterion
from compressor.criteria.criterion import unit_length
from compressor.sparsity.structures import Shape, Structure


class FeatureMap(ActivationCriterion, name="feature_map"):
    """Score the mean over images of sum |x| over a map, x before the activation (Bartoldson et al. 2020)."""

    behind_activation: ClassVar[bool] = False

    def summed(self, maps: Tensor, gradient: Tensor | None) -> Tensor:
        return maps.flatten(2).abs().sum(2)

    def comparable(self, score: Tensor, structure: Structure, shape: Shape) -> Tensor:
        return unit_length(score)
