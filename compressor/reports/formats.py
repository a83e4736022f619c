"""A report as a table, as CSV and as JSON."""

import csv
import io

from compressor.reports.latency import Latency
from compressor.reports.report import IMAGES, Comparison, EarlierTest, Report, Thinning, Totals
from compressor.sparsity import WeightSummary
from compressor.storage import StoredBits
from compressor.tables import Column, table, wrapped
from compressor.thinning import NOTHING_REMOVED

_SHARES = ("sparsity", "filters", "channels", "kernels", "rows", "cols")
OTHERS = "other parameters"
"""The name of the row of all parameters of less than two dims."""
_MOMENTS = ("mean", "std", "mean_abs")
_COLUMNS = [
    Column("name", left=True, shortened="middle"),
    Column("shape", left=True, rank=1),
    Column("weights"),
    Column("nonzero", rank=2),
    Column("sparsity %"),
    Column("filters %", rank=3),
    Column("channels %", rank=4),
    Column("kernels %", rank=7),
    Column("rows %", rank=5),
    Column("cols %", rank=6),
    Column("mean", rank=9),
    Column("std", rank=10),
    Column("mean_abs", rank=8),
]
"""Of the table, in the order of `_SHARES` and `_MOMENTS`; the zeros of a whole structure matter more than moments."""


def as_json(report: Report) -> str:
    """Return the whole report as JSON, indented."""
    return report.model_dump_json(indent=2, by_alias=True) + "\n"


def as_csv(report: Report) -> str:
    """Return a line for each tensor, one for all other parameters, and a last line `total`.

    Cells are empty where a tensor has no such structure; `sparsity_all` has a value in the last line only.
    """
    text = io.StringIO()
    fields = [*WeightSummary.model_fields, "sparsity_all"]
    writer = csv.DictWriter(text, fieldnames=fields, lineterminator="\n")
    writer.writeheader()
    for row in report.tensors:
        writer.writerow({**row.model_dump(), "shape": "x".join(map(str, row.shape))})
    totals, others = report.totals, report.others
    own = {"weights": others.parameters, "nonzero": others.nonzero, "sparsity": others.sparsity, "prunable": False}
    writer.writerow({"name": OTHERS, **own})
    own = {"weights": totals.weights, "nonzero": totals.nonzero, "sparsity": totals.sparsity}
    writer.writerow({"name": "total", **own, "sparsity_all": totals.sparsity_all})
    return text.getvalue()


def as_table(report: Report, width: int | None = None) -> str:
    """Return aligned columns, fractions in percent; then the totals. `width`: that of the terminal, which no line
    exceeds; None: any.
    """
    rows = []
    for row in report.tensors:
        shares = [getattr(row, share) for share in _SHARES]
        rows.append(
            [
                row.name,
                "x".join(map(str, row.shape)),
                f"{row.weights:,}",
                f"{row.nonzero:,}",
                *("-" if share is None else f"{100 * share:.2f}" for share in shares),
                *(f"{getattr(row, moment):.5f}" for moment in _MOMENTS),
            ]
        )
    totals, others = report.totals, report.others
    blank = [""] * (len(_COLUMNS) - 5)
    cells = [f"{others.parameters:,}", f"{others.nonzero:,}", f"{100 * others.sparsity:.2f}"]
    rows.append([OTHERS, "", *cells, *blank])
    rows.append(["total", "", f"{totals.weights:,}", f"{totals.nonzero:,}", f"{100 * totals.sparsity:.2f}", *blank])
    made = table(_COLUMNS, rows, width)
    *body, last = made.rows
    every = f"sparsity_all {100 * totals.sparsity_all:.2f} % of {totals.parameters:,} parameters"
    lasts = (
        [f"{last}  {every}"] if width is None or len(last) + 2 + len(every) <= width else [last, wrapped(every, width)]
    )
    lines = [made.head, made.rule, *body, made.rule, *lasts, *made.note(width), ""]
    lines += [wrapped(line, width) for line in _totals(report)]
    if report.totals.stored_bits is not None:
        lines += ["", *_stored(report.totals.stored_bits, width)]
    if report.comparison is not None:
        lines += ["", *_stages(report.comparison, report.latency, width)]
    return "\n".join(lines) + "\n"


def _totals(report: Report) -> list[str]:
    """Return a sentence for each figure of the whole network."""
    totals = report.totals
    kept = 100 * totals.macs_nonzero / totals.macs if totals.macs else 100.0
    lines = [f"parameters {totals.parameters:,}, of them prunable weights {totals.weights:,}"]
    if totals.dense_weights is not None:
        times = f"{totals.dense_weights / totals.nonzero:.2f} times fewer" if totals.nonzero else "none"
        lines.append(f"of the dense network's {totals.dense_weights:,} weights {totals.nonzero:,} are left: {times}")
    lines.append(f"MACs {totals.macs:,}, with a non-zero weight {totals.macs_nonzero:,} ({kept:.1f} %)")
    lines += _compressed(totals)
    if totals.top1 is not None and totals.top5 is not None:
        lines.append(f"test top-1 {totals.top1:.2f} %, top-5 {totals.top5:.2f} %")
        lines += map(tested_before, report.earlier_tests)
        if totals.train_top1 is not None:
            gap = totals.train_top1 - totals.top1
            lines.append(
                f"training top-1 {totals.train_top1:.2f} % in the last epoch: generalization gap {gap:.2f} points"
            )
    if report.lost_classes is None:
        lines.append("lost classes are not known: the forward pass cannot be followed")
    elif report.lost_classes:
        lines.append(f"lost classes, whose logits do not depend on the image: {', '.join(report.lost_classes)}")
    for key, figures in report.figures.items():
        # Those of single weights have a space in their names, and are in the JSON.
        lines.append(
            f"{key}: " + ", ".join(f"{name} {value:,.10g}" for name, value in figures.items() if " " not in name)
        )
    for thinning in report.thinnings:
        lines.append(f"thinned ({thinning.when}): {thinned(thinning)}")
        if thinning.skipped:
            lines.append(f"  skipped: no later layer reads them: {', '.join(thinning.skipped)}")
        lines += [f"  {stay}" for stay in thinning.stays]
    return lines


