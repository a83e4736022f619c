"""The page of a comparison of runs: figures, accuracy against size, classes, layers, what was set differently."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compressor.pages.numbers import size
from compressor.pages.page import Drawing, Head, Section, Table, render
from compressor.pages.palette import HUES, MUTED, hue
from compressor.pages.svg import Board, text_width
from compressor.reports import ACCURACIES, Group, Mean, accuracy

MOST = 40
"""The number of classes, or of weights, that are drawn."""
_LANE, _MARKS = 24, "osD^vPX"


@dataclass(frozen=True)
class ComparisonContent:
    """What the page shows: the groups, the reference first; tables of texts; lines on limits and on the comparison."""

    groups: Sequence[Group]
    figures: Table
    differences: Table
    judged: Sequence[str]
    failed: bool
    notes: Sequence[str]


def comparison_page(content: ComparisonContent) -> str:
    """Return the page of a comparison as HTML."""
    reference, *others = content.groups
    outcome = (
        []
        if not content.judged
        else ["A limit is not met, or not decided." if content.failed else "All limits are met."]
    )
    head = Head(
        title=", ".join(one.name for one in others) or reference.name,
        kind="Comparison of training runs",
        said=[
            f"Compared with {reference.name}." if others else "Seeds of one schedule and configuration.",
            *outcome,
        ],
        facts=[(one.name, _seeds(one)) for one in content.groups],
        warnings=[*content.judged, *content.notes] if content.failed else list(content.notes),
    )
    sections = [
        Section(
            "figures",
            "Figures",
            [_trade(content.groups)],
            said=[] if content.failed else content.judged,
            table=content.figures,
        ),
        _classes(reference, others),
        _layers(content.groups),
        Section(
            "differences",
            "What was set differently",
            missing=None if content.differences.rows else "Schedules and configurations mean the same.",
            table=content.differences if content.differences.rows else None,
        ),
    ]
    return render(head, sections)


def _seeds(one: Group) -> str:
    seeds = ", ".join(map(str, one.seeds))
    return f"{len(one.runs)} runs, seeds {seeds}" if len(one.runs) > 1 else f"1 run, seed {seeds}"


def _trade(groups: Sequence[Group]) -> Drawing:
    """Return the drawing of accuracy against stored size, a mark for each run."""
    gain = accuracy(one.means for one in groups)
    points = [
        [
            (run.figures["bytes"], run.figures[gain])
            for run in one.runs
            if None not in (run.figures["bytes"], run.figures[gain])
        ]
        for one in groups
    ]
    said = "; ".join(f"{one.name}: {_mean(one.means.get(gain), ' %')} at {_size(one)}" for one in groups)
    return Drawing(
        "trade",
        f"{ACCURACIES[gain]} (%) against stored size (kB)",
        said + ".",
        lambda width: _draw_trade(groups, points, gain, width),
        "A mark is a run; lines show one standard deviation of a group.",
    )


def _size(one: Group) -> str:
    return size(one.means["bytes"].mean) if "bytes" in one.means else "unknown size"


def _draw_trade(
    groups: Sequence[Group], points: Sequence[Sequence[tuple[float | None, float | None]]], gain: str, width: int
) -> Board:
    board = Board(width, 320)
    entries = [(one.name[: max(8, width // 9)], _style(place)) for place, one in enumerate(groups)]
    board.key(44, 14, entries, width)
    top = 30 + 16 * len(groups) if width < 500 else 46
    axes = board.panel(44, top, width - 60, 320 - top - 44)
    for place, (one, found) in enumerate(zip(groups, points, strict=True)):
        x = [(across or 0.0) / 1000 for across, _ in found]
        y = [up or 0.0 for _, up in found]
        axes.plot(x, y, **_style(place), clip_on=False)
        mean, across_mean = one.means.get(gain), one.means.get("bytes")
        if mean is not None and across_mean is not None and mean.deviation is not None:
            axes.errorbar(
                [across_mean.mean / 1000],
                [mean.mean],
                yerr=[mean.deviation],
                color=hue(HUES[place % len(HUES)]),
                capsize=4,
                linewidth=1.5,
            )
    axes.margins(0.12)
    axes.locator_params(nbins=5)
    board.text(44, 314, "stored size (kB)", color=hue(MUTED))
    return board


def _style(place: int) -> dict[str, Any]:
    return {
        "color": hue(HUES[place % len(HUES)]),
        "marker": _MARKS[place % len(_MARKS)],
        "linestyle": "none",
        "markersize": 7,
    }


def _classes(reference: Group, others: Sequence[Group]) -> Section:
    compared = [one for one in others if one.class_changes]
    heading = "Accuracy by class"
    names = list(reference.classes)
    if names and not others:
        return Section("classes", heading, [_classes_alone(reference)])
    if not compared:
        return Section("classes", heading, missing="Accuracies of the same classes are not recorded in the runs.")
    worst = {
        name: min(one.class_changes[name].difference for one in compared if name in one.class_changes)
        for name in names
        if any(name in one.class_changes for one in compared)
    }
    order = sorted(worst, key=lambda name: worst[name])
    shown = [name for name in names if name in order[:MOST]]
    lost = [name for name in order if worst[name] < 0]
    caption = f"{len(lost)} of {len(worst)} classes lost accuracy" + (
        f", the most: {lost[0]} ({worst[lost[0]]:+.1f} points)." if lost else "."
    )
    if len(shown) < len(worst):
        caption += f" Drawn are the {MOST} that lost the most; the table has all."
    heads = ["class", reference.name, *(part for one in compared for part in (one.name, "change (points)"))]
    rows = [
        [
            name,
            _mean(reference.classes.get(name)),
            *(
                part
                for one in compared
                for part in (
                    _mean(one.classes.get(name)),
                    f"{one.class_changes[name].difference:+.2f}" if name in one.class_changes else "–",
                )
            ),
        ]
        for name in worst
    ]
    drawing = Drawing(
        "by-class",
        "Test accuracy by class (%)",
        caption,
        lambda width: _draw_rows([reference, *compared], shown, lambda one: one.classes, width),
        caption,
        Table(heads, rows),
    )
    return Section("classes", heading, [drawing])


def _classes_alone(one: Group) -> Drawing:
    """Return the drawing of a group that there is nothing to compare with."""
    lowest = sorted(one.classes, key=lambda name: one.classes[name].mean)
    shown = [name for name in one.classes if name in lowest[:MOST]]
    caption = f"Means of {len(one.runs)} runs. Lowest: {lowest[0]}, {one.classes[lowest[0]].mean:.1f} %."
    if len(shown) < len(lowest):
        caption += f" Drawn are the {MOST} lowest; the table has all."
    return Drawing(
        "by-class",
        "Test accuracy by class (%)",
        caption,
        lambda width: _draw_rows([one], shown, lambda group: group.classes, width),
        caption,
        Table(["class", one.name], [[name, _mean(mean)] for name, mean in one.classes.items()]),
    )


def _layers(groups: Sequence[Group]) -> Section:
    heading = "Sparsity by weight"
    names = list(dict.fromkeys(name for one in groups for name in one.layers))
    if not names:
        return Section("layers", heading, missing="The sparsity by weight is not recorded in the runs.")
    pruned = [name for name in names if any(one.layers[name].mean for one in groups if name in one.layers)]
    shown = pruned[:MOST]
    caption = f"{len(pruned)} of {len(names)} weights have zeros; the table has all."
    table = Table(
        ["weight", *(one.name for one in groups)],
        [
            [name, *(_mean(in_percent(one.layers[name]) if name in one.layers else None) for one in groups)]
            for name in names
        ],
    )
    if not shown:
        return Section("layers", heading, said=["No weight has zeros."], table=table)
    drawing = Drawing(
        "by-layer",
        "Sparsity by weight (%)",
        caption,
        lambda width: _draw_rows(
            groups, shown, lambda one: {name: in_percent(mean) for name, mean in one.layers.items()}, width
        ),
        caption,
        table,
    )
    return Section("layers", heading, [drawing])


def _draw_rows(
    groups: Sequence[Group], names: Sequence[str], values: Callable[[Group], Mapping[str, Mean]], width: int
) -> Board:
    """Draw a lane for each name, with the mark of each group at its mean."""
    left = min(0.4 * width, 14 + max(text_width(name) for name in names)) if names else 100
    key = 30 + 16 * len(groups) if width < 500 else 46
    board = Board(width, key + _LANE * len(names) + 30)
    board.key(8, 14, [(one.name[: max(8, width // 9)], _style(place)) for place, one in enumerate(groups)], width)
    axes = board.panel(left, key, width - left - 16, _LANE * len(names))
    known = [values(one)[name].mean for one in groups for name in names if name in values(one)]
    low = min(known, default=0.0)
    axes.set_xlim(max(0.0, 10 * (low // 10) - 2) if low > 20 else -3, 103)
    axes.set_ylim(_LANE * len(names), 0)
    axes.set_yticks([])
    axes.grid(axis="x")
    axes.locator_params(axis="x", nbins=5)
    for lane, name in enumerate(names):
        y = lane * _LANE + _LANE / 2
        board.text(left - 8, key + y + 4, board.fitting(name, left - 8), ha="right")
        for place, one in enumerate(groups):
            if name in values(one):
                axes.plot([values(one)[name].mean], [y], **_style(place), clip_on=False)
    return board


def in_percent(mean: Mean) -> Mean:
    """Return the mean of fractions in percent."""
    spread = None if mean.deviation is None else 100 * mean.deviation
    return Mean(mean=100 * mean.mean, deviation=spread, runs=mean.runs)


def _mean(mean: Mean | None, unit: str = "") -> str:
    if mean is None:
        return "–"
    return f"{mean.mean:.2f}{unit}" + ("" if mean.deviation is None else f" ± {mean.deviation:.2f}")
