"""The session: one step of a run. It owns masks, substitutions, averages and memories, and the order of events."""

from compressor.session.events import windows_past_end
from compressor.session.session import Session, Shipped
from compressor.session.start import start
from compressor.session.zeros import zero_weights

__all__ = ["Session", "Shipped", "start", "windows_past_end", "zero_weights"]
