"""Messages about places in files: faults, which refuse a file, and warnings and notes, which do not."""

from dataclasses import dataclass
from typing import Literal

from compressor.errors import UserError

MOST, LONGEST = 100, 2_000
"""The number of faults that are reported at once, and the characters of a message that are shown."""

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Place:
    """A place: a file with line and column, both counted from 1 (0: the whole file), or a flag of the command line."""

    source: str
    line: int = 0
    column: int = 0

    @property
    def file(self) -> str | None:
        """Return the file; None where the place is a flag."""
        return None if not self.line and self.source.startswith("--") else self.source

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


class Message(str):
    """A line `place: text` (`place: warning: text`), which knows its parts; without a place it is the text alone."""

    __slots__ = ("place", "severity", "text")

    place: Place | None
    severity: Severity
    text: str

    def __new__(cls, place: Place | None, text: str, severity: Severity = "error") -> "Message":
        shown = f"warning: {text}" if severity == "warning" else text
        made = super().__new__(cls, shown if place is None else f"{place}: {shown}")
        made.place, made.severity, made.text = place, severity, text
        return made


class Faults:
    """A collection of faults; `raise_any` reports them all at once."""

    def __init__(self) -> None:
        self._found: dict[Message, None] = {}

    def add(self, place: Place, message: str) -> None:
        """Add one fault; the same one is added once.

        Raises `UserError` with all of them where there are `MOST`: what a file costs does not grow with its faults.
        """
        shown = message if len(message) <= LONGEST else f"{message[:LONGEST]}..."
        self._found.setdefault(Message(place, shown))
        if len(self._found) >= MOST:
            self._found.setdefault(Message(None, f"these are {MOST} faults: correct them to see more"))
            self.raise_any()

    def __bool__(self) -> bool:
        return bool(self._found)

    @property
    def lines(self) -> list[Message]:
        """Return `source:line:column: message` lines, in file order."""
        return sorted(self._found, key=_order)

    def raise_any(self) -> None:
        """Raise `UserError` with all faults, one line each, if there are any."""
        if self._found:
            raise UserError("\n".join(self.lines))


def _order(message: Message) -> tuple[bool, str, int, int]:
    """Return what messages are sorted by; those without a place are last."""
    place = message.place or Place("")
    return message.place is None, place.source, place.line, place.column
