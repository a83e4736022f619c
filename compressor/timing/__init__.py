"""Time in whole numbers: the clock of a run, and the windows in which policies are active."""

from compressor.timing.clock import Clock
from compressor.timing.window import Window

__all__ = ["Clock", "Window"]
