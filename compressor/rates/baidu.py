"""The two-slope threshold of Narang et al., "Exploring Sparsity in Recurrent Neural Networks", ICLR 2017."""

from compressor.rates.window import Window


def baidu(q: float, ramp_offset: int, ramp_slope_mult: float, window: Window, time: int) -> float:
    """The threshold eps at `time`, with e0 and e1 the window's ends, f its frequency and ramp = e0 + ramp_offset:

    start_slope = 2 q f / (2 (ramp - e0) + 3 (e1 - ramp)); eps = start_slope (t - e0 + 1) / f before the ramp, then
    (start_slope (ramp - e0 + 1) + mult start_slope (t - ramp + 1)) / f. A ramp behind the window never begins.
    """
    start, end, frequency = window.first, window.end, window.step
    ramp = min(start + ramp_offset, end)
    start_slope = 2 * q * frequency / (2 * (ramp - start) + 3 * (end - ramp))
    if time < ramp:
        return start_slope * (time - start + 1) / frequency
    ramp_slope = ramp_slope_mult * start_slope
    return (start_slope * (ramp - start + 1) + ramp_slope * (time - ramp + 1)) / frequency
