"""Accuracy, losses, learning rate and sparsity over the epochs of a run, on one axis."""

from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from compressor.pages.numbers import fraction, percent
from compressor.pages.page import Drawing, Section, Table
from compressor.pages.palette import MUTED, hue
from compressor.pages.svg import Board, key_width, short
from compressor.pages.timeline import LEFT, RIGHT, Window, epochs_axis
from compressor.reports import recorded

_HEIGHT, _HEAD, _BELOW = 104, 24, 12
_SHADED, _MOST_SHADED = 4, 12
"""The height of the line of a shaded window, in pixels, and how many windows have one."""
_OTHERS, _DASHES = ("blue", "green", "purple", "ochre", "grey"), ("--", "-.", ":")
"""The hues and the line styles of losses: their numbers have no common factor, so fifteen losses differ."""

Line = tuple[str, Sequence[float | None], dict[str, Any]]
"""The name of a curve, its values by epoch, and its style."""


def section(lines: Sequence[recorded.EpochLine], found: Sequence[Window], epochs: int) -> Section:
    """Return the part with the curves; `found`: the windows that are shaded."""
    if not lines:
        return Section("training", "Training", missing="metrics.jsonl has no epoch")
    last = lines[-1]
    shaded = _partial(found, epochs)
    said = (
        f"Top-1 accuracy, loss by component, learning rate and sparsity over {len(lines)} epochs. At the end:"
        f" training top-1 {percent(last.train.get('top1'))}, validation top-1 {percent(last.val.get('top1'))},"
        f" sparsity {fraction(last.sparsity)}."
    )
    caption = (
        "Shaded, in the colours of the schedule: " + ", ".join(window.policy.key for window in shaded) + "."
        if shaded
        else ""
    )
    if len(shaded) < len(found):
        caption += " Policies that act in every epoch are not shaded." if shaded else ""
    return Section(
        "training",
        "Training",
        [
            Drawing(
                "curves",
                "Accuracy (%), loss, learning rate and sparsity (%) by epoch",
                said,
                lambda width: _draw(lines, shaded, epochs, width),
                caption,
                _table(lines),
            )
        ],
    )


def _partial(found: Sequence[Window], epochs: int) -> list[Window]:
    """Return the windows that are not the whole run."""
    return [window for window in found if window.first > -0.5 or window.last < epochs - 0.5 or len(window.runs) > 1]


def _panels(lines: Sequence[recorded.EpochLine]) -> list[tuple[str, list[Line]]]:
    """Return the title of each panel, and its curves."""

    def of(values: Callable[[recorded.EpochLine], float | None]) -> list[float | None]:
        return [values(line) for line in lines]

    accuracy: list[Line] = [
        ("training", of(lambda line: line.train.get("top1")), {"color": hue("blue"), "linestyle": "--"}),
        ("validation", of(lambda line: line.val.get("top1")), {"color": hue("red")}),
        ("test", of(lambda line: line.test.get("top1")), {"color": hue("green"), "linestyle": "-."}),
    ]
    losses: list[Line] = [("validation, data", of(lambda line: line.val.get("loss")), {"color": hue("red")})]
    names = list(dict.fromkeys(name for line in lines for name in line.losses))
    for name, colour, dashes in zip(names, cycle(_OTHERS), cycle(_DASHES), strict=False):
        values = of(lambda line, name=name: line.losses.get(name))  # type: ignore[misc]
        losses.append((f"training, {name}", values, {"color": hue(colour), "linestyle": dashes}))
    rate: list[Line] = [("", of(lambda line: line.lr), {"color": hue("ochre")})]
    sparsity: list[Line] = [("prunable weights", _hundred(of(lambda line: line.sparsity)), {"color": hue("blue")})]
    every = _hundred(of(lambda line: line.sparsity_all))
    if any(a is not None and b is not None and abs(a - b) > 0.5 for a, b in zip(every, sparsity[0][1], strict=True)):
        sparsity.append(("all parameters", every, {"color": hue("grey"), "linestyle": "--"}))
    panels = [("top-1 accuracy (%)", accuracy), ("loss", losses), ("learning rate", rate), ("sparsity (%)", sparsity)]
    there = [(title, [one for one in curves if any(v is not None for v in one[1])]) for title, curves in panels]
    return [(title, curves) for title, curves in there if curves]