def tested_before(test: EarlierTest) -> str:
    """Return the test figures of before a run was trained on, in words."""
    accuracies = "-" if test.top1 is None or test.top5 is None else f"top-1 {test.top1:.2f} %, top-5 {test.top5:.2f} %"
    after = "1 epoch" if test.epochs == 1 else f"{test.epochs} epochs"
    return f"test after {after}, before the run was trained on: {accuracies}"


def _compressed(totals: Totals) -> list[str]:
    """Return a line with the three compression rates."""
    if totals.rates is None:
        return []
    counted = (totals.rates.weights, totals.rates.parameters, totals.rates.bits)
    weights, parameters, stored = ("-" if rate is None else f"{rate:.1f} x" for rate in counted)
    return [
        f"compressed against the dense network: weights {weights}, with all other parameters {parameters},"
        f" stored bits {stored} (relative indices)"
    ]


def _stored(stored: StoredBits, width: int | None) -> list[str]:
    """Return the bytes by format."""
    columns = [Column("stored as", left=True, shortened="end"), Column("bytes"), Column("times smaller", rank=1)]
    sizes = stored.bytes if stored.entropy is None else {**stored.bytes, "entropy bound": -(-stored.entropy // 8)}
    rows = [[name, f"{size:,}", f"{sizes['dense'] / size:.2f}" if size else "-"] for name, size in sizes.items()]
    made = table(columns, rows, width)
    return [made.head, made.rule, *made.rows, *made.note(width)]


def thinned(thinning: Thinning) -> str:
    """Return one line for a removal."""
    if thinning.parameters_before == thinning.parameters_after:
        return NOTHING_REMOVED if thinning.stays else "nothing to remove: no filter and no channel was all zero"
    return (
        f"{thinning.parameters_before:,} parameters became {thinning.parameters_after:,};"
        f" the largest difference of a logit on {thinning.images} images is {thinning.largest_difference:.2g}"
        + ("" if thinning.exact_difference is None else f" by rounding, {thinning.exact_difference:.2g} in float64")
    )


def _stages(comparison: Comparison, latency: Latency | None, width: int | None) -> list[str]:
    columns = [Column("", left=True), Column("parameters"), Column("MACs")]
    rows = [[stage.name, f"{stage.parameters:,}", f"{stage.macs:,}"] for stage in comparison.stages]
    if latency is not None:
        for number, batch in enumerate(latency.rounds):
            _add_times(columns, rows, latency, batch, number)
    made = table(columns, rows, width)
    said = []
    if comparison.compacted:
        said = [
            f"compacted: without the zero rows and columns of {', '.join(comparison.compacted)};"
            f" the largest difference of a logit on {IMAGES} random images is {comparison.largest_difference:.2g}",
            *(f"not thinned: {stay}" for stay in comparison.stays),
        ]
    return [made.head, *made.rows, *made.note(width), *(wrapped(line, width) for line in [*said, *_measured(latency)])]


def as_times(latency: Latency, width: int | None = None) -> str:
    """Return what was measured of several forward passes as a table: a row for each, compared with the first."""
    names = list(dict.fromkeys(timing.stage for timing in latency.timings))
    columns, rows = [Column("", left=True)], [[name] for name in names]
    for number, batch in enumerate(latency.rounds):
        _add_times(columns, rows, latency, batch, number)
    made = table(columns, rows, width)
    return "\n".join([made.head, *made.rows, *made.note(width), *(wrapped(line, width) for line in _measured(latency))])


def _add_times(columns: list[Column], rows: list[list[str]], latency: Latency, batch: int, number: int) -> None:
    """Add the columns of a size of batches, the `number`-th one, and their cells."""
    columns += [Column(f"ms, batch {batch}", rank=1 + number), Column("+- IQR", rank=5 + number)]
    columns.append(Column("times as fast", rank=3 + number))
    for row, timing in zip(rows, (one for one in latency.timings if one.batch == batch), strict=True):
        silent = "zeros alone save no time" if batch == 1 else "-"
        gain = silent if timing.times_as_fast is None else f"{timing.times_as_fast:.2f}"
        row += [f"{timing.milliseconds:.3f}", f"{timing.interquartile_range:.3f}", gain]


def _measured(latency: Latency | None) -> list[str]:
    """Return how it was measured, and the warnings."""
    if latency is None:
        return []
    threads = "1 thread" if latency.threads == 1 else f"{latency.threads} threads"
    rounds = " and ".join(str(number) for number in latency.rounds.values())
    return [
        f"on {threads} of the {latency.device}, in turns: medians and interquartile ranges of {rounds} rounds",
        *(f"warning: {warning}" for warning in latency.warnings),
    ]
