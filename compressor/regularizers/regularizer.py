"""What every penalty answers: its gradient, and its value when somebody asks."""

from collections.abc import Callable, Mapping
from typing import ClassVar

from torch import Tensor

from compressor.component import Component, Targets

Weights = Mapping[str, Tensor]


class Regularizer(Component):
    """A penalty on weights, added to the data loss. It is applied as a gradient; autograd never sees it."""

    section: ClassVar[str] = "regularizers"

    def add_gradient(self, weights: Weights, targets: Targets) -> None:
        """Add the penalty's (sub)gradient to the weights' `.grad`, in place."""
        raise TypeError(f"{type(self).__name__} has no gradient")

    @property
    def makes_zeros(self) -> bool:
        """Whether `after_step` makes exact zeros, which a policy may keep."""
        return False

    def after_step(self, weights: Weights, targets: Targets, rate: Callable[[Tensor], float]) -> None:
        """Proximal step or threshold after the optimizer's step, in place; `rate` gives a weight's learning rate."""

    def value(self, weights: Weights, targets: Targets) -> float:
        """The penalty itself."""
        raise TypeError(f"{type(self).__name__} has no value")
