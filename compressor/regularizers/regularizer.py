"""The base class of all penalties: the gradient, and the value for the log."""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from compressor.component import Component, Targets
from compressor.sparsity.structures import Structure

Weights = Mapping[str, Tensor]


class Regularizer(Component):
    """A penalty on weights, added to the data loss. Its gradient is added directly, without autograd."""

    section: ClassVar[str] = "regularizers"

    def structures(self, targets: Targets) -> Mapping[str, Sequence[Structure]]:
        """Return the structures into which each weight is divided; empty where single weights are penalized."""
        return {}

    def misfits(self, targets: Targets, shapes: Mapping[str, Sequence[int]]) -> list[str]:
        """Return one line for each weight that cannot be divided like this."""
        cuts = self.structures(targets).items()
        found = [(name, structure.misfit(shapes[name])) for name, structures in cuts for structure in structures]
        return [f"{name}: {why}" for name, why in found if why is not None]

    def add_gradient(self, weights: Weights, targets: Targets) -> None:
        """Add the penalty's (sub)gradient to the weights' `.grad`, in place."""
        raise TypeError(f"{type(self).__name__} has no gradient")

    @property
    def makes_zeros(self) -> bool:
        """Return whether `after_step` makes exact zeros, which a policy may keep."""
        return False

    def after_step(self, weights: Weights, targets: Targets, rate: Callable[[Tensor], float]) -> None:
        """Apply a proximal step or threshold after the optimizer's step, in place; `rate` returns a weight's
        learning rate.
        """

    def value(self, weights: Weights, targets: Targets) -> float:
        """Return the penalty."""
        raise TypeError(f"{type(self).__name__} has no value")
