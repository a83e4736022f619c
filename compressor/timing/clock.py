"""The clock of a run: epochs and optimizer steps, counted from 0."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compressor.timing.window import Window


@dataclass
class Clock:
    """The current time of a run: step `step` of epoch `epoch`, of `epochs` epochs of `steps_per_epoch` optimizer steps.

    `origin` is the epoch from which the order of the data, the draws and the learning rates count; all else counts the
    run's epochs. Setting it back (to repeat earlier epochs) does not change the windows of other policies. `pace` is
    the number of steps of the full run that one step stands for: more than 1 in a smoke run.
    """

    epochs: int
    steps_per_epoch: int
    epoch: int = 0
    step: int = 0
    origin: int = 0
    pace: float = 1.0

    @property
    def global_step(self) -> int:
        """Return the number of optimizer steps before the current one."""
        return self.epoch * self.steps_per_epoch + self.step

    @property
    def steps(self) -> int:
        """Return the number of optimizer steps of the run."""
        return self.epochs * self.steps_per_epoch

    @property
    def data_epoch(self) -> int:
        """Return the number of epochs since the origin: the order of the data and the draws depend on it."""
        return self.epoch - self.origin

    def from_origin(self) -> "Clock":
        """Return the clock that counts from the origin, as learning rates do."""
        epochs, epoch = self.epochs - self.origin, self.epoch - self.origin
        return Clock(epochs, self.steps_per_epoch, epoch, self.step, pace=self.pace)

    def full_step(self, ahead: int = 0) -> int:
        """Return the number of steps of the full run before the current step, or before `ahead` steps later."""
        return math.floor((self.global_step + ahead) * self.pace)

    def time(self, window: Window) -> int:
        """Return the time now in the window's unit."""
        return self.epoch if window.unit == "epoch" else self.global_step

    def end(self, window: Window) -> int:
        """Return the first time after the run in the window's unit."""
        return self.epochs if window.unit == "epoch" else self.steps

    def epoch_of(self, window: Window, time: int) -> int:
        """Return the epoch in which a time of the window lies."""
        return time if window.unit == "epoch" else time // max(self.steps_per_epoch, 1)

    def active(self, window: Window) -> bool:
        """Return whether the policy of the window acts now."""
        return window.fires(self.time(window))

    def touches(self, window: Window) -> bool:
        """Return whether the window is active in the current epoch; a window in steps: in any step of it."""
        if window.unit == "epoch":
            return window.fires(self.epoch)
        first = self.epoch * self.steps_per_epoch
        return window.first < first + self.steps_per_epoch and window.last >= first

    def begins(self, window: Window) -> bool:
        """Return whether this is the first step of the window; before it, the beginning of the first epoch."""
        return self.time(window) == window.first and (window.unit == "step" or self.step == 0)

    def is_last_step(self, window: Window) -> bool:
        """Return whether this step is the last one of the window."""
        last_of_epoch = window.unit == "step" or self.step == self.steps_per_epoch - 1
        return self.time(window) == window.last and last_of_epoch

    def run_ends(self, window: Window) -> bool:
        """Return whether the run ends with the current epoch; for a window in steps, with the current step."""
        return self.time(window) + 1 >= self.end(window)

    def state_dict(self) -> dict[str, Any]:
        """Return the current time, to be saved."""
        return {"epoch": self.epoch, "step": self.step, "origin": self.origin}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set the clock to a saved time."""
        self.epoch, self.step, self.origin = int(state["epoch"]), int(state["step"]), int(state["origin"])
