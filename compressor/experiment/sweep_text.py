"""The settings of a sweep as a table in a terminal."""

from collections.abc import Iterator

from compressor.experiment.comparison_text import shown
from compressor.experiment.sweeping import Sweep
from compressor.reports import ACCURACIES, LATENCY, Mean, accuracy, short_keys
from compressor.tables import Column, table


def lines(found: Sweep, width: int | None) -> Iterator[str]:
    """Yield the lines of a table of at most `width` columns: a row for each setting."""
    gain = accuracy(one.means for one in found.settings)
    keys = list(dict.fromkeys(key for one in found.settings for key in one.settings))
    columns = [
        Column("no."),
        *(Column(short, left=True, shortened="middle") for short in short_keys(keys).values()),
        *(
            Column("runs", rank=4),
            Column("top-1 %" if gain == "top1" else f"{ACCURACIES[gain].lower()} %"),
            Column("sparsity %"),
            Column("bytes", rank=1),
        ),
        *(Column("latency ms", rank=2), Column("Pareto front", left=True, rank=3)),
    ]
    rows = [
        [
            str(one.number),
            *(one.settings.get(key, "-") for key in keys),
            str(sum(run.status == "finished" for run in one.runs)),
            *(shown(key, one.means.get(key)) for key in (gain, "sparsity", "bytes")),
            _time(one.means.get(LATENCY)),
            ", ".join(one.fronts) or "-",
        ]
        for one in found.settings
    ]
    made = table(columns, rows, width)
    yield from (made.head, made.rule, *made.rows, *made.note(width))


def _time(mean: Mean | None) -> str:
    if mean is None:
        return "-"
    return f"{mean.mean:.3g}" + ("" if mean.deviation is None else f" ± {mean.deviation:.2g}")
