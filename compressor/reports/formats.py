"""A report as a table for people, as CSV and as JSON."""

import csv
import io

from compressor.reports.report import Report, TensorRow

_SHARES = ("sparsity", "filters", "channels", "kernels", "rows", "cols")
_MOMENTS = ("mean", "std", "mean_abs")


def as_json(report: Report) -> str:
    """The whole report, indented."""
    return report.model_dump_json(indent=2) + "\n"


def as_csv(report: Report) -> str:
    """A line a tensor, and a last line `total`; empty cells where a tensor has no such structure."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(TensorRow.model_fields), lineterminator="\n")
    writer.writeheader()
    for row in report.tensors:
        writer.writerow({**row.model_dump(), "shape": "x".join(map(str, row.shape))})
    totals = report.totals
    writer.writerow(
        {"name": "total", "weights": totals.weights, "nonzero": totals.nonzero, "sparsity": totals.sparsity}
    )
    return text.getvalue()


def as_table(report: Report) -> str:
    """Aligned columns, shares in percent; then the totals."""
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
    totals = report.totals
    blank = [""] * (len(head) - 5)
    lines.append(["total", "", f"{totals.weights:,}", f"{totals.nonzero:,}", f"{100 * totals.sparsity:.2f}", *blank])
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    table = [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    rule = "-" * max(map(len, table))
    table = [table[0], rule, *table[1:-1], rule, table[-1]]
    kept = 100 * totals.macs_nonzero / totals.macs if totals.macs else 100.0
    table.append("")
    table.append(f"parameters {totals.parameters:,}, of them prunable weights {totals.weights:,}")
    table.append(f"MACs {totals.macs:,}, with a non-zero weight {totals.macs_nonzero:,} ({kept:.1f} %)")
    if totals.top1 is not None and totals.top5 is not None:
        table.append(f"test top-1 {totals.top1:.2f} %, top-5 {totals.top5:.2f} %")
    return "\n".join(table) + "\n"
