"""The table and the picture of `make every-method`."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.every_method import (
    DENSE,
    ELEMENTS,
    EPOCHS,
    FILTERS,
    FOLDER,
    METHODS,
    RATES,
    ROOT,
    Method,
    asked,
    best_base,
    goal,
    points,
)
from benchmarks.recorded import between

PAGE, PICTURE = ROOT / "docs" / "results.md", FOLDER / "every-method.svg"
MARKS = ("<!-- every method -->", "<!-- end of every method -->")
HIGHEST = 1.3
"""Points above the dense control at which the picture ends."""
HEAD = """\
Test errors in percent of the last epoch, mean and standard deviation of {seeds} seeds; a seed has images, initial
weights and order of its own. In brackets: less the dense control of the same seeds. In **bold**: what is not worse than
the lowest of its column by more than two standard errors of the difference, seed by seed. Where a method has no target,
what it reached stands with the error. All begin with the dense network of their seed ({epochs} epochs; seed 0 has a
validation error of {validation} %) and train {epochs} epochs more. *Cost*: the time of that training, as times that of
the dense control; *times as fast*: of what thinning leaves, at a batch of 16."""

Result = Mapping[str, Any]


def write(trials: Mapping[str, Result], finals: Mapping[str, Result]) -> None:
    """Put the table into docs/results.md, and the picture beside the figures."""
    PAGE.write_text(between(PAGE, MARKS, text(trials, finals)), encoding="utf-8")
    PICTURE.write_text(picture(finals), encoding="utf-8")


def spread(values: Sequence[float]) -> float:
    """Return the standard deviation (n - 1); 0 of a single value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def less(values: Sequence[float], others: Sequence[float]) -> list[float]:
    """Return how much errors are above others, seed by seed."""
    return [one - other for one, other in zip(values, others, strict=True)]


def alike(values: Sequence[float], lowest: Sequence[float]) -> bool:
    """Return whether errors are, on average, at most two standard errors of their difference above others, by seed."""
    more = less(values, lowest)
    return statistics.mean(more) <= 2 * spread(more) / math.sqrt(len(more)) + 1e-9


def _of(finals: Iterable[Result], method: str, point: float) -> list[Result]:
    """Return the final runs of a method at a point, by seed."""
    made = [one for one in finals if (one["method"], one["point"]) == (method, point)]
    return sorted(made, key=lambda one: one["seed"])


def _mean(made: Sequence[Result], what: str) -> float:
    return statistics.mean(float(one[what]) for one in made)


def _errors(made: Sequence[Result]) -> list[float]:
    return [one["error"] for one in made]


def _cell(method: str, made: Sequence[Result], lowest: Sequence[float], dense: Sequence[float]) -> str:
    if not made:
        return "-"
    errors = _errors(made)
    more = round(statistics.mean(less(errors, dense)), 2) + 0.0  # no minus before a zero
    said = f"{statistics.mean(errors):.2f} ± {spread(errors):.2f} ({more:+.2f})"
    if alike(errors, lowest):
        said = f"**{said}**"
    if not METHODS[method].aims and method not in DENSE:
        part = _mean(made, "left")
        said += f" at {100 * (part if method in FILTERS else 1 - part):.1f} %"
    empty = sorted({name.removesuffix(".weight") for one in made for name, left in one["layers"].items() if not left})
    return said + (f" ({', '.join(empty)} empty)" if empty else "")


def _table(methods: Mapping[str, Method], what: str, finals: Sequence[Result]) -> list[str]:
    columns = points(next(iter(methods)))
    dense = _of(finals, "dense", 0.0)
    more = ["times as fast", "cost"] if methods is FILTERS else ["cost"]
    lines = [f"| {what} | {' | '.join([*columns.values(), *more])} |", "| --- " * (1 + len(columns) + len(more)) + "|"]
    lowest = {
        point: min((_errors(made) for one in methods if (made := _of(finals, one, point))), key=statistics.mean)
        for point in columns
    }
    for method, own in methods.items():
        cells = [_cell(method, _of(finals, method, point), lowest[point], _errors(dense)) for point in columns]
        every = [one for point in columns for one in _of(finals, method, point)]
        if methods is FILTERS:
            cells.append(", ".join(f"{_mean(_of(finals, method, point), 'times_as_fast'):.2f}" for point in columns))
        cells.append(f"{_mean(every, 'seconds') / _mean(dense, 'seconds'):.1f}")
        lines.append(f"| {own.title} | {' | '.join(cells)} |")
    return lines


