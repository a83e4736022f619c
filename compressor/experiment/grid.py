"""The grid of a sweep: values of keys, their combinations, and the runs that these are."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import product

import yaml

from compressor.errors import UserError
from compressor.experiment import inspection
from compressor.experiment.specification import Specification, as_text, open_files, specification
from compressor.reports import SweptRun, short_keys
from compressor.schedule import Faults, parse_value

_NAME = 100
"""The number of letters of a run's name from which it is shortened."""


@dataclass(frozen=True)
class PlannedRun:
    """A run of the grid: the name of its folder, what the grid sets in it, and its files."""

    name: str
    settings: Mapping[str, str]
    seed: int
    spec: Specification


def values_of(grid: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the values of each key of the grid as `--set` takes them. Raises `UserError`."""
    found: dict[str, list[str]] = {}
    for key, text in grid:
        source = f"--grid {key}={text}"
        if key == "seed":
            raise UserError(f"{source}: give the number of seeds with --seeds")
        if key in found:
            raise UserError(f"{source}: {key!r} is given twice: give all of its values at once, with commas between")
        values = [parse_value(value, source) for value in _split(text, source)]
        for place, value in enumerate(values):
            if any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in values[:place]):
                raise UserError(f"{source}: the value {as_text(value)} stands there twice")
        found[key] = [as_text(value) for value in values]
    return found


def _split(text: str, source: str) -> list[str]:
    """Return the values between the commas that are in no bracket and no quotes."""
    whole = f"[{text}]"
    try:
        node = yaml.compose(whole, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        node = None
    if not isinstance(node, yaml.SequenceNode) or node.end_mark.index != len(whole) or not node.value:
        raise UserError(f"{source}: should be values with commas between, as --grid optimizer.lr=0.1,0.01")
    return [whole[item.start_mark.index : item.end_mark.index] for item in node.value]


def _combinations(values: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]


def checked(schedule: str, config: str | None, values: Mapping[str, Sequence[str]]) -> Specification:
    """Return the specification of the first run. Raises `UserError` with all that is wrong in any run."""
    first: Specification | None = None
    wrong: list[str] = []
    for settings in _combinations(values):
        faults = Faults()
        try:
            spec = open_files(schedule, config, list(settings.items()), faults)
            if spec is None and not faults:
                spec = specification(schedule, config, list(settings.items()))
            if spec is not None and not faults:
                inspection.validate(spec, faults)
            first = first or spec
            lines = [str(line) for line in faults.lines]
        except UserError as error:
            lines = str(error).splitlines()
        wrong += [line for line in lines if line not in wrong]
    if wrong:
        raise UserError("\n".join(line.replace("--set ", "--grid ") for line in wrong))
    assert first is not None
    return first


def planned(
    schedule: str,
    config: str | None,
    values: Mapping[str, Sequence[str]],
    seeds: int | None,
    known: Sequence[SweptRun],
) -> list[PlannedRun]:
    """Return the runs of the grid; those of before keep their names."""
    names = {_identity(run.settings, run.seed): run.name for run in known}
    taken, found = set(names.values()), []
    for settings in _combinations(values):
        for seed in [None] if seeds is None else range(seeds):
            spec = specification(schedule, config, list(settings.items()), seed=seed)
            name = names.get(_identity(settings, spec.config.seed)) or _name(settings, spec.config.seed, taken)
            taken.add(name)
            found.append(PlannedRun(name, settings, spec.config.seed, spec))
    return found


def _identity(settings: Mapping[str, str], seed: int) -> object:
    return frozenset(settings.items()), seed


def _name(settings: Mapping[str, str], seed: int, taken: set[str]) -> str:
    """Return the name of a new run's folder: `lr=0.1_seed=0`."""
    short = short_keys(list(settings))
    parts = [f"{short[key]}={value}" for key, value in settings.items()]
    name = re.sub(r"[^\w.+=-]+", "-", "_".join([*parts, f"seed={seed}"]), flags=re.ASCII).lstrip(".-")
    if len(name) > _NAME:
        name = f"{name[: _NAME - 30]}-{sha256(name.encode()).hexdigest()[:8]}_seed={seed}"
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{name}-{number}"
    return found
