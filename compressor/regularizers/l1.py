"""L1: lambda * sum |w| (Tibshirani 1996; Han et al. 2015 use it before pruning)."""

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from compressor.component import Selects, Targets
from compressor.regularizers.regularizer import Regularizer, Weights
from compressor.sparsity import magnitudes, pieces, set_small_to_zero

Strength = Annotated[float, Field(ge=0)]


class L1Regularizer(Regularizer, name="L1Regularizer"):
    """Penalize lambda * sum |w|; the subgradient is lambda * sign(w), and 0 at w = 0.

    `proximal` replaces the subgradient by a step after the optimizer's: w <- sign(w) max(|w| - t lambda, 0), which
    reaches exact zeros (Daubechies et al. 2004). t is lr / (1 - momentum) for SGD, and lr / (sqrt(v_hat) + eps) by
    weight for Adam, so that training ends at the minimum of loss + penalty. With `threshold_criteria` (Distiller's name
    for "also threshold") or `threshold` every |w| <= threshold becomes 0 after each step; the default threshold is
    lambda.
    """

    example: ClassVar[str] = """
    regularizers:
      l1: {class: L1Regularizer, reg_regims: {'fc*.weight': 1e-4}}
    policies:
      - {regularizer: {instance_name: l1}, starting_epoch: 0, ending_epoch: 10}
    """

    reg_regims: Annotated[dict[str, Strength], Selects()] = Field(
        min_length=1, description="lambda, the strength of the penalty, of each weight: {selector: lambda}"
    )
    threshold_criteria: Literal["Max", "Mean_Abs"] | None = Field(
        default=None,
        description="either value: after each step weights up to the threshold become 0 (Distiller); default: no"
        " threshold",
    )
    threshold: float | None = Field(
        default=None,
        ge=0,
        description="largest |w| that becomes 0 after each step; default: lambda where `threshold_criteria` is"
        " given, else no threshold",
    )
    proximal: bool = Field(
        default=False,
        description="true: a proximal step after the optimizer's, which reaches exact zeros; false: the subgradient",
    )

    @torch.no_grad()
    def add_gradient(self, weights: Weights, targets: Targets) -> None:
        if self.proximal:
            return
        for name, strength in targets["reg_regims"].items():
            gradient = weights[name].grad
            for slope, weight in pieces(gradient, weights[name].detach()) if gradient is not None else ():
                slope.add_(weight.sign(), alpha=strength)

    @property
    def takes_proximal_steps(self) -> bool:
        return self.proximal

    @property
    def thresholds(self) -> bool:
        return self.threshold is not None or self.threshold_criteria is not None

    @property
    def makes_zeros(self) -> bool:
        return self.proximal or self.thresholds

    @torch.no_grad()
    def after_step(self, weights: Weights, targets: Targets, step: Callable[[Tensor], float | Tensor]) -> None:
        for name, strength in targets["reg_regims"].items():
            weight = weights[name].detach()
            if self.proximal:
                _soft_threshold(weight, step(weights[name]), strength)
            if self.thresholds:
                limit = strength if self.threshold is None else self.threshold
                set_small_to_zero(weight, limit)

    @torch.no_grad()
    def value(self, weights: Weights, targets: Targets) -> float:
        terms = (strength * magnitudes(weights[name]).sum().item() for name, strength in targets["reg_regims"].items())
        return float(sum(terms))


def _soft_threshold(weight: Tensor, step: float | Tensor, strength: float) -> None:
    """Set w to sign(w) max(|w| - step strength, 0), in place; adding 0 makes 0.0 of -0.0."""
    if isinstance(step, Tensor):
        for part, size in pieces(weight, step):
            part.copy_(part.sign() * (part.abs() - size * strength).clamp_(min=0.0)).add_(0.0)
    else:
        for (part,) in pieces(weight):
            torch._C._nn.softshrink(part, step * strength, out=part).add_(0.0)  # type: ignore[call-arg]
