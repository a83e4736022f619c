"""Weights that are multiplied by a number in the forward pass, as the survivors of a random mask are."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from compressor.context.context import Context
from compressor.masking.masks import companions
from compressor.sparsity.cutter import Cutter
from compressor.sparsity.substitution import Substitution

Factors = Mapping[str, Tensor | float]
"""By parameter: one number for all of it, or one for each entry."""


class Scaling(Substitution):
    """w * factor in the forward and the backward pass; the weights themselves never change by it."""

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self._parameters = parameters
        self._factors: Factors = {}
        self._aside: dict[str, Tensor] = {}

    def put(self, factors: Factors) -> None:
        """From the next forward pass on."""
        self._factors = factors

    def cut(self, cut: Cutter) -> None:  # channels may be removed between a draw and its forward pass
        self._factors = {
            name: cut.tensor(name, factor) if isinstance(factor, Tensor) else factor
            for name, factor in self._factors.items()
        }

    @torch.no_grad()
    def before_forward(self) -> None:
        for name, factor in self._factors.items():
            self._aside[name] = self._parameters[name].detach().clone()
            self._parameters[name].mul_(factor)

    @torch.no_grad()
    def after_backward(self) -> None:
        for name, value in self._aside.items():
            parameter = self._parameters[name]
            parameter.copy_(value)
            if parameter.grad is not None:
                parameter.grad.mul_(self._factors[name])
        self._aside = {}


def factors(ctx: Context, weights: Sequence[str], outputs: Sequence[str], scale: float) -> Factors:
    """What makes the outputs of `weights` `scale` times as large.

    A batch norm takes the factor away again: with the weights in `outputs`, which are pruned by whole outputs, go the
    biases and batch norms that speak for them alone, whether in this draw anything of them is pruned or not.
    """
    found: dict[str, Tensor | float] = dict.fromkeys(weights, scale)
    gone = {name: torch.zeros_like(ctx.parameters[name], dtype=torch.bool) for name in outputs}
    for name, keep in companions(ctx, (), gone).items():
        if keep.dim() == 1:
            found[name] = torch.where(keep, 1.0, scale).to(ctx.parameters[name].device)
        elif name in companions(ctx, (), {other: mask for other, mask in gone.items() if other != name}):
            found.pop(name, None)  # a depthwise filter, whose input is that large already
    return found
