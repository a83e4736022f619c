"""Sets the learning rate at the end of each of its epochs, for the next one."""

from typing import ClassVar, Literal

from compressor.errors import UserError
from compressor.policies.lr_schedulers import LRScheduler, PureScheduler, Rates, ReduceLROnPlateau, Simulation
from compressor.policies.policy import Context, Memory, Policy


class LRPolicy(Policy, name="lr_scheduler"):
    """A learning-rate schedule while the window fires; the rate it left stays in force afterwards.

    As in Distiller the schedule is stepped at the end of an epoch: after epoch e the rate is the schedule's value at
    e + 1. With `origin: absolute` (version 1) time is the run's epoch, wherever the window begins; with `origin: start`
    (version 2) it counts from the window's first epoch.
    """

    component: ClassVar[str | None] = "lr_schedulers"
    runs_last: ClassVar[bool] = True

    lr_scheduler: LRScheduler
    origin: Literal["absolute", "start"] = "absolute"

    def _time(self, epoch: int) -> int:
        return epoch if self.origin == "absolute" else epoch - self.window.first

    def init(self, ctx: Context, memory: Memory) -> None:
        if isinstance(self.lr_scheduler, ReduceLROnPlateau):
            memory["plateau"] = self.lr_scheduler.build(ctx.optimizer).state_dict()

    def on_epoch_begin(self, ctx: Context, memory: Memory) -> None:
        if ctx.epoch == self.window.first and self._time(ctx.epoch) == 0:
            self._set(ctx, memory, 0)

    def on_epoch_end(self, ctx: Context, memory: Memory) -> None:
        if isinstance(self.lr_scheduler, ReduceLROnPlateau):
            self._plateau(self.lr_scheduler, ctx, memory)
        else:
            self._set(ctx, memory, self._time(ctx.epoch + 1))

    def _set(self, ctx: Context, memory: Memory, time: int) -> None:
        if not isinstance(self.lr_scheduler, PureScheduler):
            return
        simulation = ctx.cache.setdefault(memory["owner"], Simulation(self.lr_scheduler, ctx.optimizer))
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
