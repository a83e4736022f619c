"""Several runs' folders compared with the first one: `compress compare`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from compressor.errors import UserError
from compressor.experiment.differences import of_runs
from compressor.experiment.identity import UNTRAINED
from compressor.experiment.loading import load
from compressor.reports import Group, Latency, Recorded, group, in_turns, read, run_figures
from compressor.schedule import Difference


class Limits(BaseModel):
    """The limits that `compare` checks, each None where it was not given.

    `max_drop`, `max_class_drop`: percentage points; `min_sparsity`: a fraction; `max_size`: bytes; `max_latency`: ms.
    """

    model_config = ConfigDict(frozen=True)

    max_drop: float | None = None
    max_class_drop: float | None = None
    min_sparsity: float | None = None
    max_size: int | None = None
    max_latency: float | None = None


NO_LIMITS = Limits()


class Judged(BaseModel):
    """One limit and what was reached. `undecided`: the spread of a measurement is larger than its distance to the
    limit.
    """

    model_config = ConfigDict(frozen=True)

    group: str
    limit: str
    held: bool
    text: str
    undecided: bool = False


class Comparison(BaseModel):
    """Groups of runs, the reference first. As JSON it carries `schema`: the number rises when a key goes, or changes
    its name or its meaning. Accuracies are in percent, sparsities fractions.
    """

    model_config = ConfigDict(frozen=True)

    layout: Literal[1] = Field(default=1, alias="schema")
    groups: list[Group]
    differences: dict[str, list[Difference]]
    """By group: how its schedule and configuration differ in meaning from those of the reference."""
    latency: dict[str, tuple[float, float]] = {}
    """By group, of its first run: the median time of one image and the interquartile range of the rounds, in ms."""
    judged: list[Judged] = []
    notes: list[str] = []

    @property
    def held(self) -> bool:
        """Return whether no limit was passed, and all could be decided."""
        return all(one.held for one in self.judged)


def compare(paths: Sequence[Path], limits: Limits = NO_LIMITS, *, measures: bool = True) -> Comparison:
    """Return finished runs compared with the first one.

    Runs of several seeds that differ in nothing else (but in the checkpoint that each begins with) are a group.
    `measures`: also the time of a forward pass. Raises `UserError` where a folder is no finished run, or a limit needs
    what is not recorded.
    """
    if len(paths) < 2:
        raise UserError("compare at least two runs: RUN_A is the reference, the others are compared with it")
    twice = [path for number, path in enumerate(paths) if path.resolve() in {one.resolve() for one in paths[:number]}]
    if twice:
        raise UserError(f"{twice[0]} is given twice")
    found = [read(path) for path in paths]
    figures = [run_figures(one) for one in found]
    members, differences, notes = _grouped(found)
    reference = group(_name(found, members[0]), [figures[number] for number in members[0]])
    others = [group(_name(found, one), [figures[number] for number in one], reference) for one in members[1:]]
    groups = [reference, *others]
    notes += _of_data(found, groups)
    latency = _latency(groups) if measures or limits.max_latency is not None else None
    times = (
        {} if latency is None else {one.stage: (one.milliseconds, one.interquartile_range) for one in latency.timings}
    )
    if not others and (limits.max_drop is not None or limits.max_class_drop is not None):
        raise UserError(
            "all runs are of one schedule and configuration, with several seeds: there is none to compare them with"
        )
    judged = [line for one in others or groups for line in _judge(one, limits, times)]
    return Comparison(
        groups=groups,
        differences={one.name: differences[number] for number, one in enumerate(groups) if number},
        latency=times,
        judged=judged,
        notes=list(dict.fromkeys(notes)),
    )


def _grouped(found: Sequence[Recorded]) -> tuple[list[list[int]], list[list[Difference]], list[str]]:
    """Return the numbers of the runs of each group, the reference's first; the differences of each to the reference;
    and notes.
    """
    groups: list[list[int]] = []
    differences: list[list[Difference]] = []
    notes: list[str] = []
    for number, run in enumerate(found):
        for members in groups:
            seeds = {found[member].config.seed for member in members}
            if run.config.seed not in seeds and not _meaning(found[members[0]], run)[0]:
                members.append(number)
                break
        else:
            mine, said = _meaning(found[0], run) if groups else ([], [])
            groups.append([number])
            differences.append(mine)
            notes += said
    return groups, differences, notes


def _meaning(a: Recorded, b: Recorded) -> tuple[list[Difference], list[str]]:
    """Return how two runs differ in meaning, but for their seeds, and what does not change the training."""
    if _same_files(a, b):
        return [], []
    found = of_runs(a.path, b.path)
    seeds = a.config.seed != b.config.seed
    left_out = {"seed"} | ({"init.path"} if seeds else set())
    return [
        one
        for one in found.differences
        if one.what not in left_out and one.what.partition(".")[0] not in UNTRAINED and one.part != "expect"
    ], found.notes


def _same_files(a: Recorded, b: Recorded) -> bool:
    return a.schedule == b.schedule and a.config == b.config


def _name(found: Sequence[Recorded], members: Sequence[int]) -> str:
    """Return the name of a group: that of its first run, and how many there are."""
    first = found[members[0]].path.resolve().name
    more = [one.path.resolve().name for one in found]
    name = str(found[members[0]].path) if more.count(first) > 1 else first
    return name if len(members) == 1 else f"{name} and {len(members) - 1} more"


def _of_data(found: Sequence[Recorded], groups: Sequence[Group]) -> list[str]:
    """Return a line for each run of other images or other classes than the reference's."""
    said = []
    first = _data(found[0])
    for one in found[1:]:
        other = _data(one)
        if None not in (first, other) and first != other:
            said.append(
                f"{one.path} was trained and tested on other images than {found[0].path}: figures differ by that, too"
            )
    names = set(groups[0].classes)
    for other_group in groups[1:]:
        if names and set(other_group.classes) != names:
            said.append(f"{other_group.name} has other classes than {groups[0].name}: they are not compared by class")
    return said


