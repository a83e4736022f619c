"""A constant threshold."""

from typing import ClassVar

from pydantic import Field

from compressor.rates.rate import State
from compressor.rates.thresholds import Positive, ThresholdRate
from compressor.timing import Window


class ConstantThreshold(ThresholdRate, name="threshold"):
    """Prune magnitudes up to a constant threshold."""

    example: ClassVar[str] = "{threshold: 0.1}"
    main: ClassVar[str] = "value"

    value: Positive = Field(description="largest magnitude that is pruned, in the units of the weights")

    def limits(self, window: Window, time: int, state: State) -> dict[str, float]:
        return dict.fromkeys(state.names, self.value)

    def threshold(self, window: Window, time: int) -> str:
        return f"{self.value:g}"
