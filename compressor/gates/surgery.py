"""Dynamic network surgery: Guo, Yao and Chen, NIPS 2016 (arXiv 1608.04493), as in the authors' code."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from compressor.component import Selects, Targets
from compressor.component import Weights as Selection
from compressor.gates.gate import Gate, Installed, Site
from compressor.sparsity import bias_of

LOW, HIGH = 0.9, 1.1


class NetworkSurgery(Gate, name="NetworkSurgery"):
    """Prune weights and biases at |w| <= 0.9 t and restore them at |w| > 1.1 t, while all of them are trained (Guo).

    t = max(mean + c std, 0) of |w| over the layer's non-zero weights and biases, once, at the first step. The mask of a
    layer is recomputed with probability (1 + gamma step)^-power in each step before `stop_step`, and is fixed then. The
    gradient with respect to the masked weights updates every weight, pruned ones too.
    """

    example: ClassVar[str] = """
    version: 2
    gates:
      surgery:
        class: NetworkSurgery
        weights: ['conv*.weight', 'fc*.weight']
        c: {'conv*.weight': 0.5, 'fc*.weight': 0.3}
        gamma: 0.1
        stop_step: 12
    policies:
      - {gate: {instance_name: surgery}}
    """
    makes_zeros: ClassVar[bool] = True

    weights: Selection = Field(
        description="weights that are pruned and restored, with their biases: a name, a glob, re:EXPRESSION,"
        " type:CLASS or '*', or a list of them"
    )
    c: Annotated[float | dict[str, float], Selects()] = Field(
        default=3.0,
        description="number of deviations above the mean |w| at which the threshold lies; one number, or one for"
        " each layer",
    )
    gamma: float = Field(
        default=1e-3,
        ge=0,
        description="how soon masks are recomputed less often: with probability (1 + gamma step)^-power in each step",
    )
    power: float = Field(default=1.0, ge=0, description="exponent of that probability; 0: at every step")
    stop_step: Annotated[int | dict[str, int], Selects()] = Field(
        default=10_000,
        description="optimizer step from which on the masks are fixed; one number, or one for each layer",
    )

    def misfits(self, targets: Targets, model: nn.Module) -> list[str]:
        given = [key for key in ("c", "stop_step") if isinstance(getattr(self, key), dict)]
        return [
            f"`{key}` has no value for {name}, one of its weights: add it"
            for key in given
            for name in targets["weights"]
            if name not in targets[key]
        ]

    def install(self, site: Site) -> "Surgery":
        return Surgery(self, site)


@dataclass
class _Layer:
    """A weight and its bias, their masks (int8: -1 keeps, 0 prunes), and the dense values during the two passes."""

    c: float
    stop: int
    parameters: dict[str, nn.Parameter]
    masks: dict[str, Tensor] = field(default_factory=dict)
    aside: dict[str, Tensor] = field(default_factory=dict)
    threshold: float | None = None
    placed: set[str] = field(default_factory=set)
    """Which parameters are masked now."""


class Surgery(Installed):
    """The installed network surgery of a network."""

    def __init__(self, gate: NetworkSurgery, site: Site) -> None:
        self._gate, self._site = gate, site
        self._layers: dict[str, _Layer] = {}
        for name in site.targets["weights"]:
            bias = bias_of(name)
            own = {key: site.parameters[key] for key in (name, bias) if key in site.parameters}
            self._layers[name] = _Layer(self._of("c", name), self._of("stop_step", name), own)
            for key, parameter in own.items():
                self._layers[name].masks[key] = torch.full_like(parameter, -1, dtype=torch.int8)

    def _of(self, field_name: str, name: str) -> Any:
        value = getattr(self._gate, field_name)
        return self._site.targets[field_name][name] if isinstance(value, dict) else value

    @torch.no_grad()
    def before_forward(self) -> None:
        step = self._site.clock()
        probability = (1 + self._gate.gamma * step) ** -self._gate.power
        for layer in self._layers.values():
            if layer.threshold is None:
                layer.threshold = _threshold(layer)
            # The draw is made in any case, so that one layer's end does not shift the others' draws.
            draw = float(torch.rand(()))
            operates = step < layer.stop and draw < probability
            for key, parameter in layer.parameters.items():
                # Masked values are written to memory of their own, which stands in the parameter's place: no copies.
                masked = layer.aside.get(key)
                if masked is None or masked.shape != parameter.shape:
                    masked = torch.empty_like(parameter)
                dense = parameter.detach()
                if operates:
                    _operate(layer.masks[key], torch.abs(dense, out=masked), layer.threshold)
                torch.bitwise_and(_bits(dense), layer.masks[key], out=_bits(masked))
                parameter.data, layer.aside[key] = masked, dense
                layer.placed.add(key)

    @torch.no_grad()
    def after_backward(self) -> None:
        for layer in self._layers.values():
            for key in layer.placed:
                parameter = layer.parameters[key]
                parameter.data, layer.aside[key] = layer.aside[key], parameter.detach()
            layer.placed.clear()

    @torch.no_grad()
    def fold(self) -> dict[str, Tensor]:
        folded = {}
        for layer in self._layers.values():
            for key, parameter in layer.parameters.items():
                folded[key] = parameter.detach().clone()
                _mask(folded[key], layer.masks[key])
        return folded

    def keeps(self) -> dict[str, Tensor]:
        return {key: mask.bool() for layer in self._layers.values() for key, mask in layer.masks.items()}

    def figures(self) -> dict[str, float]:
        every = [mask for layer in self._layers.values() for mask in layer.masks.values()]
        return {"kept": sum(int(mask.count_nonzero()) for mask in every), "of": sum(mask.numel() for mask in every)}

    def state(self) -> dict[str, Any]:
        return {
            "masks": {key: mask for layer in self._layers.values() for key, mask in layer.masks.items()},
            "thresholds": {name: layer.threshold for name, layer in self._layers.items()},
        }

    @torch.no_grad()
    def load(self, state: Mapping[str, Any]) -> None:
        for name, layer in self._layers.items():
            layer.threshold = state["thresholds"][name]
            for key, mask in layer.masks.items():
                mask.copy_(state["masks"][key])


def _threshold(layer: _Layer) -> float:
    """Return max(mean + c std, 0) of |w| over the non-zero weights and biases of a layer; std over n, as in the
    authors' code.
    """
    every = torch.cat([parameter.detach().flatten() for parameter in layer.parameters.values()])
    magnitude = every[every != 0].abs()
    if magnitude.numel() == 0:
        return 0.0
    return max(float(magnitude.mean()) + layer.c * float(magnitude.std(correction=0)), 0.0)


def _operate(mask: Tensor, magnitude: Tensor, threshold: float) -> None:
    """Set the mask to 0 where |w| <= low, to -1 where |w| > high; in between it stays."""
    mask.bitwise_or_(_above(magnitude, HIGH * threshold))
    mask.bitwise_and_(_above(magnitude, LOW * threshold))


def _above(magnitude: Tensor, bound: float) -> Tensor:
    """Return -1 where it is above, else 0, as int8."""
    if magnitude.device.type != "cpu":
        return torch.gt(magnitude, bound).view(torch.int8).neg_()
    # NumPy compares four times as fast as torch on a CPU; the bound as a number of the weights' own kind.
    values = magnitude.numpy()
    return torch.from_numpy(np.greater(values, values.dtype.type(bound)).view(np.int8)).neg_()


def _bits(weight: Tensor) -> Tensor:
    return weight.detach().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[weight.element_size()])


def _mask(weight: Tensor, mask: Tensor) -> None:
    _bits(weight).bitwise_and_(mask)
