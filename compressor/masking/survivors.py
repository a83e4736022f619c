"""Weights that are multiplied by a number in the forward pass: the survivors of a random mask."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from compressor.context import Context
from compressor.masking.masks import companions
from compressor.sparsity import Cutter, Substitution, copied

Factors = Mapping[str, Tensor | float]
"""One number for each parameter, or one for each of its entries."""


class Scaling(Substitution):
    """Use w * factor in the forward and the backward pass; the weights themselves do not change."""

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self._parameters = parameters
        self._factors: Factors = {}
        self._aside: dict[str, Tensor] = {}

    def put(self, factors: Factors) -> None:
        """Set the factors from the next forward pass on."""
        self._factors = factors

    def cut(self, cut: Cutter) -> None:  # channels may be removed between a draw and its forward pass
        self._factors = {
            name: cut.tensor(name, factor) if isinstance(factor, Tensor) else factor
            for name, factor in self._factors.items()
        }

    @torch.no_grad()
    def before_forward(self) -> None:
        for name, factor in self._factors.items():
            self._aside[name] = copied(self._parameters[name])
            self._parameters[name].mul_(factor)

    @torch.no_grad()
    def after_backward(self) -> None:
        for name, value in self._aside.items():
            parameter = self._parameters[name]
            parameter.copy_(value)
            if parameter.grad is not None:
                parameter.grad.mul_(self._factors[name])
        self._aside = {}


def survivor_factors(ctx: Context, weights: Sequence[str], outputs: Sequence[str], scale: float) -> Factors:
    """Return the factors that make the outputs of `weights` `scale` times as large.

    A batch norm removes the factor again. So the companions (biases and batch norms) of the weights in `outputs`, which
    are pruned by whole outputs, are scaled, too, whether this draw prunes any of them or not.
    """
    found: dict[str, Tensor | float] = dict.fromkeys(weights, scale)
    shapes = ctx.network.shapes()
    gone = {name: torch.ones(shapes[name][0], dtype=torch.bool) for name in outputs}
    for name, keep in companions(ctx, (), gone).items():
        if keep.dim() == 1:
            found[name] = torch.where(keep, 1.0, scale).to(ctx.parameters[name].device)
        elif name in companions(ctx, (), {other: one for other, one in gone.items() if other != name}):
            found.pop(name, None)  # a depthwise filter, whose input is that large already
    return found
