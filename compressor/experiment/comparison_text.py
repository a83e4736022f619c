"""A comparison of runs as text: a table of figures, the differences of what was set, classes, layers and limits."""

from collections.abc import Iterator, Sequence
from typing import Any

from compressor.experiment.comparing import Comparison
from compressor.reports import METRICS, Change, Group, Mean
from compressor.schedule import Stated
from compressor.tables import Column, table, wrapped

WORST = 5
"""The number of classes that are shown: those that lost the most."""
_DIGITS = {"top1": 2, "top5": 2, "loss": 4, "calibration": 2, "validation": 2, "sparsity": 2, "seconds": 1}
_FRACTIONS = ("calibration", "sparsity")
"""The figures that are shown in percent."""


def lines(found: Comparison, width: int | None) -> Iterator[str]:
    """Yield the lines of a comparison, in tables of at most `width` columns."""
    reference, *others = found.groups
    yield from _groups(found, width)
    yield ""
    heads, rows = figures(found)
    columns = [
        Column(head, left=not place, shortened="no" if not place else "middle", rank=int(head == "change"))
        for place, head in enumerate(heads)
    ]
    yield from _table(columns, rows, width)
    yield from _differences(found)
    for one in others:
        yield from _classes(reference, one, width)
    yield from _layers(found, width)
    if found.judged:
        yield ""
        yield from (one.text for one in found.judged)


def figures(found: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return the heads and the rows of the table of figures."""
    reference, *others = found.groups
    heads = ["", reference.name]
    for one in others:
        heads += [one.name, "change"]
    rows = []
    for key, title in METRICS.items():
        row = [title, shown(key, reference.means.get(key))]
        for one in others:
            row += [shown(key, one.means.get(key)), changed(key, one.changes.get(key))]
        if any(cell not in ("", "-") for cell in row[1:]):
            rows.append(row)
    if found.latency:
        row = ["latency of one image (ms)"]
        for one in found.groups:
            row.append(latency(found.latency.get(one.name)))
            row += [""] if one is not reference else []
        rows.append(row)
    return heads, rows


def differences(found: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return the heads and the rows of a table of what was set differently."""
    rows = [[name, one.what, said(one.a), said(one.b)] for name, every in found.differences.items() for one in every]
    return ["run", "what", "reference", "here"], rows


def shown(key: str, mean: Mean | None) -> str:
    """Return a mean with its standard deviation."""
    if mean is None:
        return "-"
    text = number(key, mean.mean)
    return text if mean.deviation is None else f"{text} ± {number(key, mean.deviation)}"


def changed(key: str, change: Change | None) -> str:
    """Return a difference with its interval."""
    if change is None:
        return "-"
    text = _signed(key, change.difference)
    if change.low is None or change.high is None:
        return text
    return f"{text} [{_signed(key, change.low)}, {_signed(key, change.high)}]"


def number(key: str, value: float) -> str:
    """Return a figure with the digits that it has; a count has none behind its point, a fraction is in percent."""
    digits = _DIGITS.get(key)
    value = 100 * value if key in _FRACTIONS else value
    return f"{value:,.0f}" if digits is None else f"{value:.{digits}f}"


def latency(measured: tuple[float, float] | None) -> str:
    """Return a median with the interquartile range."""
    return "-" if measured is None else f"{measured[0]:.3g} ± {measured[1]:.2g}"


def said(side: Stated) -> str:
    """Return a value and where it stands."""
    return f"{side.text} ({side.place})" if side.place else side.text


def _signed(key: str, value: float) -> str:
    text = number(key, abs(value))
    return text if not any(digit in text for digit in "123456789") else ("+" if value > 0 else "-") + text


def _groups(found: Comparison, width: int | None) -> Iterator[str]:
    for place, one in enumerate(found.groups):
        seeds = ", ".join(map(str, one.seeds))
        role = "reference" if place == 0 else f"run {place}" if len(one.runs) == 1 else f"group {place}"
        runs = ", ".join(run.run for run in one.runs)
        yield wrapped(f"{role}: {runs} ({'seed' if len(one.runs) == 1 else 'seeds'} {seeds})", width)
    pairs = {change.pairs for one in found.groups[1:] for change in one.changes.values()}
    if len(found.groups) > 1 and max((len(one.runs) for one in found.groups), default=1) > 1:
        paired = max(pairs, default=0)
        if paired > 1:
            yield wrapped(
                f"± is the standard deviation over seeds; [low, high] the 95 % interval of the mean difference over"
                f" {paired} pairs of equal seeds (Student's t)",
                width,
            )
        else:
            yield wrapped("± is the standard deviation over seeds; fewer than two equal seeds: no interval", width)


def _differences(found: Comparison) -> Iterator[str]:
    for name, every in found.differences.items():
        yield ""
        yield f"set differently in {name}:" if every else f"{name}: schedule and configuration mean the same"
        for one in every:
            only = "" if one.only is None else f" (only in {'the reference' if one.only == 'a' else name})"
            yield f"  {one.what}{only}"
            yield f"    reference: {said(one.a)}"
            yield f"    {name}: {said(one.b)}"


def _classes(reference: Group, one: Group, width: int | None) -> Iterator[str]:
    if not one.class_changes:
        return
    lost = sorted(
        (name for name, change in one.class_changes.items() if change.difference < 0),
        key=lambda name: one.class_changes[name].difference,
    )
    yield ""
    yield f"classes that lost accuracy in {one.name}: {len(lost)} of {len(one.class_changes)}"
    columns = [Column("class", left=True, shortened="end"), Column("reference (%)"), Column("here (%)")]
    columns.append(Column("change (points)"))
    rows = [
        [
            name,
            shown("top1", reference.classes.get(name)),
            shown("top1", one.classes.get(name)),
            changed("top1", one.class_changes[name]),
        ]
        for name in lost[:WORST]
    ]
    if rows:
        yield from _table(columns, rows, width)
    if len(lost) > WORST:
        yield f"and {len(lost) - WORST} more (--json and --html have all)"


def _layers(found: Comparison, width: int | None) -> Iterator[str]:
    names = list(dict.fromkeys(name for one in found.groups for name in one.layers))
    names = [name for name in names if any(one.layers[name].mean for one in found.groups if name in one.layers)]
    if not names:
        return
    yield ""
    columns = [Column("sparsity by weight (%)", left=True, shortened="middle")]
    columns += [Column(one.name, shortened="middle") for one in found.groups]
    rows = [[name, *(shown("sparsity", one.layers.get(name)) for one in found.groups)] for name in names]
    yield from _table(columns, rows, width)


def _table(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> Iterator[str]:
    made: Any = table(columns, rows, width)
    yield made.head
    yield made.rule
    yield from made.rows
    yield from made.note(width)
