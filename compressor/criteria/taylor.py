"""P. Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient Inference", ICLR 2017."""

from typing import ClassVar

from torch import Tensor

from compressor.criteria.activations import ActivationCriterion
from compressor.criteria.criterion import unit_length
from compressor.sparsity.structures import Shape, Structure


class Taylor(ActivationCriterion, name="taylor"):
    """Score the mean over images of |mean over positions of a dL/da|, a after the activation (Molchanov et al.
    2017).
    """

    with_gradient: ClassVar[bool] = True

    def summed(self, maps: Tensor, gradient: Tensor | None) -> Tensor:
        assert gradient is not None
        return (maps * gradient).flatten(2).mean(2).abs()

    def comparable(self, score: Tensor, structure: Structure, shape: Shape) -> Tensor:
        return unit_length(score)
