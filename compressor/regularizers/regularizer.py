"""What every penalty answers: its gradient, and its value when somebody asks."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from compressor.component import Component, Targets


class Regularizer(Component):
    """A penalty on weights, added to the data loss. It is applied as a gradient; autograd never sees it."""

    section: ClassVar[str] = "regularizers"

    def add_gradient(self, weights: Mapping[str, Tensor], targets: Targets) -> None:
        """Add the penalty's (sub)gradient to the weights' `.grad`, in place."""
        raise TypeError(f"{type(self).__name__} has no gradient")

    def value(self, weights: Mapping[str, Tensor], targets: Targets) -> float:
        """The penalty itself."""
        raise TypeError(f"{type(self).__name__} has no value")
