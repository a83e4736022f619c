"""L2: lambda * sum w^2 (Hoerl and Kennard 1970). PyTorch's `weight_decay: c` is the penalty c/2 * sum w^2."""

from typing import Annotated, ClassVar

import torch
from pydantic import Field

from compressor.component import Selects, Targets
from compressor.regularizers.l1 import Strength
from compressor.regularizers.regularizer import Regularizer, Weights
from compressor.sparsity import squares


class L2Regularizer(Regularizer, name="L2Regularizer"):
    """Penalize lambda * sum w^2, gradient 2 lambda w; together with L1 on the same weights: the elastic net."""

    example: ClassVar[str] = """
    regularizers:
      l2: {class: L2Regularizer, reg_regims: {'*': 2.5e-4}}
    policies:
      - {regularizer: {instance_name: l2}, starting_epoch: 0, ending_epoch: 10}
    """

    reg_regims: Annotated[dict[str, Strength], Selects()] = Field(
        min_length=1, description="lambda, the strength of the penalty, of each weight: {selector: lambda}"
    )

    @torch.no_grad()
    def add_gradient(self, weights: Weights, targets: Targets) -> None:
        for name, strength in targets["reg_regims"].items():
            gradient = weights[name].grad
            if gradient is not None:
                gradient.add_(weights[name], alpha=2 * strength)

    @torch.no_grad()
    def value(self, weights: Weights, targets: Targets) -> float:
        terms = (strength * squares(weights[name]).sum().item() for name, strength in targets["reg_regims"].items())
        return float(sum(terms))
