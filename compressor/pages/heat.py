"""Sparsity by layer and epoch: what the policies ask for above what is reached, as strips of colour."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from compressor.pages.numbers import NONE, fraction, signed
from compressor.pages.page import Drawing, Section, Table
from compressor.pages.palette import LEVELS, MUTED, hue, level
from compressor.pages.svg import Board, boxes, text_width
from compressor.pages.timeline import LEFT, RIGHT, epochs_axis
from compressor.reports import recorded

MOST, MOST_NARROW = 60, 24
"""The numbers of layers that are drawn: those with the most weights; the table has all."""
_NAMES = 186
_COLUMN = 62
"""The width of a number of percent beside the strips."""
_Box = tuple[float, float, float, float, str]


@dataclass(frozen=True)
class _Row:
    name: str
    epochs: Sequence[int]
    sparsity: Sequence[float]
    target: Sequence[float | None]

    @property
    def last(self) -> tuple[float, float | None]:
        return self.sparsity[-1], self.target[-1]


def section(lines: Sequence[recorded.LayersLine], weights: Mapping[str, int], epochs: int) -> Section:
    """Return the part with the strips; `weights`: the number of entries of each weight before anything was removed."""
    if not lines:
        return Section("layers", "Sparsity by layer", missing="layers.jsonl is not recorded in this run")
    rows = [
        _Row(
            name,
            [line.epoch for line in lines if name in line.layers],
            [line.layers[name].sparsity for line in lines if name in line.layers],
            [line.layers[name].target for line in lines if name in line.layers],
        )
        for name in dict.fromkeys(name for line in lines for name in line.layers)
    ]
    touched = [row for row in rows if max(row.sparsity) > 0 or any(row.target)]
    if not touched:
        return Section("layers", "Sparsity by layer", missing="no weight was pruned: all sparsities are 0 %")
    largest = sorted(touched, key=lambda row: -weights.get(row.name, 0))

    def shown(width: int) -> list[_Row]:
        chosen = largest[: MOST if width > 600 else MOST_NARROW]
        return [row for row in touched if row in chosen]

    caption = "Above: the sparsity that the policies ask for; below: the sparsity reached, of the dense shape. The"
    caption += " numbers are those of the last epoch."
    if len(touched) < len(rows):
        caption += f" Weights that are never pruned are left out ({len(rows) - len(touched)})."
    if len(touched) > MOST_NARROW:
        count = (
            f"{MOST} (on narrow screens {MOST_NARROW})" if len(touched) > MOST else f"{MOST_NARROW} on narrow screens"
        )
        caption += f" Drawn are the weights with the most entries: {count} of {len(touched)}; the table has all."
    said = "; ".join(f"{row.name} {fraction(row.last[0])}, target {fraction(row.last[1])}" for row in touched[:12])
    drawing = Drawing(
        "heat",
        "Sparsity by weight and epoch (%), target above reached",
        f"At the end: {said}.",
        lambda width: _draw(shown(width), epochs, width),
        caption,
        _table(touched),
    )
    return Section("layers", "Sparsity by layer", [drawing])


def _draw(rows: Sequence[_Row], epochs: int, width: int) -> Board:
    narrow = width < 600
    lane, left, right = (32, LEFT, RIGHT) if narrow else (18, _NAMES, 16 + 2 * _COLUMN)
    top = 44 if narrow else 40
    board = Board(width, top + lane * len(rows) + 36)
    _scale(board, left, narrow)
    axes = board.panel(left, top, width - left - right, lane * len(rows))
    axes.set_ylim(lane * len(rows), 0)
    axes.set_yticks([])
    axes.grid(visible=False)
    epochs_axis(axes, epochs)
    found: list[_Box] = []
    for place, row in enumerate(rows):
        strip = place * lane + (17 if narrow else 2)
        found += [*_strip(row.epochs, row.target, strip, 4), *_strip(row.epochs, row.sparsity, strip + 5, 8)]
        reached, target = row.last
        if narrow:
            last = f"{fraction(reached, 1)} / {fraction(target, 1)}"
            room = width - left - right - text_width(last) - 12
            board.text(left, top + place * lane + 13, board.fitting(row.name, room))
            board.text(width - right, top + place * lane + 13, last, ha="right", color=hue(MUTED))
        else:
            board.text(left - 8, top + place * lane + 13, board.fitting(row.name, left - 8), ha="right")
            for column, value in enumerate((reached, target)):
                at = width - right + 8 + column * _COLUMN
                board.text(at, top + place * lane + 13, fraction(value, 1), color=hue(MUTED))
    boxes(axes, found)
    if narrow:
        board.text(width - right, top - 4, "reached / target", ha="right", color=hue(MUTED))
    else:
        for column, name in enumerate(("reached", "target")):
            board.text(width - right + 8 + column * _COLUMN, top - 8, name, color=hue(MUTED))
    board.text(left, board.height - 4, "epoch", color=hue(MUTED))
    return board


def _strip(epochs: Sequence[int], values: Sequence[float | None], top: float, height: float) -> Iterator[_Box]:
    """Yield a rectangle for each run of epochs with the same colour."""
    begun: int | None = None
    for place, (epoch, value) in enumerate(zip(epochs, values, strict=True)):
        begun = epoch if begun is None else begun
        following = place + 1 < len(epochs) and epochs[place + 1] == epoch + 1
        if not (following and _step(values[place + 1]) == _step(value)):
            if value is not None:
                yield begun - 0.5, top, epoch - begun + 1, height, _colour(value)
            begun = None


def _step(value: float | None) -> int | None:
    return None if value is None else (0 if value == 0 else min(int(value * LEVELS), LEVELS - 1) + 1)


def _colour(value: float) -> str:
    return hue("shade") if value == 0 else level(value)


def _scale(board: Board, left: float, narrow: bool) -> None:
    """Draw the scale of colours."""
    size = 14 if narrow else 22
    names = 34
    board.text(left, 13, "0 %", color=hue(MUTED))
    axes = board.panel(left + names, 4, size * LEVELS, 10)
    axes.set_axis_off()
    axes.set_xlim(0, LEVELS)
    boxes(axes, [(number, 0, 1, 1, level((number + 0.5) / LEVELS)) for number in range(LEVELS)])
    board.text(left + names + size * LEVELS + 8, 13, "100 %", color=hue(MUTED))


def _table(rows: Sequence[_Row]) -> Table:
    made = []
    for row in rows:
        reached, target = row.last
        gap = NONE if target is None else signed(100 * (reached - target))
        made.append([row.name, fraction(reached), fraction(target), gap, fraction(max(row.sparsity))])
    return Table(["weight", "reached at the end", "target", "difference (points)", "highest"], made)