def _hundred(values: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else 100 * value for value in values]


def _draw(lines: Sequence[recorded.EpochLine], shaded: Sequence[Window], epochs: int, width: int) -> Board:
    panels = _panels(lines)
    keys = [_key_lines(curves, width) for _, curves in panels]
    head = _HEAD + _SHADED * min(len(shaded), _MOST_SHADED)
    height = sum(_HEIGHT + head + _BELOW + 16 * more for more in keys) + 30
    board = Board(width, height)
    x = [line.epoch for line in lines]
    top = 0.0
    for (title, curves), more in zip(panels, keys, strict=True):
        board.text(LEFT, top + 14, title)
        entries = [(short(name, 30), style) for name, _, style in curves if name]
        if len(curves) > 1:
            wraps = width < 600
            start, level = (LEFT, top + 30) if wraps else (LEFT + 150, top + 14)
            board.key(start, level, entries, width - RIGHT)
        top += head + 16 * more
        axes = board.panel(LEFT, top, width - LEFT - RIGHT, _HEIGHT)
        _shade(axes, shaded)
        _curve(axes, x, curves, title)
        epochs_axis(axes, epochs)
        if curves is not panels[-1][1]:
            axes.tick_params(axis="x", labelbottom=False)
        top += _HEIGHT + _BELOW
    board.text(LEFT, height - 6, "epoch", color=hue(MUTED))
    return board


def _key_lines(curves: Sequence[Line], width: int) -> int:
    """Return how many lines the key takes below the title."""
    if len(curves) < 2:
        return 0
    room = width - RIGHT - (LEFT if width < 600 else LEFT + 150)
    lines, left = 1, 0.0
    for name, _, _ in curves:
        size = key_width(short(name, 30))
        if left and left + size > room:
            lines, left = lines + 1, 0.0
        left += size
    return lines if width < 600 else lines - 1


def _shade(axes: Axes, shaded: Sequence[Window]) -> None:
    """Shade each window, with a line of its own above the panel."""
    for place, window in enumerate(shaded[:_MOST_SHADED]):
        colour, _ = window.style
        for first, last in window.runs:
            axes.axvspan(first, last, facecolor=colour, alpha=0.09, linewidth=0, zorder=0)
            low = 1 + (2 + _SHADED * place) / _HEIGHT
            axes.axvspan(first, last, ymin=low, ymax=low + 2 / _HEIGHT, facecolor=colour, linewidth=0, clip_on=False)


def _curve(axes: Axes, x: Sequence[int], curves: Sequence[Line], title: str) -> None:
    alone = len(x) == 1
    for _, values, style in curves:
        y = [float("nan") if value is None else value for value in values]
        axes.plot(x, y, marker="o" if alone else None, **style)
    known = [value for _, values, _ in curves for value in values if value is not None]
    low, high = min(known), max(known)
    if title == "loss" and low > 0 and high / low > 20:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    elif title == "sparsity (%)":
        axes.set_ylim(0, max(105.0 if high > 50 else high * 1.15, 1.0))
    elif title in ("learning rate", "loss") and low >= 0:
        axes.set_ylim(0, high * 1.1 or 1.0)
    axes.tick_params(axis="y", which="both", pad=2)


def _table(lines: Sequence[recorded.EpochLine]) -> Table:
    names = list(dict.fromkeys(name for line in lines for name in line.losses))
    heads = ["epoch", "training top-1", "validation top-1", "validation loss"]
    heads += [f"training loss, {name}" for name in names] + ["learning rate", "sparsity"]
    rows = [
        [
            str(line.epoch),
            percent(line.train.get("top1")),
            percent(line.val.get("top1")),
            _number(line.val.get("loss")),
            *(_number(line.losses.get(name)) for name in names),
            _number(line.lr),
            fraction(line.sparsity),
        ]
        for line in lines
    ]
    return Table(heads, rows)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
