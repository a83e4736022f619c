"""A report as a table, as CSV and as JSON."""

import csv
import io

from compressor.reports.latency import Latency, Timing
from compressor.reports.report import IMAGES, Comparison, EarlierTest, Report, Thinning, Totals
from compressor.sparsity import WeightSummary

_SHARES = ("sparsity", "filters", "channels", "kernels", "rows", "cols")
OTHERS = "other parameters"
"""The name of the row of all parameters of less than two dims."""
_MOMENTS = ("mean", "std", "mean_abs")


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


def as_table(report: Report) -> str:
    """Return aligned columns, fractions in percent; then the totals."""
    head = ["name", "shape", "weights", "nonzero", *(f"{share} %" for share in _SHARES), *_MOMENTS]
    lines = [head]
    for row in report.tensors:
        shares = [getattr(row, share) for share in _SHARES]
        lines.append(
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
    blank = [""] * (len(head) - 5)
    cells = [f"{others.parameters:,}", f"{others.nonzero:,}", f"{100 * others.sparsity:.2f}"]
    lines.append([OTHERS, "", *cells, *blank])
    lines.append(["total", "", f"{totals.weights:,}", f"{totals.nonzero:,}", f"{100 * totals.sparsity:.2f}", *blank])
    table = _aligned(lines, left=2)
    rule = "-" * max(map(len, table))
    table[-1] += f"  sparsity_all {100 * totals.sparsity_all:.2f} % of {totals.parameters:,} parameters"
    table = [table[0], rule, *table[1:-1], rule, table[-1]]
    kept = 100 * totals.macs_nonzero / totals.macs if totals.macs else 100.0
    table.append("")
    table.append(f"parameters {totals.parameters:,}, of them prunable weights {totals.weights:,}")
    if totals.dense_weights is not None:
        times = f"{totals.dense_weights / totals.nonzero:.2f} times fewer" if totals.nonzero else "none"
        table.append(f"of the dense network's {totals.dense_weights:,} weights {totals.nonzero:,} are left: {times}")
    table.append(f"MACs {totals.macs:,}, with a non-zero weight {totals.macs_nonzero:,} ({kept:.1f} %)")
    table += _stored(totals)
    if totals.top1 is not None and totals.top5 is not None:
        table.append(f"test top-1 {totals.top1:.2f} %, top-5 {totals.top5:.2f} %")
        table += map(tested_before, report.earlier_tests)
        if totals.train_top1 is not None:
            gap = totals.train_top1 - totals.top1
            table.append(
                f"training top-1 {totals.train_top1:.2f} % in the last epoch: generalization gap {gap:.2f} points"
            )
    if report.lost_classes is None:
        table.append("lost classes are not known: the forward pass cannot be followed")
    elif report.lost_classes:
        table.append(f"lost classes, whose logits do not depend on the image: {', '.join(report.lost_classes)}")
    for key, figures in report.figures.items():
        # Those of single weights have a space in their names, and are in the JSON.
        table.append(
            f"{key}: " + ", ".join(f"{name} {value:,.10g}" for name, value in figures.items() if " " not in name)
        )
    for thinning in report.thinnings:
        table.append(f"thinned ({thinning.when}): {thinned(thinning)}")
        if thinning.skipped:
            table.append(f"  skipped: no later layer reads them: {', '.join(thinning.skipped)}")
        table += [f"  {stay}" for stay in thinning.stays]
    if report.comparison is not None:
        table += ["", *_stages(report.comparison, report.latency)]
    return "\n".join(table) + "\n"


def tested_before(test: EarlierTest) -> str:
    """Return the test figures of before a run was trained on, in words."""
    accuracies = "-" if test.top1 is None or test.top5 is None else f"top-1 {test.top1:.2f} %, top-5 {test.top5:.2f} %"
    after = "1 epoch" if test.epochs == 1 else f"{test.epochs} epochs"
    return f"test after {after}, before the run was trained on: {accuracies}"


def _stored(totals: Totals) -> list[str]:
    """Return two lines: bits by format, and the three compression rates."""
    bits, rates = totals.stored_bits, totals.rates
    if bits is None or rates is None:
        return []
    low, high = bits.widths or (0, 0)
    auto = f"auto, {low} bits wide" if low == high else f"auto, {low} to {high} bits wide"
    if bits.widths is None:
        auto = "auto: no tensor is shorter with them"
    counted = (rates.weights, rates.parameters, rates.bits)
    weights, parameters, stored = ("-" if rate is None else f"{rate:.1f} x" for rate in counted)
    return [
        f"stored: {bits.relative:,} bits with relative indices ({auto}), {bits.csr:,} as CSR, {bits.dense:,} dense",
        f"compressed against the dense network: weights {weights}, with all other parameters {parameters},"
        f" stored bits {stored}",
    ]


def thinned(thinning: Thinning) -> str:
    """Return one line for a removal."""
    if thinning.parameters_before == thinning.parameters_after:
        return "nothing that is zero could be removed"
    return (
        f"{thinning.parameters_before:,} parameters became {thinning.parameters_after:,};"
        f" the largest difference of a logit on {thinning.images} images is {thinning.largest_difference:.2g}"
        + ("" if thinning.exact_difference is None else f" by rounding, {thinning.exact_difference:.2g} in float64")
    )


def _stages(comparison: Comparison, latency: Latency | None) -> list[str]:
    lines = [["", "parameters", "MACs"]]
    lines += [[stage.name, f"{stage.parameters:,}", f"{stage.macs:,}"] for stage in comparison.stages]
    for batch in latency.rounds if latency is not None else ():
        lines[0] += [f"ms, batch {batch}", "+- IQR", "times as fast"]
        for line, timing in zip(lines[1:], _timings(latency, batch), strict=True):
            silent = "zeros alone save no time" if batch == 1 else "-"
            gain = silent if timing.times_as_fast is None else f"{timing.times_as_fast:.2f}"
            line += [f"{timing.milliseconds:.3f}", f"{timing.interquartile_range:.3f}", gain]
    left_out = []
    if comparison.compacted:
        left_out = [
            f"compacted: without the zero rows and columns of {', '.join(comparison.compacted)};"
            f" the largest difference of a logit on {IMAGES} random images is {comparison.largest_difference:.2g}"
        ]
    return [*_aligned(lines, left=1), *left_out, *_measured(latency)]


def _timings(latency: Latency | None, batch: int) -> list[Timing]:
    return [timing for timing in latency.timings if timing.batch == batch] if latency is not None else []


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


def _aligned(lines: list[list[str]], left: int) -> list[str]:
    """Return columns of equal width, the first `left` of them aligned to the left."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
