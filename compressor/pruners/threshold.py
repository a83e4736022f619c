"""Pruning by magnitude below a threshold: a number, or a multiple of the weights' standard deviation."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from compressor.component import Selects, Targets
from compressor.pruners.pruner import Asked, PrunerBase, Scope
from compressor.rates.window import Window

Threshold = Annotated[float, Field(ge=0)]


class MagnitudeParameterPruner(PrunerBase, name="MagnitudeParameterPruner"):
    """Keeps the weights with |w| > threshold (Distiller)."""

    example: ClassVar[str] = """
    pruners:
      small: {class: MagnitudeParameterPruner, thresholds: {'*': 0.01, conv1.weight: 0.02}}
    policies:
      - {pruner: {instance_name: small}, starting_epoch: 0, ending_epoch: 10}
    """

    thresholds: Annotated[dict[str, Threshold], Selects()] = Field(min_length=1)

    def threshold(self, targets: Targets, window: Window, time: int) -> str:
        return ", ".join(sorted({f"{value:g}" for value in targets["thresholds"].values()}))

    def keep(self, asked: Asked) -> dict[str, Tensor]:
        thresholds = asked.targets["thresholds"].items()
        return {name: asked.weights[name].detach().abs() > value for name, value in thresholds}


class SensitivityPruner(PrunerBase, name="SensitivityPruner"):
    """Keeps |w| > s * std(w), the deviation taken once, when the pruner is first asked (Han et al. 2015; Distiller).

    With `scope: global` the deviation is that of all the weights together.
    """

    example: ClassVar[str] = """
    pruners:
      sensitivity: {class: SensitivityPruner, sensitivities: {conv1.weight: 0.25, 'fc*.weight': 0.5}}
    policies:
      - {pruner: {instance_name: sensitivity}, starting_epoch: 0, ending_epoch: 10, frequency: 2}
    """

    scope: Scope = "layer"
    sensitivities: Annotated[dict[str, Threshold], Selects()] = Field(min_length=1)

    def threshold(self, targets: Targets, window: Window, time: int) -> str:
        return ", ".join(sorted({f"{value:g} std" for value in targets["sensitivities"].values()}))

    def keep(self, asked: Asked) -> dict[str, Tensor]:
        return keep_above_deviation(asked, asked.targets["sensitivities"], self.scope)


def keep_above_deviation(asked: Asked, factors: Mapping[str, float], scope: Scope) -> dict[str, Tensor]:
    """|w| > factor * std(w); the deviation (of each weight, or of all together) is taken once and remembered."""
    weights, memory = asked.weights, asked.memory
    if not memory and scope == "global":
        together = torch.cat([weights[name].detach().flatten() for name in factors])
        memory.update(dict.fromkeys(factors, float(together.std())))
    for name in factors:
        if name not in memory:
            memory[name] = float(weights[name].detach().std())
    return {name: weights[name].detach().abs() > factor * memory[name] for name, factor in factors.items()}
