"""The page of a sweep: accuracy against sparsity, stored size and latency, the settings, and all runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from matplotlib.ticker import FuncFormatter, LogLocator

from compressor.pages.numbers import NONE, amount, counted, milliseconds, size
from compressor.pages.page import Drawing, Head, Section, Table, render
from compressor.pages.palette import HUES, INK, MUTED, hue
from compressor.pages.svg import Board, text_width
from compressor.reports import ACCURACIES, FRONTS, LATENCY, Mean, Setting, SweptRun, accuracy, short_keys, times_differ

_HEIGHT, _WIDE_RANGE = 360, 20
"""The height of a drawing in pixels, and from which ratio of its values on an axis is logarithmic."""
_MARKS = "osD^vP"


@dataclass(frozen=True)
class SweepContent:
    """What the page shows: the names of schedule and configuration, and the settings with their runs."""

    schedule: str
    config: str
    settings: Sequence[Setting]


@dataclass(frozen=True)
class _Axis:
    """What accuracy is drawn against: its key, title and unit, a number in that unit, and as text."""

    key: str
    title: str
    unit: str
    value: Callable[[float], float]
    text: Callable[[float], str]
    accuracy: str = "top1"
    """The key of the accuracy."""


_AXES = (
    _Axis("sparsity", "sparsity", "sparsity (%)", lambda found: 100 * found, lambda found: f"{100 * found:.2f} %"),
    _Axis("bytes", "stored size", "stored size (kB)", lambda found: found / 1000, size),
    _Axis(LATENCY, "latency", "latency of one image (ms)", lambda found: found, milliseconds),
)


def sweep_page(content: SweepContent) -> str:
    """Return the page of a sweep as HTML."""
    settings = content.settings
    runs = [run for one in settings for run in one.runs]
    finished = [run for run in runs if run.status == "finished"]
    seeds = sorted({run.seed for run in runs})
    keys = _keys(settings)
    values = {key: list(dict.fromkeys(one.settings.get(key, NONE) for one in settings)) for key in keys}
    shown = ", ".join(map(str, seeds)) if len(seeds) <= 5 else f"{counted(len(seeds), 'seed')}"
    head = Head(
        title=f"{content.schedule} under {content.config}",
        kind="Sweep",
        said=[f"{counted(len(settings), 'setting')}, {len(finished)} of {counted(len(runs), 'run')} finished."],
        facts=[("Seeds", shown), *((key, ", ".join(found)) for key, found in values.items())],
        warnings=[_unfinished(run) for run in runs if run.status != "finished"],
    )
    return render(head, [_trades(settings), _table(settings, keys), _runs(settings)])


def _unfinished(run: SweptRun) -> str:
    return f"{run.name}: {run.status}" + (f": {run.failure}" if run.failure else "")


def _keys(settings: Sequence[Setting]) -> list[str]:
    return list(dict.fromkeys(key for one in settings for key in one.settings))


def _trades(settings: Sequence[Setting]) -> Section:
    heading = "Accuracy against sparsity, size and latency"
    axes = [replace(axis, accuracy=accuracy(one.means for one in settings)) for axis in _AXES]
    drawings = [drawing for axis in axes if (drawing := _trade(settings, axis)) is not None]
    if not drawings:
        return Section("trade", heading, missing="No run is finished.")
    said = [
        "A large mark is the mean over the seeds of a setting, with one standard deviation in both directions; a small"
        " mark is a run. The dashed line joins the Pareto front: no other setting is at least as good in both figures"
        " and better in one. Numbers are those of the table of settings.",
    ]
    if any(drawing.name.endswith(LATENCY) for drawing in drawings):
        said.append(
            "The latency of each run was measured after the runs, one forward pass at a time, on the CPU of the machine"
            " where the sweep was started. Zeros alone save no time; removed channels do."
        )
        if not times_differ(settings):
            said.append(
                "The spread of the measured times is larger than their difference between any two settings: nothing can"
                " be said of speed here, and there is no Pareto front of latency."
            )
    return Section("trade", heading, drawings, said)


def _trade(settings: Sequence[Setting], axis: _Axis) -> Drawing | None:
    known = [one for one in settings if axis.key in one.means and axis.accuracy in one.means]
    if not known:
        return None
    best = sorted(_front(known, axis), key=lambda one: one.means[axis.key].mean)
    described = "; ".join(
        f"setting {one.number} ({one.label}): {one.means[axis.accuracy].mean:.2f} %"
        f" at {axis.text(one.means[axis.key].mean)}"
        for one in best
    )
    fronts = f"On the Pareto front: {described}." if best else "There is no Pareto front."
    return Drawing(
        f"trade-{axis.key}",
        f"{ACCURACIES[axis.accuracy]} (%) against {axis.title}",
        f"{counted(len(known), 'setting')}. {fronts}",
        lambda width: _draw(known, best, axis, _styles(settings), width),
    )


def _front(settings: Sequence[Setting], axis: _Axis) -> list[Setting]:
    return [one for one in settings if FRONTS[axis.key] in one.fronts]


def _styles(settings: Sequence[Setting]) -> tuple[str, dict[str, dict[str, Any]]]:
    """Return the key of the grid whose values have hues and marks of their own, and the style of each value: the first
    key with two to six values. Without one all settings look the same.
    """
    short = short_keys(_keys(settings))
    for key in short:
        values = list(dict.fromkeys(one.settings.get(key, NONE) for one in settings))
        if 1 < len(values) <= len(HUES):
            return key, {
                value: {"color": hue(HUES[place]), "marker": _MARKS[place], "linestyle": "none"}
                for place, value in enumerate(values)
            }
    return "", {}


def _draw(
    known: Sequence[Setting],
    best: Sequence[Setting],
    axis: _Axis,
    styles: tuple[str, dict[str, dict[str, Any]]],
    width: int,
) -> Board:
    key, by_value = styles
    plain = {"color": hue(HUES[0]), "marker": "o", "linestyle": "none"}
    short = short_keys(_keys(known)).get(key, key)
    entries = [
        (f"{short} {value}"[: max(8, width // 9)], {**style, "markersize": 7}) for value, style in by_value.items()
    ]
    entries += [] if by_value else [("a setting", {**plain, "markersize": 7})]
    if best:
        entries.append(("Pareto front", {"color": hue(MUTED), "linestyle": "--", "linewidth": 1.5}))
    top = 30 + 16 * len(entries) if width < 500 else 30 + 16 * -(-sum(_wide(name) for name, _ in entries) // width)
    board = Board(width, _HEIGHT + top - 46)
    board.key(44, 14, entries, width)
    axes = board.panel(44, top, width - 60, _HEIGHT - 46 - 44)
    spread = [axis.value(one.means[axis.key].mean) for one in known]
    if min(spread) > 0 and max(spread) / min(spread) > _WIDE_RANGE:
        axes.set_xscale("log", subs=())
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=8))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    along = [axis.value(one.means[axis.key].mean) for one in best]
    axes.plot(along, [one.means[axis.accuracy].mean for one in best], "--", color=hue(MUTED), linewidth=1.5, zorder=1)
    for one in known:
        style = by_value.get(one.settings.get(key, NONE), plain)
        if len(one.runs) > 1:
            _draw_runs(axes, one, axis, style)
        x, y = axis.value(one.means[axis.key].mean), one.means[axis.accuracy].mean
        axes.errorbar(
            [x],
            [y],
            xerr=axis.value(one.means[axis.key].deviation or 0) or None,
            yerr=one.means[axis.accuracy].deviation or None,
            color=style["color"],
            capsize=3,
            linewidth=1.2,
            zorder=2,
        )
        axes.plot([x], [y], **style, markersize=8, clip_on=False, zorder=3)
    axes.margins(0.1)
    axes.autoscale_view()  # now, so that the numbers know where the marks are
    if axes.get_xscale() == "linear":
        axes.locator_params(nbins=5)
    _number(axes, [*best, *(one for one in known if one not in best)], axis)
    board.text(44, board.height - 6, axis.unit, color=hue(MUTED))
    return board


def _wide(name: str) -> float:
    return 37 + text_width(name)


def _draw_runs(axes: Any, one: Setting, axis: _Axis, style: dict[str, Any]) -> None:
    places = []
    for run in one.runs:
        if run.figures is None:
            continue
        figures = {**run.figures.figures, LATENCY: None if run.latency is None else run.latency[0]}
        across, up = figures[axis.key], figures[axis.accuracy]
        if across is not None and up is not None:
            places.append((axis.value(across), up))
    if places:
        x, y = zip(*places, strict=True)
        axes.plot(x, y, **{**style, "markersize": 3.5, "alpha": 0.55}, clip_on=False, zorder=2)


def _number(axes: Any, known: Sequence[Setting], axis: _Axis) -> None:
    """Write the number of each setting beside its mark, where it hides no other; the first ones first."""
    taken: list[tuple[float, float]] = []
    marks = [
        tuple(axes.transData.transform((axis.value(one.means[axis.key].mean), one.means[axis.accuracy].mean)))
        for one in known
    ]
    for one, (x, y) in zip(known, marks, strict=True):
        place = (x + 10, y + 9)
        if _near(place, taken, 14, 11) or _near(place, marks, 8, 8):
            continue
        taken.append(place)
        axes.annotate(
            str(one.number),
            (axis.value(one.means[axis.key].mean), one.means[axis.accuracy].mean),
            (6, 5),
            textcoords="offset points",
            color=hue(INK),
            annotation_clip=False,
        )


def _near(place: tuple[float, float], others: Sequence[tuple[float, float]], across: float, up: float) -> bool:
    return any(abs(place[0] - x) < across and abs(place[1] - y) < up for x, y in others)


def _table(settings: Sequence[Setting], keys: Sequence[str]) -> Section:
    gain = accuracy(one.means for one in settings)
    heads = [
        "no.",
        *keys,
        "runs",
        f"{ACCURACIES[gain].lower()} (%)",
        "sparsity (%)",
        "size",
        "MACs",
        "latency (ms)",
        "Pareto front",
    ]
    rows = [
        [
            str(one.number),
            *(one.settings.get(key, NONE) for key in keys),
            str(sum(run.status == "finished" for run in one.runs)),
            _mean(one.means.get(gain), lambda found: f"{found:.2f}"),
            _mean(one.means.get("sparsity"), lambda found: f"{100 * found:.2f}"),
            _mean(one.means.get("bytes"), size),
            _mean(one.means.get("macs"), amount),
            _mean(one.means.get(LATENCY), lambda found: f"{found:.3g}"),
            ", ".join(one.fronts) or NONE,
        ]
        for one in settings
    ]
    said = ["Means over the seeds ± one standard deviation."]
    return Section("settings", "Settings", said=said, table=Table(heads, rows, left=1 + len(keys)))


def _mean(mean: Mean | None, text: Callable[[float], str]) -> str:
    if mean is None:
        return NONE
    return text(mean.mean) + ("" if mean.deviation is None else f" ± {text(mean.deviation)}")


def _runs(settings: Sequence[Setting]) -> Section:
    rows, gain = [], accuracy(one.means for one in settings)
    for one in settings:
        for run in one.runs:
            figures = {} if run.figures is None else run.figures.figures
            top1, sparsity, stored = figures.get(gain), figures.get("sparsity"), figures.get("bytes")
            rows.append(
                [
                    run.name,
                    run.status,
                    str(one.number),
                    str(run.seed),
                    NONE if top1 is None else f"{top1:.2f}",
                    NONE if sparsity is None else f"{100 * sparsity:.2f}",
                    size(stored),
                    NONE if run.latency is None else f"{run.latency[0]:.3g} ± {run.latency[1]:.2g}",
                ]
            )
    heads = [
        "run",
        "status",
        "setting",
        "seed",
        f"{ACCURACIES[gain].lower()} (%)",
        "sparsity (%)",
        "size",
        "latency (ms)",
    ]
    said = ["Each is the folder of a run. Latency: the median of the rounds ± their interquartile range."]
    return Section("runs", "Runs", said=said, table=Table(heads, rows, left=2))
