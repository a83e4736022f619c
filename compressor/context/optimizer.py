"""The optimizer of a run, for policies: learning rates, groups, and state."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from compressor.sparsity import map_pieces
from compressor.thinning import Cut

Groups = Sequence[Mapping[str, Any]]
"""Parameter groups, or their settings before there are parameters: lr, momentum ..."""


def steps_by_entry(groups: Groups) -> bool:
    """Return whether the optimizer has a step size of its own for each entry of a parameter (Adam)."""
    return any("betas" in group for group in groups)


class OptimizerView:
    """An optimizer whose learning rates policies may scale, whose parameters they may regroup, whose state they may
    clear.
    """

    def __init__(self, optimizer: Optimizer, parameters: Mapping[str, nn.Parameter]) -> None:
        self.optimizer = optimizer
        for group in optimizer.param_groups:  # the rate that schedules start from, as torch's own note it
            group.setdefault("initial_lr", group["lr"])
        self.scales: dict[str, float] = {}
        """Factors on every learning rate, by owner; updated at each of the owner's steps."""
        self.unmoved: set[str] = set()
        """Parameters without a gradient in this step: the optimizer leaves them alone, and so must all others."""
        self.clipped: float | Tensor = 1.0
        """The factor by which clipping has multiplied the gradients of this step."""
        self.skips = False
        """Whether this step of the optimizer is skipped: all gradients are set to None."""
        self._parameters = parameters
        self._group_of: dict[int, dict[str, Any]] = {}

    @property
    def groups(self) -> list[dict[str, Any]]:
        """Return the parameter groups themselves."""
        return self.optimizer.param_groups

    @property
    def scale(self) -> float:
        """Return the product of all factors on the learning rates."""
        return math.prod(self.scales.values())

    @property
    def has_proximal_step(self) -> bool:
        """Return whether the step size of a proximal step is known."""
        return isinstance(self.optimizer, SGD | Adam)

    def proximal_step(self, parameter: Tensor) -> float | Tensor:
        """Return the step size t of a proximal step after the optimizer's: one number, or one for each entry (Adam).

        After clipping on an accelerator one number is a tensor, too: the host does not wait for the norm.

        A weight must rest where w = prox(w - t g), the minimum of loss + penalty. There the gradient g is constant:

        - SGD's buffer has become (1 - dampening) / (1 - momentum) g; Nesterov's step, which has no dampening, is
          g + momentum g / (1 - momentum), the same. So t = lr (1 - dampening) / (1 - momentum). Without momentum SGD
          ignores dampening: t = lr.
        - Adam's first moment, bias-corrected, is a mean: it has become g. So t = lr / (sqrt(v_hat) + eps) by entry.

        Clipping multiplies g by a factor in the optimizer's step, and so it does t. Weight decay is part of g; AdamW's
        acts beside the step.
        """
        if not self._group_of:
            self._group_of = {id(p): group for group in self.groups for p in group["params"]}
        group = self._group_of[id(parameter)]
        rate = float(group["lr"]) * self.scale * self._clipped()
        if not steps_by_entry([group]):
            momentum = float(group["momentum"])
            return rate * (1 - float(group["dampening"])) / (1 - momentum) if momentum else rate
        state = self.optimizer.state[parameter]
        second = state["max_exp_avg_sq"] if group["amsgrad"] else state["exp_avg_sq"]
        correction, eps = 1 - float(group["betas"][1]) ** float(state["step"]), float(group["eps"])
        return map_pieces(lambda part: (part / correction).sqrt_().add_(eps).reciprocal_().mul_(rate), second)

    def _clipped(self) -> float | Tensor:
        """Return the factor of clipping: a number on a CPU; elsewhere a tensor of the precision that a number has."""
        clipped = self.clipped
        return clipped.double() if isinstance(clipped, Tensor) and clipped.device.type != "cpu" else float(clipped)

    def regroup(self, parameters: Sequence[nn.Parameter], **changed: Any) -> None:
        """Move parameters (new or known to the optimizer) to a group of their own: a copy of the first with some
        changes.

        To be called in `init` only, so that a resumed run has the same groups.
        """
        mine = {id(parameter) for parameter in parameters}
        for group in self.groups:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in mine]
        first = {key: value for key, value in self.groups[0].items() if key != "params"}
        if "lr" in changed:
            changed["initial_lr"] = changed["lr"]
        self.optimizer.add_param_group({**first, **changed, "params": list(parameters)})
        self._group_of = {}

    def forget(self, parameters: Sequence[nn.Parameter]) -> None:
        """Delete the optimizer's state of parameters in whose place other tensors are trained."""
        for parameter in parameters:
            self.optimizer.state.pop(parameter, None)

    def clear(self) -> None:
        """Delete the optimizer's state of all parameters: momentum, moments, counts."""
        self.optimizer.state.clear()

    @torch.no_grad()
    def reset(self, name: str, index: Tensor) -> None:
        """Set the optimizer's state of some entries of a weight to 0; `index` is boolean, true = reset."""
        parameter = self._parameters[name]
        state = self.optimizer.state.get(parameter, {})
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[key] = value.masked_fill(index.to(value.device), 0)  # a new tensor: `Undo` has the old one

    def state_of(self, name: str) -> Mapping[str, Any]:
        """Return the optimizer's state of a weight, by the optimizer's names: momentum_buffer, exp_avg ..."""
        found: Mapping[str, Any] = self.optimizer.state.get(self._parameters[name], {})
        return found

    def skip_step(self) -> None:
        """Skip this step of the optimizer: no parameter is updated."""
        self.skips = True

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state of the optimizer, which has new groups then."""
        self.optimizer.load_state_dict(dict(state))
        self._group_of = {}

    def cut(self, cut: Cut) -> None:
        """Remove channels from the optimizer's state."""
        cut.optimizer(self.optimizer, self._parameters.items())
        self._group_of = {}
