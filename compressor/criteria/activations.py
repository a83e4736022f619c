"""Criteria that are means, over images, of something about the outputs of a layer."""

from typing import ClassVar

from torch import Tensor

from compressor.criteria.criterion import Criterion, Given
from compressor.sparsity.structures import Structure


class ActivationCriterion(Criterion):
    """A mean over the images of the calibration batches of what `summed` makes of each image.

    It looks at what the first activation behind a layer gives, or where `behind_activation` is false at what that is
    given. Where no activation follows, both are what the batch norm behind the layer, or the layer itself, gives.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"activation_sums"})
    of_outputs: ClassVar[bool] = True
    behind_activation: ClassVar[bool] = True
    with_gradient: ClassVar[bool] = False
    """Whether `summed` is given dL/da, L the sum of the images' losses."""
    by_position: ClassVar[bool] = False
    """Whether the mean is over the positions of a map, too."""

    def summed(self, maps: Tensor, gradient: Tensor | None) -> Tensor:
        """Return [images, channels] of activations [images, channels, one dim or more] and their gradient."""
        raise TypeError(f"{type(self).__name__} sums nothing")

    def score(self, given: Given, name: str, structure: Structure) -> Tensor:
        return given.activation_sums(name)
