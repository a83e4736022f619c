"""Weights that are something else in the forward pass: random, shared, or behind a gate."""

from collections.abc import Mapping
from contextlib import AbstractContextManager

from torch import Tensor


class Substitution:
    """Puts other values in the place of parameters for the forward and the backward pass, and takes them away again.

    In between, a parameter's `.grad` is that of the values that were in its place: `after_backward` makes of it the
    gradients of the parameter and of the substitution's own tensors.
    """

    def before_forward(self) -> None:
        """Put the values of this step in place."""

    def after_backward(self) -> None:
        """Bring the parameters back, with their gradients."""

    def after_step(self) -> None:
        """After the optimizer's step: what must hold of the substitution's own tensors."""

    def fold(self) -> Mapping[str, Tensor]:
        """The values that are shipped, by parameter name; of every parameter that differs from what it holds."""
        return {}

    def inference(self) -> AbstractContextManager[None] | None:
        """A way to evaluate the folded network that is no plain network's, to be entered; None where there is none."""
        return None
