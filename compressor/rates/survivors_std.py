"""S. Han et al., "Learning both Weights and Connections", NIPS 2015: multiples of the deviation of non-zero weights."""

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from compressor.rates.rate import State
from compressor.rates.thresholds import Positive, ThresholdRate
from compressor.sparsity import nonzero, selected
from compressor.timing import Window


class SurvivorsStdRate(ThresholdRate, name="survivors_std"):
    """Prune below a multiple of the standard deviation of the non-zero weights, new at each event (Han et al. 2015)."""

    example: ClassVar[str] = "{survivors_std: 0.4}"
    main: ClassVar[str] = "factor"

    factor: Positive = Field(
        description="the threshold in standard deviations of the weights that are not zero, at each event"
    )

    def limits(self, window: Window, time: int, state: State) -> dict[str, float]:
        return {name: self.factor * _deviation(state.weights[name].detach()) for name in state.names}

    def threshold(self, window: Window, time: int) -> str:
        return f"{self.factor:g} std of the non-zero weights"


def _deviation(weight: Tensor) -> float:
    alive = selected(weight, nonzero(weight))
    return float(alive.std()) if alive.numel() > 1 else 0.0
