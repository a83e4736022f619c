"""`compress sweep`: the runs of a grid of settings in one folder, each the folder of an ordinary run."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from compressor.errors import CompressError, UserError
from compressor.experiment import folder
from compressor.experiment.grid import PlannedRun, checked, planned, values_of
from compressor.experiment.loading import load
from compressor.experiment.signals import Stop, noted
from compressor.experiment.specification import Specification
from compressor.files import replace_text
from compressor.reports import (
    Setting,
    SweptRun,
    in_turns,
    read,
    results_as_csv,
    run_figures,
    settings_of,
)
from compressor.strict_json import dumps
from compressor.training import checkpoint

SCHEMA = 1
"""The number of the layout of sweep.json."""
INDEX, RESULTS = "sweep.json", "results.csv"
"""The files of a sweep's folder beside its runs."""
_TOGETHER = 16
"""How many networks are in memory while their times are measured."""

Say = Callable[[str], None]


class Queue(Protocol):
    """Trains runs in the folders that have their configuration and schedule, some at the same time."""

    def run(self, names: Sequence[str], stop: Stop) -> Iterator[tuple[str, str | None]]:
        """Yield the name of each run that ended, and why it failed; after a signal end all, with their checkpoints."""


def threads_of_a_run() -> int:
    """Return the number of threads that each run computes on: OMP_NUM_THREADS, else 1.

    Sums in another order are other bits, so this does not depend on how many runs there are at the same time.
    """
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() and int(given) > 0 else 1


@dataclass(frozen=True)
class Sweep:
    """What became of a sweep: its folder, and its settings with their runs."""

    path: Path
    schedule: str
    config: str
    settings: Sequence[Setting]

    @property
    def runs(self) -> list[SweptRun]:
        """Return all runs."""
        return [run for one in self.settings for run in one.runs]

    @property
    def failed(self) -> list[SweptRun]:
        """Return the runs that failed in this call."""
        return [run for run in self.runs if run.status == "failed"]


def sweep(
    schedule: str,
    config: str | None,
    grid: Sequence[tuple[str, str]],
    seeds: int | None,
    out: Path | None,
    queue: Callable[[Path], Queue],
    *,
    measures: bool,
    say: Say,
) -> Sweep:
    """Train what is not trained yet of a grid, measure, and write results.csv and report.html.

    Args:
        schedule: A path or a bare name, as `config` is.
        config: None: the schedule's own.
        grid: Keys, as `--set` takes them, with their values: YAML, with commas between.
        seeds: The number of seeds, from 0; None: the seed of the configuration alone.
        out: The sweep's folder. None: runs/sweep-SCHEDULE-CONFIG.
        queue: Returns what trains the runs in that folder.
        measures: Measure the time of a forward pass of each finished run.
        say: Receives what is done.

    Raises:
        UserError: Something is wrong in the files or the grid, or the folder holds something else; nothing was trained.
        CompressError: A signal came; a second call goes on.
    """
    values = values_of(grid)
    spec = checked(schedule, config, values)
    path = folder.RUNS / f"sweep-{spec.name}" if out is None else out
    _check_place(path)
    path.mkdir(parents=True, exist_ok=True)
    with folder.held(path):
        known = _known(path, spec)
        runs = planned(schedule, config, values, seeds, known)
        _write(path, spec, runs, known)
        failures = _train(path, runs, queue(path), say)
        return _results(path, spec, failures, measures=measures)


