"""All faults of a file, one line each."""

from compressor.errors import UserError


class Faults:
    """A collection of faults; `raise_any` reports them all at once."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, int, int]] = {}

    def add(self, place: "Place", message: str) -> None:
        """Add one fault; the same one is added once."""
        self._found.setdefault(f"{place}: {message}", (place.source, place.line, place.column))

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
