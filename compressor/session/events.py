"""The events of a run, called on the policies whose window is open."""

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from torch import Tensor

from compressor.context import Context
from compressor.errors import UserError
from compressor.policies.policy import BoundPolicy, Memory, Policy
from compressor.session.churn import Churn
from compressor.thinning import Cut
from compressor.timing import Clock

_OF_EPOCHS = ("before_epoch", "on_epoch_begin", "on_epoch_end")

State = dict[str, Any]


class Events:
    """All policies of a run, in the order of their calls, with their contexts and memories."""

    def __init__(
        self, policies: Sequence[BoundPolicy], ctx: Context, constants: dict[str, dict[str, Any]], churn: Churn
    ) -> None:
        self._churn = churn
        self._policies = sorted(policies, key=lambda bound: bound.policy.runs_last)
        self._clock = ctx.clock
        self._contexts: dict[str, Context] = {}
        self.memory: dict[str, Memory] = {}
        ctx.network.when_cut(self._cut)
        for bound in self._policies:
            own = constants.setdefault(bound.instance or bound.key, {})
            self._contexts[bound.key] = ctx.of(bound.key, bound.targets, own)
            self.memory[bound.key] = bound.policy.init(self._contexts[bound.key])
            churn.note(bound.key)

    def _cut(self, cut: Cut) -> None:
        for memory in self.memory.values():  # in place: a policy may hold its memory in the midst of an event
            for name, value in _state(memory).items():
                setattr(memory, name, cut.memory({name: value})[name])

    def _turn(self, bound: BoundPolicy) -> tuple[Policy, Context, Memory]:
        return bound.policy, self._contexts[bound.key], self.memory[bound.key]

    def _clock_of(self, policy: Policy) -> Clock:
        """The clock of its window: learning rates count from the origin, all else counts the run's epochs."""
        return self._clock.from_origin() if policy.sets_rates else self._clock

    def _acts_now(self, policy: Policy, event: str) -> bool:
        if policy.window.unit == "step" and event in _OF_EPOCHS:
            return False
        return self._clock_of(policy).active(policy.window)

    def fire(self, event: str) -> None:
        """Call one event of all policies whose window is open, with the entry and the exit of their windows."""
        for bound in self._policies:
            if not self._acts_now(bound.policy, event):
                continue
            policy, ctx, memory = self._turn(bound)
            if event == _entry(policy) and self._clock_of(policy).begins(policy.window):
                policy.on_enter(ctx, memory)
            getattr(policy, event)(ctx, memory)
            self._leave(policy, ctx, memory, event)
            self._churn.note(bound.key)

    def _leave(self, policy: Policy, ctx: Context, memory: Memory, event: str) -> None:
        window, clock = policy.window, self._clock_of(policy)
        if event == "on_minibatch_end" and clock.is_last_step(window):
            policy.on_last_step(ctx, memory)
            if window.unit == "step":
                policy.on_exit(ctx, memory, clock.run_ends(window))
        if event == "on_epoch_end" and clock.time(window) == window.last:
            policy.on_exit(ctx, memory, clock.run_ends(window))

    def reopen(self, planned: int) -> None:
        """Leave the windows that ended with a run of `planned` epochs, where it is trained on after them.

        They left as at the end of a run (`run_ends`), after which nothing follows; now something does.
        """
        steps = self._clock.steps_per_epoch
        ended = replace(self._clock, epochs=planned, epoch=planned - 1, step=max(steps - 1, 0))
        for bound in self._policies:
            policy, ctx, memory = self._turn(bound)
            clock = ended.from_origin() if policy.sets_rates else ended
            if clock.time(policy.window) == policy.window.last:
                policy.on_exit(ctx, memory, False)
                self._churn.note(bound.key)

    def active(self, event: str) -> Iterable[tuple[Policy, Context, Memory]]:
        """Yield the policies that handle an event now."""
        for bound in self._policies:
            overrides = getattr(type(bound.policy), event) is not getattr(Policy, event)
            if overrides and self._acts_now(bound.policy, event):
                yield self._turn(bound)

    def may_change_weights(self, event: str) -> bool:
        """Return whether a policy acts at an event now that sets more than learning rates."""
        for bound in self._policies:
            policy, clock = bound.policy, self._clock_of(bound.policy)
            if policy.sets_rates or not self._acts_now(policy, event):
                continue
            enters = event == _entry(policy) and clock.begins(policy.window)
            leaves = event == "on_minibatch_end" and clock.is_last_step(policy.window)
            if enters or leaves or getattr(type(policy), event) is not getattr(Policy, event):
                return True
        return False

    def before_backward_pass(self, loss: Tensor) -> Tensor:
        """Return the loss after every policy has added its part."""
        for policy, ctx, memory in self.active("before_backward_pass"):
            loss = policy.before_backward_pass(ctx, memory, loss)
        return loss

    def _of_epoch(self) -> Iterable[tuple[Policy, Context, Memory]]:
        """Yield the policies that act at any time of the current epoch."""
        touched = [bound for bound in self._policies if self._clock_of(bound.policy).touches(bound.policy.window)]
        return map(self._turn, touched)

    def losses(self) -> dict[str, float]:
        """Return the value of every active penalty, by component name."""
        values: dict[str, float] = {}
        for policy, ctx, memory in self._of_epoch():
            for name, value in policy.losses(ctx, memory).items():
                values[name] = values.get(name, 0.0) + value
        return values

    def figures(self) -> dict[str, dict[str, float]]:
        """Return the other figures of every active policy, by key."""
        found = {ctx.key: policy.figures(ctx, memory) for policy, ctx, memory in self._of_epoch()}
        return {key: figures for key, figures in found.items() if figures}

    def rate_factor(self) -> float:
        """Return the product of the factors of all active policies on the learning rates, in the current epoch."""
        return math.prod(policy.rate_factor(self._clock) for policy, _, _ in self._of_epoch())

    def settled(self) -> int:
        """Return the first epoch from which on no policy adds zeros; the last epoch where a window is never reached."""
        settled = max((bound.policy.settled(self._clock) for bound in self._policies), default=0)
        return min(settled, self._clock.epochs - 1)

    def shortfalls(self) -> list[str]:
        """Return a line for every target that was not reached."""
        return [line for turn in map(self._turn, self._policies) for line in turn[0].shortfalls(*turn[1:])]

    def state_dict(self) -> dict[str, State]:
        """Return every policy's memory, by key."""
        return {key: _state(memory) for key, memory in self.memory.items()}

    def load_state_dict(self, state: Mapping[str, State]) -> None:
        """Load saved memories. Raises `UserError` where they belong to other policies."""
        if set(state) != set(self.memory):
            raise UserError(
                f"written with other policies: the checkpoint has {sorted(state)}, the schedule {sorted(self.memory)}"
            )
        for bound in self._policies:
            policy, ctx, memory = self._turn(bound)
            saved, own = state[bound.key], set(_state(memory))
            if set(saved) != own:
                raise UserError(
                    f"{bound.key}: the checkpoint has the fields {sorted(saved)}, expected are {sorted(own)}"
                )
            for name, value in saved.items():
                setattr(memory, name, copy.deepcopy(value))
            policy.resume(ctx, memory)


def _entry(policy: Policy) -> str:
    """Return the event at which a policy's window is entered."""
    return "on_minibatch_begin" if policy.window.unit == "step" else policy.enters


def _state(memory: Memory) -> State:
    """Return what is saved of a memory: the values of its fields that are not derived from others."""
    return {field.name: getattr(memory, field.name) for field in fields(memory) if "derived" not in field.metadata}


def windows_past_end(clock: Clock, policies: Sequence[BoundPolicy]) -> list[str]:
    """Return a line for each window in steps that ends after the run."""
    return [
        f"warning: {bound.key} acts last in step {bound.policy.window.last}, but the run has {clock.steps} steps"
        for bound in policies
        if bound.policy.window.unit == "step" and bound.policy.window.last >= clock.steps
    ]
