"""The values of each weight before and after, as histograms."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from compressor.pages.numbers import NONE, amount, fraction
from compressor.pages.page import NARROW, Drawing, Section, Table
from compressor.pages.palette import MUTED, hue
from compressor.pages.svg import Board
from compressor.reports import recorded

MOST, MOST_NARROW = 12, 6
"""The numbers of weights that are drawn: those with the most entries; the table has all."""
_HEIGHT, _CELL = 92, 158


def section(found: Mapping[str, recorded.Histograms]) -> Section:
    """Return the part with the histograms."""
    heading = "Weight values"
    whole = {name: pair for name, pair in found.items() if pair.before is not None or pair.after is not None}
    if not whole:
        return Section("values", heading, missing="histograms of the weights are not recorded in this run")
    largest = sorted(whole, key=lambda name: -max(map(_entries, (whole[name].before, whole[name].after))))

    def shown(width: int) -> dict[str, recorded.Histograms]:
        chosen = largest[: MOST_NARROW if width < 400 else MOST]
        return {name: pair for name, pair in whole.items() if name in chosen}

    caption = "Entries in each of the bins between the lowest and the highest value, zeros left out; logarithmic."
    if len(whole) > MOST_NARROW:
        count = f"{MOST} (on narrow screens {MOST_NARROW})" if len(whole) > MOST else f"{MOST_NARROW} on narrow screens"
        caption += f" Drawn are the weights with the most entries: {count} of {len(whole)}; the table has all."
    said = "; ".join(
        f"{name}: {_zeros(pair.before)} zeros before, {_zeros(pair.after)} after"
        for name, pair in shown(NARROW).items()
    )
    rows = [
        [name, _zeros(pair.before), _zeros(pair.after), _range(pair.before), _range(pair.after)]
        for name, pair in whole.items()
    ]
    drawing = Drawing(
        "histograms",
        "Values of the weights before and after (number of entries by value)",
        f"Histograms of the non-zero entries. {said}.",
        lambda width: _draw(shown(width), width),
        caption,
        Table(["weight", "zeros before", "zeros after", "values before", "values after"], rows),
    )
    return Section("values", heading, [drawing])


def _entries(one: recorded.Histogram | None) -> int:
    return 0 if one is None else sum(one.counts) + one.zeros


def _zeros(one: recorded.Histogram | None) -> str:
    count = _entries(one)
    return fraction(one.zeros / count, 1) if one is not None and count else NONE


def _range(one: recorded.Histogram | None) -> str:
    return NONE if one is None or one.low is None or one.high is None else f"{one.low:.3g} to {one.high:.3g}"


def _draw(shown: Mapping[str, recorded.Histograms], width: int) -> Board:
    columns = 1 if width < 400 else 3
    rows = -(-len(shown) // columns)
    board = Board(width, 22 + rows * _CELL)
    before = {"color": hue("red"), "linestyle": "--", "linewidth": 1.5}
    board.key(0, 14, [("before", before), ("after", {"area": True, "facecolor": hue("blue")})], width)
    size = (width - 28 * (columns - 1)) / columns
    for place, (name, pair) in enumerate(shown.items()):
        row, column = divmod(place, columns)
        left, top = column * (size + 28), 22 + row * _CELL
        board.text(left, top + 18, board.fitting(name, size))
        board.text(left, top + 33, f"zeros: {_zeros(pair.before)} before, {_zeros(pair.after)} after", color=hue(MUTED))
        axes = board.panel(left + 46, top + 42, size - 62, _HEIGHT)
        drawn = [_steps(axes, pair.after, filled=True), _steps(axes, pair.before, filled=False)]
        if any(drawn):
            axes.set_yscale("log")
            axes.set_ylim(bottom=0.7)
            axes.yaxis.set_major_locator(LogLocator(numticks=4))
            axes.yaxis.set_minor_locator(NullLocator())
        else:
            axes.text(0.5, 0.5, "all zero", transform=axes.transAxes, ha="center", color=hue(MUTED))
            axes.set_xticks([])
            axes.set_yticks([])
        axes.locator_params(axis="x", nbins=4)
        axes.yaxis.set_major_formatter(lambda value, _: amount(value))
    return board


def _steps(axes: Axes, one: recorded.Histogram | None, *, filled: bool) -> bool:
    """Draw a histogram; return whether it has an entry."""
    if one is None or one.low is None or one.high is None or not sum(one.counts):
        return False
    step = (one.high - one.low) / len(one.counts) or abs(one.low) / 50 or 1e-3
    edges: Sequence[float] = [one.low + step * place for place in range(len(one.counts) + 1)]
    if filled:
        axes.stairs(one.counts, edges, fill=True, color=hue("blue"), baseline=0.7, linewidth=0)
    else:
        axes.stairs(one.counts, edges, color=hue("red"), linestyle="--", linewidth=1.5, baseline=0.7)
    return True
