"""Tables as text, no wider than a terminal: a row is one line, columns are left out, names are shortened."""

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

_BETWEEN, _SHORTEST, _DOTS = 2, 8, "..."
"""The spaces between columns, the smallest width to which a column is shortened, and what stands for what was cut."""


@dataclass(frozen=True)
class Column:
    """A column: its head, its side, whether and where its cells may be shortened, and when it is left out.

    Of the columns that do not fit those with the highest `rank` are left out first, those of rank 0 never.
    """

    head: str
    left: bool = False
    shortened: Literal["no", "middle", "end"] = "no"
    rank: int = 0


@dataclass(frozen=True)
class Table:
    """A table that fits: the line of its heads, a line for each row, and the heads of the columns left out."""

    head: str
    rows: list[str]
    rule: str
    """A line of dashes as wide as the table."""
    left_out: list[str]

    def note(self, width: int | None) -> list[str]:
        """Return what is not shown and how to see it; nothing where all is shown."""
        said = f"not shown here: {', '.join(self.left_out)}; --wide shows all columns"
        return [wrapped(said, width)] if self.left_out else []


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None = None) -> Table:
    """Return the rows as lines of at most `width` columns of a terminal, or of any length without one."""
    from rich.cells import cell_len  # a tenth of a second: only where a table is shown

    widths = [
        max(cell_len(text) for text in (column.head, *(row[index] for row in rows)))
        for index, column in enumerate(columns)
    ]
    shown = list(range(len(columns)))

    def excess() -> int:
        return 0 if width is None else sum(widths[i] + _BETWEEN for i in shown) - _BETWEEN - width

    empty = {i for i in shown if all(row[i] in ("", "-") for row in rows)}
    for index in sorted(shown, key=lambda i: (i not in empty, -columns[i].rank, -i)):
        if excess() > 0 and columns[index].rank:
            shown.remove(index)
    for index in shown:
        if excess() > 0 and columns[index].shortened != "no":
            widths[index] = min(widths[index], max(widths[index] - excess(), _SHORTEST))
    cells = [[_shortened(row[i], widths[i], columns[i].shortened) for i in shown] for row in rows]
    size = sum(widths[i] + _BETWEEN for i in shown) - _BETWEEN
    lines = [*_aligned([columns[i] for i in shown], cells, size), "-" * size]
    if excess() > 0:  # a terminal in which the columns that are always shown have no room
        lines = [line[:width].rstrip() for line in lines]
    left_out = [column.head for index, column in enumerate(columns) if index not in shown]
    return Table(lines[0], lines[1:-1], lines[-1], left_out)


def _aligned(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Return a line for the heads and one for each row, plain text whatever the terminal is."""
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(box=None, pad_edge=False, padding=(0, _BETWEEN, 0, 0), header_style="")
    for column in columns:
        grid.add_column(Text(column.head), justify="left" if column.left else "right", no_wrap=True)
    for row in rows:
        grid.add_row(*map(Text, row))
    text = io.StringIO()
    Console(file=text, width=width, color_system=None, legacy_windows=False).print(grid)
    return [line.rstrip() for line in text.getvalue().split("\n")[:-1]]


def _shortened(text: str, width: int, where: str) -> str:
    """Return text of at most `width` columns of a terminal, with dots for what is cut."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= width:
        return text
    keep = width - len(_DOTS)
    if where == "end":
        return set_cell_size(text, keep).rstrip() + _DOTS
    tail = keep // 2
    end = next(text[i:] for i in range(len(text) + 1) if cell_len(text[i:]) <= tail)
    return set_cell_size(text, keep - tail).rstrip() + _DOTS + end


def wrapped(text: str, width: int | None) -> str:
    """Return a sentence in lines of at most `width` columns, the second one on indented; as it is without a width."""
    if width is None or len(text) <= width:
        return text
    indent = text[: len(text) - len(text.lstrip())]
    return textwrap.fill(text, width, subsequent_indent=f"{indent}  ", break_long_words=False, break_on_hyphens=False)
