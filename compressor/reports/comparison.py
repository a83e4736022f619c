"""Finished runs side by side: means over the seeds of a schedule, and their differences to the runs of a reference."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from compressor.errors import UserError
from compressor.importing import late
from compressor.reports.recorded import REPORT, Recorded

CONFIDENCE = 0.95
METRICS = {
    "top1": "test top-1 (%)",
    "top5": "test top-5 (%)",
    "loss": "test loss",
    "calibration": "calibration error (%)",
    "validation": "validation top-1 (%)",
    "sparsity": "sparsity (%)",
    "parameters": "parameters",
    "macs": "MACs",
    "macs_nonzero": "MACs, non-zero weights",
    "bytes": "stored size (bytes)",
    "seconds": "training time (s)",
}
"""The figures of a run in words, in the order in which they are shown."""
ACCURACIES = {"top1": "Test top-1", "validation": "Validation top-1"}
"""The keys of what accuracy can be, best first: runs with `test: false` have the second alone."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class RunFigures(_Frozen):
    """The figures of one run, by the keys of `METRICS`; None where one is not recorded. Accuracies are in percent.

    `sparsity`, a fraction: of the dense network's prunable weights, removed ones count as zeros. `calibration`: a
    fraction. `validation`: after the last epoch. `bytes`: of the smallest stored form. `seconds`: of all epochs.
    `classes`: test accuracy by class, percent; `layers`: sparsity by weight, a fraction.
    """

    run: str
    seed: int
    figures: dict[str, float | None]
    classes: dict[str, float | None]
    layers: dict[str, float]


class Mean(_Frozen):
    """The mean over runs, their standard deviation (n - 1; None for one run), and their number."""

    mean: float
    deviation: float | None
    runs: int


class Change(_Frozen):
    """The difference of the means to the reference's.

    `low` and `high`: the 95 % interval of the mean difference between runs of equal seeds, by Student's t over so many
    `pairs`; None for fewer than two pairs.
    """

    difference: float
    low: float | None = None
    high: float | None = None
    pairs: int = 0


class Group(_Frozen):
    """Runs that differ in their seed alone; `changes` to the reference, of which there are none for itself."""

    name: str
    runs: list[RunFigures]
    means: dict[str, Mean]
    changes: dict[str, Change] = {}
    classes: dict[str, Mean] = {}
    class_changes: dict[str, Change] = {}
    layers: dict[str, Mean] = {}

    @property
    def seeds(self) -> list[int]:
        """Return the seeds of its runs."""
        return [run.seed for run in self.runs]


def accuracy(means: Iterable[Mapping[str, Mean]]) -> str:
    """Return the key, of `ACCURACIES`, of the best accuracy that any of these groups of runs has."""
    known = {key for one in means for key in one}
    return next((key for key in ACCURACIES if key in known), next(iter(ACCURACIES)))


def run_figures(found: Recorded) -> RunFigures:
    """Return the figures of a finished run. Raises `UserError` where it is not finished."""
    report, tested = found.report, None if found.figures is None else found.figures.evaluation
    if report is None:
        raise UserError(
            f"{found.path} has no {REPORT}: the run is not finished"
            f" (`compress train ... --out {found.path} --resume` goes on)"
        )
    totals = report.totals
    stored = None if totals.stored_bits is None else min(totals.stored_bits.bytes.values())
    times = [line.seconds for line in found.epochs]
    error = None if tested is None else tested.calibration.error
    dense = totals.dense_weights or totals.weights
    return RunFigures(
        run=str(found.path),
        seed=found.config.seed,
        figures={
            "top1": totals.top1 if tested is None else tested.top1,
            "top5": totals.top5 if tested is None else tested.top5,
            "loss": None if tested is None else tested.loss,
            "calibration": error,
            "validation": found.epochs[-1].val.get("top1") if found.epochs else None,
            "sparsity": 1 - totals.nonzero / dense if dense else 0.0,
            "parameters": totals.parameters,
            "macs": totals.macs,
            "macs_nonzero": totals.macs_nonzero,
            "bytes": stored,
            "seconds": None if None in times else sum(time for time in times if time is not None),
        },
        classes={} if tested is None else {one.name: one.accuracy for one in tested.classes},
        layers={name: layer.sparsity for name, layer in found.layers[-1].layers.items()} if found.layers else {},
    )


def group(name: str, runs: Sequence[RunFigures], reference: "Group | None" = None) -> Group:
    """Return runs of one schedule and configuration as a group, with the changes to those of the reference."""
    made = Group(
        name=name,
        runs=list(runs),
        means=_means(runs, lambda run: run.figures, METRICS),
        classes=_means(runs, lambda run: run.classes, runs[0].classes),
        layers=_means(runs, lambda run: run.layers, runs[0].layers),
    )
    if reference is None:
        return made
    pairs = _pairs(reference.runs, runs)
    changes = {
        key: _change(reference.means[key], mean, pairs, lambda run, key=key: run.figures.get(key))  # type: ignore[misc]
        for key, mean in made.means.items()
        if key in reference.means
    }
    classes = {
        name: _change(reference.classes[name], mean, pairs, lambda run, name=name: run.classes.get(name))  # type: ignore[misc]
        for name, mean in made.classes.items()
        if name in reference.classes
    }
    return made.model_copy(update={"changes": changes, "class_changes": classes})


def mean_of(values: Sequence[float]) -> Mean:
    """Return the mean and the standard deviation of at least one value."""
    spread = statistics.stdev(values) if len(values) > 1 else None
    return Mean(mean=statistics.fmean(values), deviation=spread, runs=len(values))


def interval(differences: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean of paired differences, d +- t s / sqrt(n) with n - 1 degrees of freedom
    (Student 1908); None for fewer than two.
    """
    count = len(differences)
    if count < 2:
        return None
    quantile = float(late("scipy.stats").t.ppf((1 + CONFIDENCE) / 2, count - 1))
    center, half = statistics.fmean(differences), quantile * statistics.stdev(differences) / math.sqrt(count)
    return center - half, center + half


def _means(
    runs: Sequence[RunFigures], values: Callable[[RunFigures], Mapping[str, float | None]], keys: Mapping[str, object]
) -> dict[str, Mean]:
    """Return the mean by key, of the keys that every run has."""
    found = {}
    for key in keys:
        every = [values(run).get(key) for run in runs]
        known = [value for value in every if value is not None]
        if len(known) == len(every):
            found[key] = mean_of(known)
    return found


def _pairs(reference: Sequence[RunFigures], runs: Sequence[RunFigures]) -> list[tuple[RunFigures, RunFigures]]:
    """Return the runs of equal seeds, where no seed stands twice on a side."""
    ours, theirs = ({run.seed: run for run in side} for side in (reference, runs))
    if len(ours) < len(reference) or len(theirs) < len(runs):
        return []
    return [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]


def _change(
    before: Mean,
    after: Mean,
    pairs: Sequence[tuple[RunFigures, RunFigures]],
    value: Callable[[RunFigures], float | None],
) -> Change:
    values = [(value(one), value(other)) for one, other in pairs]
    paired = [there - here for here, there in values if here is not None and there is not None]
    low, high = interval(paired) or (None, None)
    return Change(difference=after.mean - before.mean, low=low, high=high, pairs=len(paired))
