"""Sets the learning rate at the end of each of its epochs (or steps), for the next one."""

import math
from typing import ClassVar, Literal, Self

from pydantic import model_validator

from compressor.errors import UserError
from compressor.policies.lr_schedulers import LRScheduler, PureScheduler, Rates, ReduceLROnPlateau, Simulation
from compressor.policies.policy import Context, Memory, Policy


class LRPolicy(Policy, name="lr_scheduler"):
    """A learning-rate schedule while the window fires; the rate it left stays in force afterwards.

    As in Distiller the schedule is stepped at the end of an epoch: after epoch e the rate is the schedule's value at
    e + 1. With `origin: absolute` (version 1) time is the run's epoch, wherever the window begins; with `origin: start`
    (version 2) it counts from the window's first epoch. With `interval: step` the schedule's time is optimizer steps.
    """

    component: ClassVar[str | None] = "lr_schedulers"
    runs_last: ClassVar[bool] = True

    lr_scheduler: LRScheduler
    origin: Literal["absolute", "start"] = "absolute"
    interval: Literal["epoch", "step"] = "epoch"

    @model_validator(mode="after")
    def _one_clock(self) -> Self:
        if self.window.unit == "step" and self.interval == "epoch":
            raise ValueError("a window in steps needs `interval: step`")
        if isinstance(self.lr_scheduler, ReduceLROnPlateau) and self.interval == "step":
            raise ValueError("ReduceLROnPlateau watches validation, once an epoch: it takes no `interval: step`")
        return self

    def clock(self, ctx: Context) -> int:
        """The schedule's own time, now."""
        return (ctx.full_step if self.interval == "step" else ctx.epoch) - self._since(ctx)

    def _since(self, ctx: Context) -> int:
        """The time at which the schedule counts 0."""
        if self.origin == "absolute":
            return 0
        by_epoch = self.window.unit == "epoch" and self.interval == "step"
        steps = ctx.steps_per_epoch if by_epoch else 1
        return math.floor(self.window.first * steps * (ctx.pace if self.interval == "step" else 1))

    def init(self, ctx: Context, memory: Memory) -> None:
        if isinstance(self.lr_scheduler, ReduceLROnPlateau):
            memory["plateau"] = self.lr_scheduler.build(ctx.optimizer).state_dict()

    def on_minibatch_begin(self, ctx: Context, memory: Memory) -> None:
        first = ctx.time(self.window) == self.window.first and (self.window.unit == "step" or ctx.step == 0)
        if first and self.clock(ctx) == 0:
            self._set(ctx, memory, 0)

    def on_minibatch_end(self, ctx: Context, memory: Memory) -> None:
        if self.interval == "step":
            ahead = math.floor((ctx.global_step + 1) * ctx.pace) - ctx.full_step
            self._set(ctx, memory, self.clock(ctx) + ahead)

    def on_epoch_end(self, ctx: Context, memory: Memory) -> None:
        if isinstance(self.lr_scheduler, ReduceLROnPlateau):
            self._plateau(self.lr_scheduler, ctx, memory)
        elif self.interval == "epoch":
            self._set(ctx, memory, self.clock(ctx) + 1)

    def _set(self, ctx: Context, memory: Memory, time: int) -> None:
        if not isinstance(self.lr_scheduler, PureScheduler):
            return
        simulation = ctx.cache.get(memory["owner"])
        if simulation is None:
            simulation = ctx.cache[memory["owner"]] = Simulation(self.lr_scheduler, ctx.optimizer)
        rates: Rates = simulation.at(time)
        for group, decided in zip(ctx.optimizer.param_groups, rates, strict=True):
            group.update(decided)

    def _plateau(self, plateau: ReduceLROnPlateau, ctx: Context, memory: Memory) -> None:
        if plateau.metric not in ctx.validation:
            raise UserError(f"{memory['owner']}: ReduceLROnPlateau needs a validation split (data.validation is 0)")
        scheduler = plateau.build(ctx.optimizer)
        scheduler.load_state_dict(memory["plateau"])
        scheduler.step(ctx.validation[plateau.metric])
        memory["plateau"] = scheduler.state_dict()
