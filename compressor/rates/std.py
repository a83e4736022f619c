"""S. Han et al., "Learning both Weights and Connections", NIPS 2015: multiples of the standard deviation."""

from typing import ClassVar

import torch
from pydantic import Field

from compressor.rates.rate import State
from compressor.rates.thresholds import Positive, ThresholdRate
from compressor.timing import Window


class StdRate(ThresholdRate, name="std"):
    """Prune below a multiple of the standard deviation of a weight, taken at the first event; or of all weights
    together.
    """

    example: ClassVar[str] = "{std: 0.5}"
    main: ClassVar[str] = "factor"
    by_all: ClassVar[bool] = True

    factor: Positive = Field(description="the threshold in standard deviations of the weight, taken at the first event")

    def limits(self, window: Window, time: int, state: State) -> dict[str, float]:
        memory, weights = state.memory, state.weights
        if any(name not in memory for name in state.together):
            together = torch.cat([weights[name].detach().flatten() for name in state.together])
            memory.update(dict.fromkeys(state.together, float(together.std())))
        for name in state.names:
            if name not in memory:
                memory[name] = float(weights[name].detach().std())
        return {name: self.factor * memory[name] for name in state.names}

    def threshold(self, window: Window, time: int) -> str:
        return f"{self.factor:g} std"
