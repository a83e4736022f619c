"""WHEN a policy is active: whole numbers of epochs."""

from typing import Self

from pydantic import Field, model_validator

from compressor.component import Settings


class Window(Settings):
    """Epochs at which a policy fires: every `frequency` from `starting_epoch` to before `ending_epoch`; or a list.

    Raises pydantic's error where both forms are given or the window is empty.
    """

    starting_epoch: int = Field(default=0, ge=0)
    ending_epoch: int | None = Field(default=None, ge=1, description="exclusive; default: the run's epochs")
    frequency: int = Field(default=1, ge=1)
    epochs: list[int] | None = Field(default=None, min_length=1, description="instead of the three keys above")

    @model_validator(mode="after")
    def _one_form_and_not_empty(self) -> Self:
        if self.epochs is not None:
            if self.model_fields_set - {"epochs"}:
                raise ValueError("'epochs' stands instead of starting_epoch, ending_epoch and frequency: give one form")
            if any(epoch < 0 for epoch in self.epochs):
                raise ValueError("'epochs' should be 0 or more")
        elif self.ending_epoch is not None and self.ending_epoch <= self.starting_epoch:
            raise ValueError(
                f"the window is empty: ending_epoch is exclusive and should be more than starting_epoch"
                f" {self.starting_epoch}, got {self.ending_epoch}"
            )
        return self

    def bind(self, epochs: int) -> "Window":
        """The same window with an open end closed at the run's number of epochs."""
        if self.epochs is not None or self.ending_epoch is not None:
            return self
        return self.model_copy(update={"ending_epoch": max(epochs, self.starting_epoch + 1)})

    @property
    def first(self) -> int:
        """The first epoch at which it fires."""
        return self.starting_epoch if self.epochs is None else min(self.epochs)

    @property
    def end(self) -> int:
        """The first epoch behind the window (bound windows only)."""
        if self.epochs is not None:
            return max(self.epochs) + 1
        if self.ending_epoch is None:
            raise ValueError("this window is not bound to a run's epochs")
        return self.ending_epoch

    @property
    def step(self) -> int:
        """Epochs between two firings; 1 for a list."""
        return self.frequency if self.epochs is None else 1

    @property
    def last(self) -> int:
        """The last epoch at which it fires (bound windows only)."""
        if self.epochs is not None:
            return max(self.epochs)
        return self.first + (self.end - self.first - 1) // self.step * self.step

    def fires(self, epoch: int) -> bool:
        """Whether the policy is active in this epoch."""
        if self.epochs is not None:
            return epoch in self.epochs
        return self.first <= epoch < self.end and (epoch - self.first) % self.step == 0
