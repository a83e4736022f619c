"""Polyak averaging of the weights (Polyak and Juditsky 1992), bias-corrected as in Louizos et al. 2018."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from compressor.sparsity import Masks
from compressor.thinning import Cut


class Averages:
    """Running averages: average <- d * average + (1 - d) * value, from 0 on; the value used is average / (1 - d^t).

    Averaged are the parameters, the floating-point buffers (batch-norm statistics), and the tensors named in `also`,
    which belong to no module. The masks are applied to the averages, too.
    """

    def __init__(self, model: nn.Module, masks: Masks, decay: float) -> None:
        self._model, self._decay, self._masks, self._steps = model, decay, masks, 0
        self._more: dict[str, Tensor] = {}
        self._live = self._find()
        self._average = {name: torch.zeros_like(tensor) for name, tensor in self._live.items()}

    def _find(self) -> dict[str, Tensor]:
        own = {name: tensor.detach() for name, tensor in self._model.state_dict(keep_vars=True).items()}
        return {name: tensor for name, tensor in {**own, **self._more}.items() if tensor.is_floating_point()}

    def also(self, name: str, tensor: Tensor) -> None:
        """Average a tensor that belongs to no module, too."""
        self._more[name] = tensor.detach()
        self._live[name] = self._more[name]
        self._average[name] = torch.zeros_like(tensor)

    @torch.no_grad()
    def update(self) -> None:
        """Add the weights after a step and its masks to the averages."""
        self._steps += 1
        averages, values = list(self._average.values()), list(self._live.values())
        torch._foreach_lerp_(averages, values, 1 - self._decay)
        self._masks.zero(self._average, forward=False)

    @torch.no_grad()
    def restart(self, names: Sequence[str]) -> None:
        """Restart the averages of some weights from their present values, where the weights were replaced."""
        correction = 1 - self._decay**self._steps
        for name in names:
            self._average[name].copy_(self._live[name] * correction)

    def cut(self, cut: Cut) -> None:
        """Remove from the averages the channels that were removed from the model."""
        self._live = self._find()
        self._average = {name: cut.tensor(name, tensor) for name, tensor in self._average.items()}

    @contextmanager
    def averaged(self) -> Iterator[dict[str, Tensor]]:
        """Put the averages, masked, into the model inside the block; yield the values that are restored at its end."""
        aside = {name: tensor.detach().clone() for name, tensor in self._live.items()}
        correction = 1 - self._decay**self._steps
        with torch.no_grad():
            for name, tensor in self._live.items():
                if self._steps:
                    tensor.copy_(self._average[name] / correction)
            self._masks.zero(self._live, forward=True)
        try:
            yield aside
        finally:
            with torch.no_grad():
                for name, tensor in self._live.items():
                    tensor.copy_(aside[name])

    def state_dict(self) -> dict[str, Any]:
        """Return the running sums and the number of steps."""
        return {"average": dict(self._average), "steps": self._steps}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load saved averages."""
        self._live = self._find()
        saved = state["average"]
        self._average = {name: saved[name].to(self._live[name].device, copy=True) for name in self._average}
        self._steps = int(state["steps"])
