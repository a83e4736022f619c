"""L1: lambda * sum |w| (Tibshirani 1996; Han et al. 2015 use it before pruning)."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from compressor.component import Selects, Targets
from compressor.regularizers.regularizer import Regularizer

Strength = Annotated[float, Field(ge=0)]


class L1Regularizer(Regularizer, name="L1Regularizer"):
    """Penalty lambda * sum |w|; its subgradient is lambda * sign(w), and 0 at w = 0."""

    example: ClassVar[str] = """
    regularizers:
      l1: {class: L1Regularizer, reg_regims: {'fc*.weight': 1e-4}}
    policies:
      - {regularizer: {instance_name: l1}, starting_epoch: 0, ending_epoch: 10}
    """

    reg_regims: Annotated[dict[str, Strength], Selects()] = Field(min_length=1)

    @torch.no_grad()
    def add_gradient(self, weights: Mapping[str, Tensor], targets: Targets) -> None:
        for name, strength in targets["reg_regims"].items():
            weight = weights[name]
            if weight.grad is not None:
                weight.grad.add_(weight.sign(), alpha=strength)

    @torch.no_grad()
    def value(self, weights: Mapping[str, Tensor], targets: Targets) -> float:
        terms = (strength * weights[name].abs().sum().item() for name, strength in targets["reg_regims"].items())
        return float(sum(terms))