def text(trials: Mapping[str, Result], finals: Mapping[str, Result]) -> str:
    """Return both tables, with what was tried."""
    made = list(finals.values())
    dense = _errors(_of(made, "dense", 0.0))
    head = HEAD.format(seeds=len(dense), validation=f"{best_base(trials)['validation']:.2f}", epochs=EPOCHS)
    control = f"The dense control: {statistics.mean(dense):.2f} ± {spread(dense):.2f}."
    listed = {name: one for name, one in trials.items() if name in asked()}
    failed = sorted(name for name, one in listed.items() if "failed" in one)
    tried = f"{len(listed)} trials: the dense network: rates {_words(RATES)}; "
    tried += "; ".join(_tried(name) for name in METHODS) + "."
    lines = [head, "", control, "", *_table(ELEMENTS, "single weights pruned", made), ""]
    lines += [*_table(FILTERS, "MACs left", made), "", tried]
    if failed:
        lines.append(f"Diverged: {'; '.join(failed)}.")
    return "\n".join(lines)


def _tried(method: str) -> str:
    own = METHODS[method]
    said = f"{own.title}: rates {_words(RATES if own.strength is None else own.rates)}"
    if own.strength is None:
        return said
    each = "" if own.aims else ", over all operating points"
    return f"{said}, `{own.strength}` {_words(own.tried)}{each}"


def _words(numbers: Iterable[float]) -> str:
    return " ".join(f"{one:g}" for one in numbers)


def picture(finals: Mapping[str, Result]) -> str:
    """Return an SVG of errors less the dense control's against what is left, with the deviation over the seeds."""
    from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

    from benchmarks.figures import BLUE, GREEN, INK, ORANGE, PINK, drawn

    colours, marks = (BLUE, ORANGE, GREEN, PINK), ("o-", "s--")
    made = list(finals.values())
    dense = _errors(_of(made, "dense", 0.0))

    def draw(axes: list[Any]) -> None:
        axes[0].figure.set_size_inches(7.6, 4.2)
        kinds = ((ELEMENTS, "weights left in %"), (FILTERS, "MACs left in %"))
        for axis, (methods, what) in zip(axes, kinds, strict=True):
            lowest = 0.0
            for number, (method, own) in enumerate(methods.items()):
                every = [here for point in points(method) if (here := _of(made, method, point))]
                places = [100 * _mean(here, "left") for here in every]
                more = [less(_errors(here), dense) for here in every]
                middle, ends = [statistics.mean(each) for each in more], [spread(each) for each in more]
                lowest = min([lowest, *(here - end for here, end in zip(middle, ends, strict=True))])
                colour, mark = colours[number % len(colours)], marks[number // len(colours)]
                axis.errorbar(places, middle, ends, fmt=mark, color=colour, label=own.title, markersize=3, capsize=2)
            axis.axhline(0, color=INK, linewidth=0.8, linestyle=":", label="dense")
            axis.set(xscale="log", xlabel=what, ylabel="test error less dense, in points")
            axis.set_ylim(1.2 * lowest, min(axis.get_ylim()[1], HIGHEST))
            axis.invert_xaxis()
            axis.xaxis.set_major_locator(FixedLocator([100 * goal(method, point) for point in points(method)]))
            axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.xaxis.set_minor_locator(NullLocator())
            below: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.45, -0.2), "ncols": 2}
            axis.legend(fontsize=7.5, frameon=False, handlelength=1.5, columnspacing=1, **below)

    said = "Test error of every method less that of the dense control, against the weights and the MACs that are left."
    return drawn("every-method", draw, 2, 1, said)
