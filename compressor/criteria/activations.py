"""Criteria that are means over images of a function of a layer's outputs."""

from typing import ClassVar

from torch import Tensor

from compressor.criteria.criterion import Criterion, Given
from compressor.sparsity.structures import Structure


class ActivationCriterion(Criterion):
    """The mean of `summed` over the images of the calibration batches.

    `summed` reads the output of the first activation that follows a layer, or its input where `behind_activation` is
    false. Where no activation follows, both are the output of the batch norm that follows the layer, or of the layer
    itself.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"activation_sums"})
    of_outputs: ClassVar[bool] = True
    behind_activation: ClassVar[bool] = True
    with_gradient: ClassVar[bool] = False
    """Whether `summed` gets dL/da, L the sum of the images' losses."""
    by_position: ClassVar[bool] = False
    """Whether the mean is also over the positions of a map."""

    def summed(self, maps: Tensor, gradient: Tensor | None) -> Tensor:
        """Return what is averaged over images.

        Args:
            maps: activations [images, channels, one dim or more].
            gradient: dL/da in the same shape where `with_gradient` is set, L the sum of the images' losses; else None.

        Returns:
            A tensor [images, channels].
        """
        raise TypeError(f"{type(self).__name__} has no sum: define `summed`")

    def score(self, given: Given, name: str, structure: Structure) -> Tensor:
        return given.activation_sums(name)
