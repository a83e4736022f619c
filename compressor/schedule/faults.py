"""All faults of a file, one line each."""

from compressor.errors import UserError

MOST, LONGEST = 100, 2_000
"""The number of faults that are reported at once, and the characters of a message that are shown."""


class Faults:
    """A collection of faults; `raise_any` reports them all at once."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, int, int]] = {}

    def add(self, place: "Place", message: str) -> None:
        """Add one fault; the same one is added once.

        Raises `UserError` with all of them where there are `MOST`: what a file costs does not grow with its faults.
        """
        shown = message if len(message) <= LONGEST else f"{message[:LONGEST]}..."
        self._found.setdefault(f"{place}: {shown}", (place.source, place.line, place.column))
        if len(self._found) >= MOST:
            raise UserError("\n".join([*self.lines, f"these are {MOST} faults: correct them to see more"]))

    def __bool__(self) -> bool:
        return bool(self._found)

    @property
    def lines(self) -> list[str]:
        """Return `source:line:column: message` lines, in file order."""
        return sorted(self._found, key=lambda line: self._found[line])

    def raise_any(self) -> None:
        """Raise `UserError` with all faults, one line each, if there are any."""
        if self._found:
            raise UserError("\n".join(self.lines))


class Place:
    """A place: a file with line and column, both counted from 1, or a flag of the command line."""

    __slots__ = ("column", "line", "source")

    def __init__(self, source: str, line: int = 0, column: int = 0) -> None:
        self.source, self.line, self.column = source, line, column

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source
