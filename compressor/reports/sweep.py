"""The runs of a sweep by their settings: means over the seeds, and which settings are on the Pareto fronts."""

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from compressor.reports.comparison import METRICS, Mean, RunFigures, accuracy, group, mean_of

LATENCY = "latency"
FRONTS: Mapping[str, str] = {"sparsity": "sparsity", "bytes": "size", LATENCY: "latency"}
"""What accuracy is weighed against, by the keys of a setting's means, with the name of each front."""

Status = Literal["finished", "not finished", "failed"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class SweptRun(_Frozen):
    """One run: the name of its folder, what the grid sets in it, its seed, how it stands, and its figures."""

    name: str
    settings: dict[str, str]
    seed: int
    status: Status
    failure: str | None = None
    figures: RunFigures | None = None
    latency: tuple[float, float] | None = None
    """The median time of one image and the interquartile range of the rounds, in ms."""


class Setting(_Frozen):
    """The finished runs that differ in their seed alone. `means`: by the keys of `METRICS`, and `LATENCY` in ms."""

    number: int
    """As it stands in drawings and tables, from 1."""
    settings: dict[str, str]
    runs: list[SweptRun]
    means: dict[str, Mean]
    fronts: list[str] = []
    """The names of the Pareto fronts that it is on."""

    @property
    def label(self) -> str:
        """Return its settings in words."""
        return in_words(self.settings)


def in_words(settings: Mapping[str, str]) -> str:
    """Return settings with short keys, as `lr 0.1, levels 0.5`; of a run without a grid its name for that."""
    short = short_keys(list(settings))
    return ", ".join(f"{short[key]} {value}" for key, value in settings.items()) or "as in the files"


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Return the shortest end of each dotted key that none of the others has."""
    found = {}
    for key in keys:
        parts = key.split(".")
        ends = [".".join(parts[start:]) for start in reversed(range(len(parts)))]
        others = [f".{other}" for other in keys if other != key]
        found[key] = next((end for end in ends if not any(other.endswith(f".{end}") for other in others)), key)
    return found


def settings_of(runs: Sequence[SweptRun]) -> list[Setting]:
    """Return the settings of a sweep's runs in their order, each with the fronts that its means are on."""
    by: dict[tuple[tuple[str, str], ...], list[SweptRun]] = {}
    for run in runs:
        by.setdefault(tuple(sorted(run.settings.items())), []).append(run)
    found = [_setting(number, members) for number, members in enumerate(by.values(), 1)]
    on = {key: _on_front(found, key) for key in FRONTS if key != LATENCY or times_differ(found)}
    return [
        one.model_copy(update={"fronts": [name for key, name in FRONTS.items() if one.number in on.get(key, ())]})
        for one in found
    ]


def times_differ(settings: Sequence[Setting]) -> bool:
    """Return whether the latencies of the settings differ by more than the spread of one measurement: the median of
    the interquartile ranges. Where they do not, nothing can be said of speed.
    """
    means = [one.means[LATENCY].mean for one in settings if LATENCY in one.means]
    spreads = [run.latency[1] for one in settings for run in one.runs if run.latency is not None]
    return len(means) > 1 and max(means) - min(means) > statistics.median(spreads)


def _setting(number: int, members: Sequence[SweptRun]) -> Setting:
    figures = [run.figures for run in members if run.figures is not None]
    means = dict(group("", figures).means) if figures else {}
    times = [run.latency[0] for run in members if run.figures is not None and run.latency is not None]
    if times and len(times) == len(figures):
        means[LATENCY] = mean_of(times)
    return Setting(number=number, settings=members[0].settings, runs=list(members), means=means)


def _on_front(found: Sequence[Setting], key: str) -> set[int]:
    gain = accuracy(one.means for one in found)
    known = [one for one in found if key in one.means and gain in one.means]
    sign = -1 if key == "sparsity" else 1
    points = [(sign * one.means[key].mean, one.means[gain].mean) for one in known]
    return {known[place].number for place in front(points)}


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the places of the points (cost, gain) on the Pareto front: no other one costs no more and gains no less,
    with one of the two better.
    """
    return [
        place
        for place, (cost, gain) in enumerate(points)
        if not any(
            other_cost <= cost and other_gain >= gain and (other_cost, other_gain) != (cost, gain)
            for other_cost, other_gain in points
        )
    ]


def results_as_csv(settings: Sequence[Setting]) -> str:
    """Return a line for each run. Accuracies are in percent, sparsity and calibration fractions; what is not known is
    empty. `front`: the Pareto fronts that the means of the run's settings are on.
    """
    keys = list(dict.fromkeys(key for one in settings for key in one.settings))
    text = io.StringIO()
    heads = ["run", "setting", *keys, "seed", "status", *METRICS, "latency_ms", "latency_iqr_ms", "front"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heads)
    for one in settings:
        for run in one.runs:
            figures = {} if run.figures is None else run.figures.figures
            times = run.latency or ("", "")
            measured = ["" if figures.get(key) is None else figures[key] for key in METRICS]
            own = [run.name, one.number, *(run.settings.get(key, "") for key in keys), run.seed, run.status]
            writer.writerow([*own, *measured, *times, " ".join(one.fronts) if run.figures is not None else ""])
    return text.getvalue()
