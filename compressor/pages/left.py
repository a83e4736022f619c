"""Where the weights are left, and the MACs: each layer dense, thin (without removed channels) and without zeros."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compressor.pages.numbers import NONE, amount, fraction
from compressor.pages.page import Drawing, Section, Table
from compressor.pages.palette import MUTED, hue
from compressor.pages.svg import Board, boxes, text_width
from compressor.reports import Report

MOST, MOST_NARROW = 60, 24
_NAMES, _LANE = 160, 20


@dataclass(frozen=True)
class Amounts:
    """One layer's weights or MACs: of the dense network, of the one that is shipped, and of its non-zero weights."""

    name: str
    dense: int
    thin: int
    nonzero: int


def amounts(
    report: Report, dense: Mapping[str, int], macs: Mapping[str, int], thin_macs: Mapping[str, int]
) -> tuple[list[Amounts], list[Amounts]]:
    """Return the weights and the MACs of each layer.

    `dense`: the number of entries of each weight of the dense network; `macs`: its MACs; `thin_macs`: those of the
    network of `report`. Layers that were removed as a whole have nothing left.
    """
    rows = {row.name: row for row in report.tensors if row.prunable}
    weights, work = [], []
    for name in dict.fromkeys([*dense, *rows]):
        row, own = rows.get(name), thin_macs.get(name, 0)
        count, nonzero = (0, 0) if row is None else (row.weights, row.nonzero)
        weights.append(Amounts(name, dense.get(name, count), count, nonzero))
        work.append(Amounts(name, macs.get(name, own), own, own * nonzero // max(count, 1)))
    return weights, work


def section(weights: Sequence[Amounts], macs: Sequence[Amounts]) -> Section:
    """Return the part with a drawing of the weights and one of the MACs."""
    if not weights:
        return Section("left", "Where the weights are left", missing="the network has no prunable weight")
    thinned = any(one.thin < one.dense for one in weights)
    drawings = [
        _drawing("weights-left", "Weights by layer: dense, left", "weights", weights, thinned),
        _drawing("macs-left", "MACs of one image by layer: dense, left", "MACs", macs, thinned),
    ]
    return Section("left", "Where the weights are left", drawings)


def _drawing(name: str, title: str, unit: str, rows: Sequence[Amounts], thinned: bool) -> Drawing:
    dense, left = sum(one.dense for one in rows), sum(one.nonzero for one in rows)
    thin = sum(one.thin for one in rows)
    whose = "" if unit == "weights" else "of weights that are "
    said = f"Of {dense:,} {unit} {left:,} ({fraction(left / max(dense, 1))}) are {whose}not zero"
    if thinned:
        said += f"; {thin:,} remain in the thinned network"
    most = max(len(rows), 1)
    caption = said + "."
    if most > MOST_NARROW:
        count = f"{MOST}" if most > MOST else f"{MOST_NARROW} on narrow screens"
        caption += f" Drawn are the layers with the most: {count} of {most}; the table has all."
    table = Table(
        ["layer", "dense", *(["thin"] if thinned else []), "non-zero", "left"],
        [
            [
                one.name,
                f"{one.dense:,}",
                *([f"{one.thin:,}"] if thinned else []),
                f"{one.nonzero:,}",
                fraction(one.nonzero / one.dense) if one.dense else NONE,
            ]
            for one in rows
        ],
    )
    return Drawing(
        name, f"{title} ({unit})", said + ".", lambda width: _draw(rows, unit, thinned, width), caption, table, beside=2
    )


def _draw(rows: Sequence[Amounts], unit: str, thinned: bool, width: int) -> Board:
    narrow = width < 400
    chosen = sorted(rows, key=lambda one: -one.dense)[: MOST_NARROW if narrow else MOST]
    rows = [one for one in rows if one in chosen]
    lane, left, right = (32, 4, 0) if narrow else (_LANE, _NAMES, 66)
    top, offset = 26, 17 if narrow else 3
    board = Board(width, top + lane * len(rows) + 30)
    styles = [("dense", {"area": True, "facecolor": hue("grey"), "alpha": 0.35})]
    styles += [("thin", {"area": True, "facecolor": hue("ochre")})] if thinned else []
    styles += [("non-zero", {"area": True, "facecolor": hue("blue")})]
    board.key(left, 14, styles, width)
    axes = board.panel(left, top, width - left - right - 20, lane * len(rows))
    largest = max((one.dense for one in rows), default=1) or 1
    axes.set_xlim(0, largest)
    axes.set_ylim(lane * len(rows), 0)
    axes.set_yticks([])
    axes.grid(axis="x")
    axes.locator_params(axis="x", nbins=4)
    axes.xaxis.set_major_formatter(lambda value, _: amount(value))
    behind: list[tuple[float, float, float, float, str]] = []
    before: list[tuple[float, float, float, float, str]] = []
    for place, one in enumerate(rows):
        y = place * lane + offset
        behind.append((0, y, one.dense, 13, hue("grey")))
        if thinned:
            before.append((0, y + 2, one.thin, 9, hue("ochre")))
        before.append((0, y + 4, one.nonzero, 5, hue("blue")))
        part = fraction(one.nonzero / one.dense, 1) if one.dense else NONE
        line = top + place * lane + (13 if narrow else 14)
        if narrow:
            told = f"{amount(one.dense)}, {part} left"
            board.text(0, line, board.fitting(one.name, width - text_width(told) - 12))
            board.text(width - 2, line, told, ha="right", color=hue(MUTED))
        else:
            board.text(left - 8, line, board.fitting(one.name, left - 8), ha="right")
            board.text(width - 2, line, f"{part} left", ha="right", color=hue(MUTED))
    boxes(axes, behind, alpha=0.35)
    boxes(axes, before)
    return board