def _data(found: Recorded) -> str | None:
    starts: Any = found.environment.get("starts")
    try:
        return str(starts[-1]["sha256"]["data"])
    except (KeyError, IndexError, TypeError):
        return None


def _latency(groups: Sequence[Group]) -> Latency | None:
    """Return the time of one image of the first run of each group, measured in turns."""
    loaded = [load(Path(one.runs[0].run)) for one in groups]
    if len({one.shape for one in loaded}) > 1:
        return None
    networks = {one.name: each.network.eval() for one, each in zip(groups, loaded, strict=True)}
    with torch.no_grad():
        return in_turns(networks, loaded[0].shape, (1,))


def _judge(one: Group, limits: Limits, latency: dict[str, tuple[float, float]]) -> list[Judged]:
    """Return the limits of a group. Raises `UserError` where what one needs is not recorded."""
    found = []
    if limits.max_drop is not None:
        drop = -_needed(one.changes.get("top1"), one, "--max-drop", "test accuracy").difference
        found.append(
            _judged(
                one,
                "--max-drop",
                drop <= limits.max_drop + 1e-9,
                f"top-1 {_moved(drop)}",
                limits.max_drop,
                "points",
            )
        )
    if limits.max_class_drop is not None:
        if not one.class_changes:
            raise UserError(f"--max-class-drop: {one.name} and the reference have no accuracies of the same classes")
        name, change = min(one.class_changes.items(), key=lambda item: item[1].difference)
        text = f"the worst class, {name}, {_moved(-change.difference)}"
        held = -change.difference <= limits.max_class_drop + 1e-9
        found.append(_judged(one, "--max-class-drop", held, text, limits.max_class_drop, "points"))
    if limits.min_sparsity is not None:
        reached = one.means["sparsity"].mean
        held = reached >= limits.min_sparsity - 1e-9
        found.append(
            _judged(one, "--min-sparsity", held, f"sparsity {100 * reached:.2f} %", 100 * limits.min_sparsity, "%")
        )
    if limits.max_size is not None:
        size = _needed(one.means.get("bytes"), one, "--max-size", "stored size").mean
        held = size <= limits.max_size
        found.append(_judged(one, "--max-size", held, f"stored size {size:,.0f} bytes", limits.max_size, "bytes"))
    if limits.max_latency is not None:
        if one.name not in latency:
            raise UserError("--max-latency: the runs have images of different shapes: their times cannot be compared")
        time, spread = latency[one.name]
        undecided = spread > abs(time - limits.max_latency)
        text = f"latency {time:.3g} ms ± {spread:.2g} ms (median and interquartile range)"
        if undecided:
            text += "; the spread is larger than the distance to the limit: measure where nothing else runs"
        held = time <= limits.max_latency and not undecided
        found.append(_judged(one, "--max-latency", held, text, limits.max_latency, "ms", undecided=undecided))
    return found


def _moved(drop: float) -> str:
    return f"{'rose' if drop < 0 else 'dropped'} by {abs(drop):.2f} points"


def _needed(value: Any, one: Group, flag: str, what: str) -> Any:
    if value is None:
        raise UserError(f"{flag}: {one.name} or the reference has no {what} recorded")
    return value


def _judged(
    one: Group, flag: str, held: bool, text: str, limit: float, unit: str, *, undecided: bool = False
) -> Judged:
    outcome = "not decided" if undecided else "met" if held else "NOT met"
    return Judged(
        group=one.name,
        limit=flag,
        held=held,
        undecided=undecided,
        text=f"{flag} {limit:,.12g} {unit}: {outcome}: {text} ({one.name})",
    )
