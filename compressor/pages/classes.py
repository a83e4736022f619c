"""Accuracy by class before and after, and the calibration of the probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from compressor.pages.numbers import NONE, fraction, percent, signed
from compressor.pages.page import Drawing, Section, Table
from compressor.pages.palette import GRID, MUTED, hue
from compressor.pages.svg import Board, text_width
from compressor.reports import recorded

MOST = 30
"""The number of classes that are drawn."""
_LANE, _NAMES = 22, 120


@dataclass(frozen=True)
class _Class:
    name: str
    images: int
    after: float | None
    before: float | None

    @property
    def change(self) -> float | None:
        return None if self.after is None or self.before is None else self.after - self.before


def section(now: recorded.Evaluation | None, reference: recorded.Evaluation | None, why: str, missing: str) -> Section:
    """Return the part by class; `why` says, where there is no reference, how to have one, `missing` why there are no
    figures.
    """
    heading = "Accuracy by class, calibration"
    if now is None:
        return Section("classes", heading, missing=missing)
    before = {one.name: one for one in reference.classes} if reference else {}
    rows = [
        _Class(one.name, one.images, one.accuracy, before[one.name].accuracy if one.name in before else None)
        for one in now.classes
    ]
    drawings = [_by_class(rows, reference is not None), _calibration(now.calibration, reference)]
    return Section("classes", heading, drawings, said=[] if reference else [why])


def _by_class(rows: Sequence[_Class], compared: bool) -> Drawing:
    lost = [row for row in rows if row.change is not None and row.change < 0]
    gained = [row for row in rows if row.change is not None and row.change > 0]
    order = sorted(rows, key=lambda row: (row.change if row.change is not None else 0.0, row.after or 0.0))
    shown = rows if len(rows) <= MOST else order[:MOST]
    if compared:
        said = f"{len(lost)} of {len(rows)} classes lost accuracy, {len(gained)} gained, the others are as before"
        if lost:
            named = ", ".join(
                f"{row.name} ({signed(row.change or 0.0, 1)} points)" for row in order[: min(3, len(lost))]
            )
            said += f"; the largest losses: {named}"
    else:
        known = [row for row in rows if row.after is not None]
        worst = min(known, key=lambda row: row.after or 0.0, default=None)
        said = "no reference" if worst is None else f"lowest: {worst.name}, {percent(worst.after, 1)}"
    caption = said[:1].upper() + said[1:] + "."
    if len(shown) < len(rows):
        which = "that lost the most" if compared else "with the lowest accuracy"
        caption += f" Drawn are the {MOST} classes {which}, of {len(rows)}; the table has all."
    table = Table(
        ["class", "images", "before", "after", "change (points)"],
        [
            [
                row.name,
                f"{row.images:,}",
                percent(row.before, 1),
                percent(row.after, 1),
                NONE if row.change is None else signed(row.change, 1),
            ]
            for row in rows
        ],
    )
    title = "Test accuracy by class" + (" before and after (%)" if compared else " (%)")
    return Drawing(
        "by-class", title, caption, lambda width: _draw_classes(shown, compared, width), caption, table, beside=2
    )


def _draw_classes(rows: Sequence[_Class], compared: bool, width: int) -> Board:
    names = min(_NAMES, 14 + int(max(text_width(row.name) for row in rows))) if rows else _NAMES
    board = Board(width, 26 + _LANE * len(rows) + 30)
    entries = [
        ("before", {"color": hue("grey"), "marker": "o", "linestyle": "none", "markersize": 7, "fillstyle": "none"})
    ]
    entries = entries if compared else []
    after: dict[str, Any] = {"color": hue("blue"), "marker": "o", "linestyle": "none", "markersize": 7}
    lost = {"color": hue("red"), "marker": "D", "linestyle": "none", "markersize": 7}
    entries += [("after", after)] + ([("after: lost", lost)] if any((row.change or 0) < 0 for row in rows) else [])
    board.key(names, 14, entries, width)
    axes = board.panel(names, 22, width - names - 60, _LANE * len(rows))
    known = [value for row in rows for value in (row.after, row.before) if value is not None]
    low = min(known, default=0.0)
    axes.set_xlim(max(0.0, 10 * (low // 10) - 2) if low > 20 else -3, 103)
    axes.set_ylim(_LANE * len(rows), 0)
    axes.set_yticks([])
    axes.grid(axis="x")
    axes.locator_params(axis="x", nbins=5)
    for place, row in enumerate(rows):
        y = place * _LANE + _LANE / 2
        board.text(names - 8, 22 + y + 4, board.fitting(row.name, names - 8), ha="right")
        if row.after is None:
            board.text(width - 2, 22 + y + 4, "no images", ha="right", color=hue(MUTED))
            continue
        worse = row.change is not None and row.change < 0
        if row.before is not None:
            axes.plot([row.before, row.after], [y, y], color=hue(GRID), linewidth=3, zorder=1)
            axes.plot([row.before], [y], marker="o", markersize=7, fillstyle="none", color=hue("grey"), clip_on=False)
        axes.plot(
            [row.after],
            [y],
            marker="D" if worse else "o",
            markersize=6,
            color=hue("red" if worse else "blue"),
            clip_on=False,
        )
        told = percent(row.after, 1) if row.change is None else signed(row.change, 1)
        board.text(width - 2, 22 + y + 4, told, ha="right", color=hue(MUTED))
    if compared:
        board.text(width - 2, 14, "points", ha="right", color=hue(MUTED))
    return board


def _calibration(now: recorded.Calibration, reference: recorded.Evaluation | None) -> Drawing:
    before = reference.calibration if reference else None
    said = f"Expected calibration error {fraction(now.error)}"
    if before is not None:
        said += f", before {fraction(before.error)}"
    said += f" ({len(now.bins)} equal bins of confidence; Guo et al. 2017)."
    rows = []
    for place, one in enumerate(now.bins):
        edge = f"{100 * place / len(now.bins):.1f} to {100 * (place + 1) / len(now.bins):.1f} %"
        earlier = fraction(before.bins[place].accuracy, 1) if before and place < len(before.bins) else NONE
        rows.append([edge, f"{one.images:,}", fraction(one.confidence, 1), fraction(one.accuracy, 1), earlier])
    return Drawing(
        "calibration",
        "Calibration: accuracy by confidence (%)",
        said,
        lambda width: _draw_calibration(now, before, width),
        said + " On the diagonal the confidence is right; below it the network is too sure. Larger marks: more images.",
        Table(["confidence", "images", "mean confidence", "accuracy", "accuracy before"], rows),
        beside=2,
    )


def _draw_calibration(now: recorded.Calibration, before: recorded.Calibration | None, width: int) -> Board:
    board = Board(width, 300)
    after: dict[str, Any] = {"color": hue("blue"), "marker": "o", "markersize": 5}
    earlier: dict[str, Any] = {"color": hue("red"), "marker": "s", "markersize": 4, "linestyle": "--"}
    entries: list[tuple[str, dict[str, Any]]] = [("before", earlier)] if before else []
    board.key(40, 14, [*entries, ("after", after), ("exact", {"color": hue("grey"), "linestyle": ":"})], width)
    axes = board.panel(40, 40, width - 56, 210)
    board.text(40, 32, "accuracy (%)", color=hue(MUTED))
    axes.plot([0, 100], [0, 100], color=hue("grey"), linestyle=":")
    for one, style in ((before, earlier), (now, after)):
        shown = [b for b in (one.bins if one else ()) if b.confidence is not None and b.accuracy is not None]
        most = max((b.images for b in shown), default=1) or 1
        x, y = [100 * (b.confidence or 0.0) for b in shown], [100 * (b.accuracy or 0.0) for b in shown]
        axes.plot(x, y, **{**style, "marker": "", "linewidth": 1.0})
        sizes = [12 + 60 * b.images / most for b in shown]
        axes.scatter(x, y, s=sizes, color=style["color"], marker=style["marker"], linewidths=0, zorder=3)
    axes.set_xlim(0, 102)
    axes.set_ylim(0, 104)
    board.text(40, 292, "confidence (%)", color=hue(MUTED))
    return board
