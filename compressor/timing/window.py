"""WHEN a policy is active, in whole numbers of epochs or of optimizer steps."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from compressor.component import Settings

Unit = Literal["epoch", "step"]


class Window(Settings):
    """The times at which a policy acts: every `frequency` from `starting_epoch` to before `ending_epoch`, or a list.

    With one of the three step keys, time is counted in optimizer steps of the whole run. Raises pydantic's error where
    two forms are given or the window is empty.
    """

    starting_epoch: int = Field(default=0, ge=0, description="first epoch in which the policy acts, counted from 0")
    ending_epoch: int | None = Field(
        default=None, ge=1, description="epoch before which it ends (exclusive); default: the run's number of epochs"
    )
    frequency: int = Field(
        default=1, ge=1, description="number of epochs between two actions; default 1: in every epoch"
    )
    epochs: list[int] | None = Field(
        default=None,
        min_length=1,
        description="list of the epochs in which it acts, instead of the three keys above; default: none",
    )
    starting_step: int = Field(
        default=0, ge=0, description="first optimizer step at which the policy acts, counted from 0 over the whole run"
    )
    ending_step: int | None = Field(
        default=None,
        ge=1,
        description="step before which it ends (exclusive); with it time counts in optimizer steps; default: in epochs",
    )
    step_frequency: int = Field(
        default=1, ge=1, description="number of optimizer steps between two actions; default 1: at every step"
    )

    @field_validator("epochs", mode="before")
    @classmethod
    def _some(cls, epochs: Any) -> Any:
        if epochs == []:
            raise ValueError("the list is empty: give at least one epoch")
        return epochs

    @model_validator(mode="after")
    def _one_form_and_not_empty(self) -> Self:
        given = self.model_fields_set
        by_step = sorted(given & {"starting_step", "ending_step", "step_frequency"})
        if "epochs" in given and len(given) > 1:
            raise ValueError("'epochs' replaces starting_epoch, ending_epoch and frequency: give one form")
        if by_step and len(by_step) < len(given):
            raise ValueError(f"{by_step[0]!r} counts steps, the other keys count epochs: give one form")
        if by_step and self.ending_step is None:
            raise ValueError(f"{by_step[0]!r} needs 'ending_step'")
        if any(epoch < 0 for epoch in self.epochs or []):
            raise ValueError("'epochs' has a number below 0: give numbers of 0 or more")
        start, end = self.first, self.ending_step if by_step else self.ending_epoch
        if self.epochs is None and end is not None and end <= start:
            raise ValueError(
                f"the window is empty: its end {end} is exclusive and should be more than its start {start}"
            )
        return self

    def bind(self, epochs: int) -> "Window":
        """Return the window with its end set: an open end is the run's number of epochs."""
        if not self.open:
            return self
        return self.model_copy(update={"ending_epoch": max(epochs, self.starting_epoch + 1)})

    def at_pace(self, pace: float) -> "Window":
        """Return the window for a run in which one step stands for `pace` steps; a window in epochs stays as it is."""
        if self.ending_step is None:
            return self
        first = round(self.starting_step / pace)
        changed = {
            "starting_step": first,
            "ending_step": max(round(self.ending_step / pace), first + 1),
            "step_frequency": max(round(self.step_frequency / pace), 1),
        }
        return self.model_copy(update=changed)

    @property
    def open(self) -> bool:
        """Return whether it ends with the run: the file gives no end."""
        return self.epochs is None and self.ending_epoch is None and self.ending_step is None

    @property
    def unit(self) -> Unit:
        """Return what the window counts: epochs or steps."""
        return "step" if self.ending_step is not None else "epoch"

    @property
    def first(self) -> int:
        """Return the first time at which the policy acts."""
        if self.epochs is not None:
            return min(self.epochs)
        return self.starting_step if self.ending_step is not None else self.starting_epoch

    @property
    def end(self) -> int:
        """Return the first time after the window (bound windows only)."""
        if self.epochs is not None:
            return max(self.epochs) + 1
        end = self.ending_epoch if self.ending_step is None else self.ending_step
        if end is None:
            raise ValueError("the window is not bound: its end is not known")
        return end

    @property
    def step(self) -> int:
        """Return the time between two actions; 1 for a list."""
        if self.epochs is not None:
            return 1
        return self.frequency if self.ending_step is None else self.step_frequency

    @property
    def last(self) -> int:
        """Return the last time at which the policy acts (bound windows only)."""
        if self.epochs is not None:
            return max(self.epochs)
        return self.first + (self.end - self.first - 1) // self.step * self.step

    @property
    def firings(self) -> int:
        """Return how many times the policy acts (bound windows only)."""
        return self.number(self.last)

    def number(self, time: int) -> int:
        """Return how many times the policy has acted, including one at `time` (bound windows only)."""
        if self.epochs is not None:
            return len({epoch for epoch in self.epochs if epoch <= time})
        return (min(time, self.last) - self.first) // self.step + 1 if time >= self.first else 0

    def last_firing(self, time: int) -> int | None:
        """Return the last time of action, including one at `time`; None before the first (bound windows only)."""
        if time < self.first:
            return None
        if self.epochs is not None:
            return max(epoch for epoch in self.epochs if epoch <= time)
        return self.first + (min(time, self.last) - self.first) // self.step * self.step

    def fires(self, time: int) -> bool:
        """Return whether the policy acts at this epoch (or step)."""
        if self.epochs is not None:
            return time in self.epochs
        return self.first <= time < self.end and (time - self.first) % self.step == 0
