"""What `compress verify` found as text: a table of claims, then what is known of those that do not hold."""

from collections.abc import Iterator

from compressor.experiment.claims import Judged, in_words
from compressor.experiment.records import Smoke
from compressor.experiment.verifying import Verification, Verified
from compressor.tables import Column, table, wrapped

NAMES = {"top1": "test top-1", "sparsity": "sparsity", "macs": "MACs"}
_COLUMNS = (
    Column("schedule", left=True, shortened="middle"),
    Column("figure", left=True),
    Column("claimed", left=True, rank=1),
    Column("reached", left=True, shortened="end"),
    Column("", left=True),
)


def lines(found: Verification, width: int | None) -> Iterator[str]:
    """Yield the lines: tables are at most `width` columns wide."""
    shown = table(_COLUMNS, [row for one in found.schedules for row in _rows(one)], width)
    yield from (shown.head, shown.rule, *shown.rows, *shown.note(width))
    for one in found.schedules:
        if one.exit_code:
            yield ""
            yield from (wrapped(line, width) for line in facts(one))
    held = sum(not one.exit_code for one in found.schedules)
    yield ""
    yield f"the claims of {held} of {len(found.schedules)} schedule{'s' * (len(found.schedules) != 1)} hold"


def _rows(one: Verified) -> Iterator[list[str]]:
    if one.smoke is not None:
        word = {"equal": "holds", "differs": "DIFFERS", "not compared": "-"}[one.smoke.result]
        yield [one.schedule, "smoke digest", "", of_smoke(one.smoke), word]
    for figure in one.figures:
        claimed, reached = of_figure(figure, one)
        yield [one.schedule, NAMES[figure.figure], claimed, reached, "holds" if figure.holds else "MISSED"]
    if one.error is not None:
        yield [one.schedule, "", "", "not judged", "ERROR"]


def of_smoke(smoke: Smoke) -> str:
    """Return the result of a smoke digest in words."""
    if smoke.result == "differs":
        return "differs from the recorded one: with the same torch and processor this schedule gives other bits"
    return smoke.result + (f": {smoke.why}" if smoke.why else "")


def of_figure(figure: Judged, one: Verified) -> tuple[str, str]:
    """Return what is claimed and what was reached, in words."""
    limit = "at most" if figure.figure == "macs" else "at least"
    claimed = f"{limit} {in_words(figure.figure, figure.claimed)}"
    reached, count = in_words(figure.figure, figure.reached), len(one.runs)
    if figure.figure == "top1":
        if one.claimed_seeds > 1:
            claimed += f", mean of {one.claimed_seeds} seeds"
        if count > 1:
            values = [run.top1 for run in one.runs]
            reached += f", mean of {count} seeds ({min(values):.2f} to {max(values):.2f})"
        elif one.claimed_seeds > 1:
            reached += ", seed 0"
    elif count > 1:
        reached += f", {'most' if figure.figure == 'macs' else 'lowest'} of {count} seeds"
    return claimed, reached


def facts(one: Verified) -> Iterator[str]:
    """Yield what is known where something does not hold: the figures, differences to the record, the runs."""
    if one.error is not None:
        yield f"{one.schedule}: not judged: {one.error}"
    if one.smoke is not None and one.smoke.result == "differs":
        yield f"{one.schedule}: the smoke digest {of_smoke(one.smoke)}"
    for figure in one.figures:
        if not figure.holds:
            claimed, reached = of_figure(figure, one)
            yield f"{one.schedule}: {NAMES[figure.figure]}: claimed {claimed}, reached {reached}"
    yield from (f"  {words}" for words in one.differences)
    for run in one.runs:
        yield f"  seed {run.seed}: {run.folder}, test top-1 {run.top1:.2f} %{'' if run.trained else ' (was there)'}"
