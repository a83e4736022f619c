"""The session: one step of a run. It owns masks, substitutions, averages and memories, and the order of events."""

from compressor.session.events import windows_past_end
from compressor.session.session import Epoch, Session, Settings, Shipped, Step
from compressor.session.start import start
from compressor.session.undo import Parts, Undo
from compressor.session.zeros import zero_weights

__all__ = [
    "Epoch",
    "Parts",
    "Session",
    "Settings",
    "Shipped",
    "Step",
    "Undo",
    "start",
    "windows_past_end",
    "zero_weights",
]
