"""Weights that are multiplied by a number in the forward pass, as the survivors of a random mask are."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from compressor.sparsity.substitution import Substitution


class Scaling(Substitution):
    """w * scale in the forward and the backward pass; the weights themselves never change by it."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._parameters = parameters
        self._names: list[str] = []
        self._scale = 1.0
        self._aside: dict[str, Tensor] = {}

    def put(self, names: Iterable[str], scale: float) -> None:
        """From the next forward pass on."""
        self._names, self._scale = list(names), scale

    @torch.no_grad()
    def before_forward(self) -> None:
        for name in self._names:
            self._aside[name] = self._parameters[name].detach().clone()
            self._parameters[name].mul_(self._scale)

    @torch.no_grad()
    def after_backward(self) -> None:
        for name, value in self._aside.items():
            parameter = self._parameters[name]
            parameter.copy_(value)
            if parameter.grad is not None:
                parameter.grad.mul_(self._scale)
        self._aside = {}