def _check_place(path: Path) -> None:
    """Raise `UserError` where the folder holds something else than a sweep."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file: give the sweep's folder with --out")
    if (path / folder.CONFIG).is_file():
        raise UserError(f"{path} is the folder of a run: give the folder of a sweep, or a new one, with --out")
    if path.is_dir() and not (path / INDEX).is_file() and any(not one.name.startswith(".") for one in path.iterdir()):
        raise UserError(f"{path} exists and is not the folder of a sweep (it has no {INDEX}): give another --out")


def _known(path: Path, spec: Specification) -> list[SweptRun]:
    """Return the runs that the sweep's folder has. Raises `UserError` where it is a sweep of other files."""
    file = path / INDEX
    if not file.is_file():
        return []
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        layout, names = found["schema"], (found["schedule"], found["config"])
        runs = [SweptRun(**run, status="not finished") for run in found["runs"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: cannot be read: {(str(error).splitlines() or [''])[0]}") from None
    if layout != SCHEMA:
        raise UserError(f"{file}: its schema is {layout!r}, this version reads {SCHEMA}")
    if names != (spec.schedule_name, spec.config_name):
        raise UserError(
            f"{path} is a sweep of the schedule {names[0]} and the configuration {names[1]}, not of"
            f" {spec.schedule_name} and {spec.config_name}: give another --out"
        )
    return runs


def _write(path: Path, spec: Specification, runs: Sequence[PlannedRun], known: Sequence[SweptRun]) -> None:
    """Write sweep.json and the files of the runs that have not begun. Raises `UserError` where the folder of a run
    holds another run.
    """
    for run in runs:
        _check_run(run, path / run.name)
    here = {run.name for run in known}
    listed = [
        *({"name": run.name, "settings": run.settings, "seed": run.seed} for run in known),
        *({"name": run.name, "settings": run.settings, "seed": run.seed} for run in runs if run.name not in here),
    ]
    names = {"schema": SCHEMA, "schedule": spec.schedule_name, "config": spec.config_name}
    replace_text(path / INDEX, dumps({**names, "runs": listed}, indent=2) + "\n")
    for run in runs:
        (path / run.name).mkdir(exist_ok=True)
        if not (path / run.name / folder.CONFIG).is_file():
            folder.write_files(run.spec, path / run.name)


def _check_run(run: PlannedRun, path: Path) -> None:
    if not (path / folder.CONFIG).is_file():
        return
    other = folder.other_content(run.spec, path)
    if other is None and (planned := folder.planned_epochs(path)) != run.spec.config.epochs:
        other = f"epochs: {planned} there, {run.spec.config.epochs} here"
    if other is not None:
        raise UserError(f"{path} is a run of another schedule or configuration: {other}: give another --out")


def _train(path: Path, runs: Sequence[PlannedRun], queue: Queue, say: Say) -> dict[str, str]:
    """Train the runs that are not finished; return why each that failed did. Raises `CompressError` after a signal."""
    waiting = [run.name for run in runs if not _finished(path / run.name)]
    kept, failures = len(runs) - len(waiting), dict[str, str]()
    say(
        f"{path}: {len(runs)} run{'s' if len(runs) > 1 else ''}"
        + (f", {kept} of them finished already" if kept else "")
    )
    with noted() as stop:
        for number, (name, failure) in enumerate(queue.run(waiting, stop) if waiting else (), kept + 1):
            finished = _finished(path / name)
            if not finished and stop() is None:
                failures[name] = failure or "it ended before it was finished"
            if finished or name in failures:
                said = failures.get(name) or "finished" + (f"; warning: {failure}" if failure else "")
                say(f"[{number}/{len(runs)}] {name}: {'failed: ' if name in failures else ''}{said}")
        if (came := stop()) is not None:
            done = sum(_finished(path / run.name) for run in runs)
            ended = CompressError(f"interrupted: {done} of {len(runs)} runs are finished; the same command goes on")
            ended.exit_code = 128 + came
            raise ended
    return failures


def _finished(path: Path) -> bool:
    return checkpoint.finished(path / folder.CHECKPOINT)


def _results(path: Path, spec: Specification, failures: Mapping[str, str], *, measures: bool) -> Sweep:
    """Return the figures of all runs of the folder, and write them."""
    runs = []
    for run in _known(path, spec):
        if _finished(path / run.name):
            changes = {"status": "finished", "figures": run_figures(read(path / run.name))}
        elif run.name in failures:
            changes = {"status": "failed", "failure": failures[run.name]}
        else:
            changes = {}
        runs.append(run.model_copy(update=changes))
    if measures:
        times = _latencies(path, [run.name for run in runs if run.figures is not None])
        runs = [run.model_copy(update={"latency": times.get(run.name)}) for run in runs]
    found = Sweep(path, spec.schedule_name, spec.config_name, settings_of(runs))
    replace_text(path / RESULTS, results_as_csv(found.settings))
    return found


def _latencies(path: Path, names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return the median time of one image of each run and the interquartile range of the rounds, in ms.

    Runs on images of equal shape are measured in turns, so that a busy machine slows all of them.
    """
    found: dict[str, tuple[float, float]] = {}
    for start in range(0, len(names), _TOGETHER):
        loaded = {name: load(path / name) for name in names[start : start + _TOGETHER]}
        for shape in {one.shape for one in loaded.values()}:
            networks = {name: one.network.eval() for name, one in loaded.items() if one.shape == shape}
            with torch.no_grad():
                measured = in_turns(networks, shape, (1,)).timings
            found |= {one.stage: (one.milliseconds, one.interquartile_range) for one in measured}
    return found
