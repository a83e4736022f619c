"""The two-slope threshold of Narang et al., "Exploring Sparsity in Recurrent Neural Networks", ICLR 2017."""

from typing import ClassVar

from pydantic import Field

from compressor.rates.rate import State
from compressor.rates.thresholds import Positive, ThresholdRate
from compressor.timing import Window


def baidu(q: float, ramp_offset: int, ramp_slope_mult: float, window: Window, time: int) -> float:
    """Return the threshold eps at `time`, e0 and e1 the window's ends, f its frequency, ramp = e0 + ramp_offset.

    start_slope = 2 q f / (2 (ramp - e0) + 3 (e1 - ramp)); eps = start_slope (t - e0 + 1) / f before the ramp, then
    (start_slope (ramp - e0 + 1) + mult start_slope (t - ramp + 1)) / f. A ramp after the window never begins.
    """
    start, end, frequency = window.first, window.end, window.step
    ramp = min(start + ramp_offset, end)
    start_slope = 2 * q * frequency / (2 * (ramp - start) + 3 * (end - ramp))
    if time < ramp:
        return start_slope * (time - start + 1) / frequency
    ramp_slope = ramp_slope_mult * start_slope
    return (start_slope * (ramp - start + 1) + ramp_slope * (time - ramp + 1)) / frequency


class BaiduRate(ThresholdRate, name="baidu"):
    """Raise a threshold slowly and, from the ramp on, `ramp_slope_mult` times as fast (Narang 2017)."""

    example: ClassVar[str] = "{baidu: {q: 0.1, ramp_epoch_offset: 1, ramp_slope_mult: 2}}"

    q: Positive = Field(
        description="q of the paper, from which the slopes of the threshold follow; there it is the 90th percentile"
        " of |w| of a trained dense network"
    )
    ramp_epoch_offset: int = Field(
        ge=0, description="time from the window's beginning to the ramp, in the window's unit"
    )
    ramp_slope_mult: Positive = Field(description="factor on the threshold's slope from the ramp on")

    def _now(self, window: Window, time: int) -> float:
        return baidu(self.q, self.ramp_epoch_offset, self.ramp_slope_mult, window, time)

    def limits(self, window: Window, time: int, state: State) -> dict[str, float]:
        return dict.fromkeys(state.names, self._now(window, time))

    def threshold(self, window: Window, time: int) -> str:
        return f"{self._now(window, time):.5g}"
