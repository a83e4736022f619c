"""What a command was asked to do: a schedule and a configuration, read, overridden and checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from compressor import data, models
from compressor.config import Config
from compressor.errors import UserError, did_you_mean
from compressor.schedule import grammar, lookup, parsing
from compressor.schedule.document import Document, parse, parse_value, read
from compressor.schedule.faults import Faults
from compressor.schedule.schedule import Schedule
from compressor.training.initialization import SCHEMES


@dataclass(frozen=True)
class Specification:
    """A schedule (None: plain dense training) and a configuration, with the names they were asked for by."""

    schedule: Schedule | None
    config: Config
    schedule_name: str
    config_name: str
    config_document: Document = field(default_factory=lambda: Document("the configuration", ""))

    @property
    def name(self) -> str:
        """What the run's folder is called, but for its number."""
        return f"{self.schedule_name}-{self.config_name}"

    @property
    def schedule_text(self) -> str | None:
        """The schedule as YAML: the file's own text, or the overridden data."""
        return None if self.schedule is None else text_of(self.schedule.document)

    @property
    def config_data(self) -> dict[str, Any]:
        """The resolved configuration as plain values."""
        return self.config.model_dump(mode="python")


def text_of(document: Document) -> str:
    """A document's own text while nothing in it was overridden, else its data as YAML."""
    if not document.overridden:
        return document.text
    return yaml.safe_dump(document.data, sort_keys=False, allow_unicode=True)


def open_files(
    schedule: str | None,
    config: str | None,
    overrides: Sequence[tuple[str, str]],
    faults: Faults,
    *,
    flags: Mapping[str, Any] | None = None,
    allow_plugins: bool = False,
) -> Specification | None:
    """Read both files (paths or bare names) and apply `overrides`; None and faults where something is wrong.

    An override of `schedule.…` addresses the schedule, any other the configuration. Raises `UserError` where a file
    does not exist or cannot be read.
    """
    parsed = None
    if schedule is not None:
        document = _document(schedule, "schedules", faults)
        _override(document, overrides, of_schedule=True)
        parsed = grammar.read(document, faults, allow_plugins=allow_plugins)
    elif any(key.startswith("schedule.") for key, _ in overrides):
        raise UserError("--set schedule.…: there is no --schedule to set it in")
    config_name = config if config is not None else (parsed.config if parsed else None)
    if config_name is None:
        return None
    document = _document(config_name, "configs", faults)
    _override(document, overrides, of_schedule=False)
    if document.data is None and faults:
        return None
    for key, value in (flags or {}).items():
        if value is not None:
            document.set(key, value, f"--{key}")
    built = parsing.build(Config, document.data, document, (), faults, what="the configuration")
    if built is None:
        _names(document, faults)
        return None
    schedule_stem = "dense" if schedule is None else Path(schedule).stem
    if built.init not in SCHEMES and Path(built.init).is_file():
        # The run may be resumed from another directory.
        built = built.model_copy(update={"init": str(Path(built.init).absolute())})
    return Specification(parsed, built, schedule_stem, Path(config_name).stem, document)


def _names(document: Document, faults: Faults) -> None:
    """In a configuration that has other faults: a model or data set that there is not, so that all is said at once."""
    for block, known in (("model", models.catalogue()), ("data", data.catalogue())):
        here = document.data.get(block) if isinstance(document.data, dict) else None
        name = here.get("name") if isinstance(here, dict) else None
        if isinstance(name, str) and ":" not in name and name not in known:
            faults.add(document.place((block, "name")), f"there is no {block} {name!r}: {did_you_mean(name, known)}")


def _document(name: str, kind: str, faults: Faults) -> Document:
    path = lookup.find(name, kind)
    return parse(str(path), read(path), faults)


def _override(document: Document, overrides: Sequence[tuple[str, str]], *, of_schedule: bool) -> None:
    if document.data is None:
        return
    for key, value in overrides:
        if key.startswith("schedule.") == of_schedule:
            source = f"--set {key}={value}"
            document.set(key.removeprefix("schedule."), parse_value(value, source), source)


def specification(
    schedule: str | None,
    config: str | None,
    overrides: Sequence[tuple[str, str]] = (),
    *,
    seed: int | None = None,
    init: str | None = None,
    allow_plugins: bool = False,
) -> Specification:
    """Read both files or raise `UserError` with everything that is wrong in them. `seed` and `init` are flags."""
    faults = Faults()
    flags = {"seed": seed, "init": init}
    spec = open_files(schedule, config, overrides, faults, flags=flags, allow_plugins=allow_plugins)
    faults.raise_any()
    if spec is None:
        raise UserError("no configuration: give --config, or name one in the schedule (`config: NAME`, version 2)")
    return spec


def difference(ours: Any, theirs: Any, path: str = "") -> str | None:
    """The first place where two plain values differ, in words; None where they are equal."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in [*ours, *(key for key in theirs if key not in ours)]:
            found = difference(ours.get(key), theirs.get(key), f"{path}.{key}" if path else str(key))
            if found:
                return found
        return None
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        return next((d for i, (a, b) in pairs if (d := difference(a, b, f"{path}.{i}"))), None)
    return None if ours == theirs else f"{path} is {ours!r} now, {theirs!r} there"
