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
        """Return the structures into which each weight is divided.

        Args:
            targets: what the component's selectors matched.

        Returns:
            Structures by weight; empty where single weights are penalized.
        """
        return {}

    def misfits(self, targets: Targets, shapes: Mapping[str, Sequence[int]]) -> list[str]:
        """Return what is wrong with the selected weights.

        Args:
            targets: what the component's selectors matched.
            shapes: the shapes of the network's weights, by name.

        Returns:
            One line for each weight that cannot be divided like this.
        """
        cuts = self.structures(targets).items()
        found = [(name, structure.misfit(shapes[name])) for name, structures in cuts for structure in structures]
        return [f"{name}: {why}" for name, why in found if why is not None]

    def add_gradient(self, weights: Weights, targets: Targets) -> None:
        """Add the penalty's (sub)gradient to the weights' `.grad`, in place.

        Args:
            weights: the network's parameters, by name; one without a gradient is left alone.
            targets: what the component's selectors matched.
        """
        raise TypeError(f"{type(self).__name__} has no gradient")

    @property
    def makes_zeros(self) -> bool:
        """Return whether `after_step` makes exact zeros, which a policy may keep."""
        return False

    @property
    def takes_proximal_steps(self) -> bool:
        """Return whether `after_step` takes a proximal step."""
        return False

    @property
    def needs_one_step_size(self) -> bool:
        """Return whether that step needs one size for all entries of a weight."""
        return False

    @property
    def thresholds(self) -> bool:
        """Return whether `after_step` prunes by a threshold."""
        return False

    def after_step(self, weights: Weights, targets: Targets, step: Callable[[Tensor], float | Tensor]) -> None:
        """Apply a proximal step or threshold after the optimizer's step, in place.

        Args:
            weights: the network's parameters, by name.
            targets: what the component's selectors matched.
            step: returns a weight's step size, or one for each entry.
        """

    def value(self, weights: Weights, targets: Targets) -> float:
        """Return the penalty, for the log.

        Args:
            weights: the network's parameters, by name.
            targets: what the component's selectors matched.

        Returns:
            A number in the unit of the loss.
        """
        raise TypeError(f"{type(self).__name__} has no value")
