"""The base class of rates that are a threshold: values that are not above it are pruned."""

from typing import Annotated, ClassVar

from pydantic import Field

from compressor.rates.rate import Rate, State, ThresholdGoal
from compressor.timing import Window

Positive = Annotated[float, Field(ge=0)]
"""A magnitude, or a factor on one."""


class ThresholdRate(Rate):
    """A threshold of magnitudes. Subclasses define `limits`, and `threshold`, its description."""

    by_threshold: ClassVar[bool] = True

    def limits(self, window: Window, time: int, state: State) -> dict[str, float]:
        """Return the threshold at `time` for each of `state.names`."""
        raise TypeError(f"{type(self).__name__} has no threshold")

    def goal(self, window: Window, time: int, state: State) -> ThresholdGoal:
        return ThresholdGoal(self.limits(window, time, state))

    def unknown(self) -> str:
        return f"`rate: {self.name}` is a threshold: how much is below it depends on the values"
