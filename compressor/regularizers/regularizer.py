"""What every penalty answers: its gradient, and its value when somebody asks."""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from compressor.component import Component, Targets
from compressor.sparsity.structures import Structure

Weights = Mapping[str, Tensor]


class Regularizer(Component):
    """A penalty on weights, added to the data loss. It is applied as a gradient; autograd never sees it."""

    section: ClassVar[str] = "regularizers"

    def structures(self, targets: Targets) -> Mapping[str, Sequence[Structure]]:
        """What each weight is cut into; nothing where single weights are penalized."""
        return {}

    def misfits(self, targets: Targets, shapes: Mapping[str, Sequence[int]]) -> list[str]:
        """One line for each weight that cannot be cut so."""
        cuts = self.structures(targets).items()
        found = [(name, structure.misfit(shapes[name])) for name, structures in cuts for structure in structures]
        return [f"{name}: {why}" for name, why in found if why is not None]

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
