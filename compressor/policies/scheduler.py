"""Fires the loop's events at the policies whose window is open."""

import copy
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from compressor.errors import UserError
from compressor.policies.policy import BoundPolicy, Context, Memory, Policy
from compressor.rates.window import Window
from compressor.thinning.cutting import Cut


class Scheduler:
    """All policies of a run, in firing order, with their memories."""

    def __init__(self, policies: Sequence[BoundPolicy], ctx: Context) -> None:
        self.ctx = ctx
        self._policies = sorted(policies, key=lambda bound: bound.policy.runs_last)
        self.memory: dict[str, Memory] = {}
        ctx.followers.append(self._cut)
        for bound in self._policies:
            targets = copy.deepcopy(dict(bound.targets))
            memory: Memory = {"owner": bound.key, "instance": bound.instance or bound.key, "targets": targets}
            bound.policy.init(ctx, memory)
            self.memory[bound.key] = memory

    def _cut(self, cut: Cut) -> None:
        for memory in self.memory.values():  # in place: a policy may hold its memory in the midst of an event
            memory.update(cut.memory(memory))

    def _active(self, event: str) -> Iterable[tuple[Policy, Memory]]:
        for bound in self._policies:
            overrides = getattr(type(bound.policy), event) is not getattr(Policy, event)
            if overrides and self._is_open(bound.policy.window, event):
                yield bound.policy, self.memory[bound.key]

    def _is_open(self, window: Window, event: str) -> bool:
        if window.unit == "epoch":
            return window.fires(self.ctx.epoch)
        if event in ("before_epoch", "on_epoch_begin", "on_epoch_end"):
            return False
        if event in ("losses", "figures"):  # asked once an epoch: was any of its steps in the window?
            first = self.ctx.epoch * self.ctx.steps_per_epoch
            return window.first < first + self.ctx.steps_per_epoch and window.last >= first
        return window.fires(self.ctx.global_step)

    def _fire(self, event: str) -> None:
        for policy, memory in self._active(event):
            getattr(policy, event)(self.ctx, memory)

    def on_epoch_begin(self) -> None:
        """Before the first mini-batch of an epoch."""
        self._fire("before_epoch")
        self._fire("on_epoch_begin")

    def on_minibatch_begin(self) -> None:
        """Before the forward pass."""
        self.ctx.frozen.clear()
        self._fire("on_minibatch_begin")

    def before_backward_pass(self, loss: Tensor) -> Tensor:
        """The loss after every policy has added its part."""
        for policy, memory in self._active("before_backward_pass"):
            loss = policy.before_backward_pass(self.ctx, memory, loss)
        return loss

    def penalty_gradients(self) -> None:
        """After the backward pass."""
        self._fire("penalty_gradients")

    def before_parameter_optimization(self) -> None:
        """Before the optimizer's step."""
        self._fire("before_parameter_optimization")

    def on_minibatch_end(self) -> None:
        """After the optimizer's step and the masks."""
        self._fire("on_minibatch_end")

    def on_epoch_end(self) -> None:
        """After validation."""
        self._fire("on_epoch_end")

    def losses(self) -> dict[str, float]:
        """The value of every active penalty, by component name."""
        values: dict[str, float] = {}
        for policy, memory in self._active("losses"):
            for name, value in policy.losses(self.ctx, memory).items():
                values[name] = values.get(name, 0.0) + value
        return values

    def figures(self) -> dict[str, dict[str, float]]:
        """What else every active policy has to say, by key."""
        found = {memory["owner"]: policy.figures(self.ctx, memory) for policy, memory in self._active("figures")}
        return {key: figures for key, figures in found.items() if figures}

    def settled(self) -> int:
        """The first epoch from which on no policy adds zeros; the last epoch where a window is never reached."""
        settled = max((bound.policy.settled(self.ctx) for bound in self._policies), default=0)
        return min(settled, self.ctx.epochs - 1)

    def shortfalls(self) -> list[str]:
        """Every target that was not reached."""
        return [line for bound in self._policies for line in bound.policy.shortfalls(self.ctx, self.memory[bound.key])]

    def state_dict(self) -> dict[str, Memory]:
        """Every policy's memory, by key."""
        return self.memory

    def load_state_dict(self, state: Mapping[str, Memory]) -> None:
        """Take over saved memories; raises `UserError` where they belong to other policies."""
        if set(state) != set(self.memory):
            raise UserError(
                f"written under other policies: the checkpoint has {sorted(state)}, the schedule {sorted(self.memory)}"
            )
        self.memory = {key: copy.deepcopy(dict(memory)) for key, memory in state.items()}
        for bound in self._policies:
            bound.policy.resume(self.ctx, self.memory[bound.key])
