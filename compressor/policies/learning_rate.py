"""The learning rate, set at the end of each epoch (or step) of a window for the next one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from compressor.context import Groups
from compressor.errors import CompressError, UserError
from compressor.learning_rates import LRScheduler, PureScheduler, ReduceLROnPlateau, rates_at
from compressor.policies.policy import Context, Finding, Memory, Moment, Policy, Rates, View
from compressor.timing import Clock, Window

MOST_STEPS = 20_000
"""The largest number of steps of a schedule that is tried before a run."""


@dataclass
class Plateau(Memory):
    """The state of torch's ReduceLROnPlateau; empty for other schedules."""

    plateau: dict[str, Any] = field(default_factory=dict)
    origin: int = 0


class LRPolicy(Policy, name="lr_scheduler"):
    """Follow a learning-rate schedule in the window; its last rate stays afterwards.

    As in Distiller the schedule advances at the end of an epoch: after epoch e the rate is the schedule's value at e +
    1. With `origin: absolute` (version 1) time is the run's epoch, wherever the window begins; with `origin: start`
    (version 2) it counts from the window's first epoch. With `interval: step` the schedule's time is optimizer steps. A
    schedule that names its own rates (CyclicLR, OneCycleLR) holds from the window's first step on.
    """

    component: ClassVar[str | None] = "lr_schedulers"
    runs_last: ClassVar[bool] = True
    enters: ClassVar[Literal["before_epoch", "on_epoch_begin", "on_minibatch_begin"]] = "on_minibatch_begin"
    sets_rates: ClassVar[bool] = True

    lr_scheduler: LRScheduler = Field(description="the schedule that is followed: a component of `lr_schedulers`")
    origin: Literal["absolute", "start"] = Field(
        default="absolute",
        description="where the schedule's time is 0; absolute: the run's beginning (default in version 1); start:"
        " the window's (default in version 2)",
    )
    interval: Literal["epoch", "step"] = Field(
        default="epoch", description="unit of the schedule's time: epochs, or optimizer steps"
    )

    @model_validator(mode="after")
    def _one_clock(self) -> Self:
        if self.window.unit == "step" and self.interval == "epoch":
            raise ValueError("a window in steps needs `interval: step`")
        if isinstance(self.lr_scheduler, ReduceLROnPlateau) and self.interval == "step":
            raise ValueError("ReduceLROnPlateau uses validation, once an epoch: remove `interval: step`")
        return self

    def normal(self, removals: Sequence[Window]) -> Self:
        counts = self.window.first > 0 and isinstance(self.lr_scheduler, PureScheduler)
        return self if counts else self.model_copy(update={"origin": "start"})

    @property
    def counts_steps(self) -> bool:
        return self.interval == "step"

    @property
    def needs_validation(self) -> bool:
        return isinstance(self.lr_scheduler, ReduceLROnPlateau)

    def _time(self, clock: Clock, ahead: int = 0) -> int:
        """Return the schedule's own time now, or `ahead` steps (epochs) later."""
        own = clock.from_origin()
        if self.interval == "step":
            return own.full_step(ahead) - self._since(own)
        return own.epoch + ahead - self._since(own)

    def _since(self, clock: Clock) -> int:
        """Return the time at which the schedule counts 0."""
        if self.origin == "absolute":
            return 0
        if self.interval == "epoch":
            return self.window.first
        steps = 1 if self.window.unit == "step" else clock.steps_per_epoch
        return math.floor(self.window.first * steps * clock.pace)

    def check(self, view: View) -> list[Finding]:
        """Return whether some rate of the window is not finite; of a long run only the first steps are tried."""
        if not isinstance(self.lr_scheduler, PureScheduler) or not view.opens or not view.groups:
            return []
        steps = 1 if self.interval == "epoch" else view.steps
        if steps is None:
            return []
        clock = Clock(view.epochs, steps)
        end = min(self.window.last + 1, clock.end(self.window))
        clock.epoch, clock.step = divmod(end if self.window.unit == "step" else end * steps, steps)
        try:
            rates_at(self.lr_scheduler, view.groups, min(max(self._time(clock), 0), MOST_STEPS))
        except CompressError as error:
            return [Finding("error", f"{view.key}: {error}")]
        return []

    def learning_rates(self, clock: Clock, moment: Moment, groups: Groups) -> Rates | None:
        if not isinstance(self.lr_scheduler, PureScheduler):
            return None
        if moment == "enter":
            now = self._time(clock)
            return rates_at(self.lr_scheduler, groups, now) if now == 0 or self.lr_scheduler.own_rates else None
        return rates_at(self.lr_scheduler, groups, self._time(clock, 1)) if moment == self.interval else None

    def jump(self, clock: Clock, groups: Groups) -> str | None:
        if not isinstance(self.lr_scheduler, PureScheduler):
            return None
        now = self._time(clock)
        before = float(groups[0]["lr"])
        first = now if now == 0 or self.lr_scheduler.own_rates else now + 1
        own, after = (float(rates_at(self.lr_scheduler, groups, at)[0]["lr"]) for at in (now, first))
        if abs(own - before) <= 1e-6 * max(abs(own), abs(before)):
            return None
        when = f"starts in {self.window.unit} {self.window.first}"
        if self.origin == "absolute":
            when += " and counts from the run's beginning (`args: {origin: start}`: from its own beginning)"
        return f"{when}: the learning rate jumps from {before:g} to {after:g}"

    def init(self, ctx: Context) -> Plateau:
        memory = Plateau()
        if isinstance(self.lr_scheduler, ReduceLROnPlateau):
            memory.plateau = self.lr_scheduler.build(ctx.optimizer.optimizer).state_dict()
        return memory

    def on_enter(self, ctx: Context, memory: Plateau) -> None:
        self._set(ctx, "enter")

    def on_minibatch_begin(self, ctx: Context, memory: Plateau) -> None:
        if memory.origin == ctx.clock.origin:
            return
        # The run was rewound: the rate in force was set for another time.
        memory.origin, now = ctx.clock.origin, self._time(ctx.clock)
        if isinstance(self.lr_scheduler, PureScheduler):
            self._put(ctx, rates_at(self.lr_scheduler, ctx.optimizer.groups, now))

    def on_minibatch_end(self, ctx: Context, memory: Plateau) -> None:
        self._set(ctx, "step")

    def on_epoch_end(self, ctx: Context, memory: Plateau) -> None:
        if isinstance(self.lr_scheduler, ReduceLROnPlateau):
            self._plateau(self.lr_scheduler, ctx, memory)
        self._set(ctx, "epoch")

    def _set(self, ctx: Context, moment: Moment) -> None:
        rates = self.learning_rates(ctx.clock, moment, ctx.optimizer.groups)
        if rates is not None:
            self._put(ctx, rates)

    def _put(self, ctx: Context, rates: Rates) -> None:
        for group, decided in zip(ctx.optimizer.groups, rates, strict=True):
            group.update(decided)

    def _plateau(self, plateau: ReduceLROnPlateau, ctx: Context, memory: Plateau) -> None:
        if plateau.watched not in ctx.data.validation:
            raise UserError(f"{ctx.key}: ReduceLROnPlateau needs validation images (data.validation is 0)")
        scheduler = plateau.build(ctx.optimizer.optimizer)
        scheduler.load_state_dict(memory.plateau)
        scheduler.step(ctx.data.validation[plateau.watched])
        memory.plateau = scheduler.state_dict()
