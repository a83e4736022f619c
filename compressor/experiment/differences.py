"""How two schedules, two configurations or two runs differ in meaning: `compress diff`."""

import inspect
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from compressor import data, lookup, models
from compressor.config import Config, InitConfig, named
from compressor.errors import UserError, did_you_mean
from compressor.experiment import folder
from compressor.experiment.networks import Networks
from compressor.policies.policy import BoundPolicy
from compressor.schedule import (
    EXPECT,
    SECTIONS,
    Choice,
    Difference,
    Document,
    Faults,
    Schedule,
    differences,
    differing,
    open_config,
    open_schedule,
    parse,
    stated,
)

Kind = Literal["schedules", "configurations", "runs"]
_OF_SCHEDULES = {"version", "policies", "plugins", "gates", "config", EXPECT, *SECTIONS}


class Differences(BaseModel):
    """All differences of two files (or of two runs' folders), and notes on how they were compared.

    As JSON it carries `schema`: the number rises when a key goes, or changes its name or its meaning.
    """

    model_config = ConfigDict(frozen=True)

    layout: Literal[1] = Field(default=1, alias="schema")
    kind: Kind
    a: str
    b: str
    equal: bool
    differences: list[Difference]
    notes: list[str] = []


@dataclass(frozen=True)
class _Known:
    """A configuration under which selections are compared: its network's names, or the reason why they are unknown."""

    name: str
    config: Config | None = None
    document: Document | None = None
    reason: str = ""


def between(a: str, b: str, config: str | None = None) -> Differences:
    """Return how two schedules, configurations (paths or bare names) or run folders differ in meaning.

    Defaults that are written out, the order of keys, anchors, `extends`, the version of the grammar and the names of
    instances make no difference. `config`: the configuration under which the selections of two schedules are compared;
    without one, that of the schedules themselves. Raises `UserError` with all faults of both.
    """
    if Path(a).is_dir() or Path(b).is_dir():
        if config is not None:
            raise UserError("--config is for two schedules: a run's folder has its own configuration")
        return of_runs(Path(a), Path(b))
    kind = _kind(a, b)
    faults = Faults()
    if kind == "configurations":
        if config is not None:
            raise UserError(f"--config is for two schedules: {a} and {b} are configurations")
        (first, one), (second, two) = (_open_config(name, faults) for name in (a, b))
        faults.raise_any()
        assert first is not None
        assert second is not None
        return _result(kind, a, b, of_configurations(first, one, second, two))
    ours, theirs = (open_schedule(name, (), faults) for name in (a, b))
    faults.raise_any()
    found, notes = of_schedules(ours, theirs, config)
    return _result(kind, a, b, found, notes)


def of_runs(a: Path, b: Path) -> Differences:
    """Return how the schedules and the configurations of two runs' folders differ in meaning."""
    faults = Faults()
    for path in (a, b):
        if not (path / folder.CONFIG).is_file():
            raise UserError(f"{path} is no folder of a run: it has no {folder.CONFIG}; a run is compared with a run")
    files = [(path / folder.SCHEDULE, path / folder.CONFIG) for path in (a, b)]
    configs = [_open_config(str(config), faults) for _, config in files]
    schedules = [open_schedule(str(one), (), faults) if one.is_file() else None for one, _ in files]
    faults.raise_any()
    (first, one), (second, two) = configs
    assert first is not None
    assert second is not None
    ours, theirs = schedules
    found: list[Difference] = []
    notes: list[str] = []
    if ours is not None and theirs is not None:
        found, notes = of_schedules(ours, theirs, (_Known(str(a), first, one), _Known(str(b), second, two)))
    elif ours is not None or theirs is not None:
        sides = [
            stated(Document(str(file), "") if schedule is None else schedule.document, (), schedule and "a schedule")
            for (file, _), schedule in zip(files, schedules, strict=True)
        ]
        only: Literal["a", "b"] = "b" if ours is None else "a"
        found = [Difference(part="policies", what="the schedule", a=sides[0], b=sides[1], only=only)]
    return _result("runs", str(a), str(b), [*found, *of_configurations(first, one, second, two)], notes)


def of_schedules(
    a: Schedule, b: Schedule, config: "str | tuple[_Known, _Known] | None" = None
) -> tuple[list[Difference], list[str]]:
    """Return how two schedules differ, and notes on how they were compared.

    `config`: the configuration under which their selections are compared, or one for each; without it those that they
    name, or the one that only one of them names.
    """
    known = config if isinstance(config, tuple) else _known(a, b, config)
    bound = [_bind(schedule, one) for schedule, one in zip((a, b), known, strict=True)]
    notes = [said for _, said in bound if said]
    names = None not in (bound[0][0], bound[1][0])
    found = differences(a, b, (bound[0][0], bound[1][0]) if names else (None, None))
    if not isinstance(config, tuple):
        found += _of_config(a, b, known)
    found += _of_claims(a, b)
    if not names and not notes and any(one.names for one in found):
        notes = ["the selections were compared as text: with --config, what they match is compared"]
    return found, list(dict.fromkeys(notes)) if any(one.part != "expect" for one in found) else []


def of_configurations(a: Config, one: Document, b: Config, two: Document) -> list[Difference]:
    """Return how two configurations differ; `one` and `two` are their documents."""
    found = []
    for path, here, there in differing(_values(a), _values(b)):
        values = (_init(a), _init(b)) if path == ("init",) else (here, there)
        sides = [stated(document, path, value) for document, value in zip((one, two), values, strict=True)]
        found.append(Difference(part="configuration", what=".".join(map(str, path)), a=sides[0], b=sides[1]))
    return found


def _init(config: Config) -> Any:
    return config.init.model_dump(exclude_unset=True) if isinstance(config.init, InitConfig) else config.init


def _values(config: Config) -> dict[str, Any]:
    """Return what a configuration says, with the defaults of its model and its data in place of nothing."""
    values: dict[str, Any] = config.model_dump(mode="python")
    values["model"] = _model(config)
    own = config.data.model_copy(update={"size": None, "channels": None})
    shape = data.image_shape(own)
    if shape is not None:
        values["data"]["channels"] = config.data.channels or shape[0]
        values["data"]["size"] = config.data.size or (shape[1] if shape[1] == shape[2] else None)
    values["data"]["augment"] = [Choice({name: given}) for name, given in map(named, config.data.augment)]
    source = config.checkpoint_path
    values["init"] = Choice({config.scheme: {}})
    if source is not None:
        values["init"] = {**config.start.model_dump(), "path": os.path.normpath(source)}
    return values


def _model(config: Config) -> dict[str, Any]:
    """Return the model with the arguments that are its builder's defaults anyway."""
    model = config.model
    found = {**model.model_dump(mode="python"), "num_classes": model.num_classes or data.class_count(config.data.name)}
    if ":" not in model.name:
        for name, one in models.arguments(model.name).items():
            if name != "num_classes" and one.default is not inspect.Parameter.empty:
                found.setdefault(name, list(one.default) if isinstance(one.default, tuple) else one.default)
    return found


def _result(kind: Kind, a: str, b: str, found: Sequence[Difference], notes: Sequence[str] = ()) -> Differences:
    return Differences(kind=kind, a=a, b=b, equal=not found, differences=list(found), notes=list(notes))


def _kind(a: str, b: str) -> Kind:
    """Return what two names mean. Raises `UserError` where they mean files of two kinds, or none."""
    first, second = kinds(a), kinds(b)
    both: tuple[Kind, ...] = ("schedules", "configurations")
    for kind in both:
        if kind in first and kind in second:
            return kind
    said = [f"{name} is a {found[0].removesuffix('s')}" for name, found in ((a, first), (b, second))]
    raise UserError(f"{' and '.join(said)}: two files of one kind are compared")


def kinds(name: str) -> list[Kind]:
    """Return what a name may mean: a bare name may be that of a schedule and that of a configuration."""
    found: dict[Path, Kind] = {}
    folders: dict[str, Kind] = {"schedules": "schedules", "configs": "configurations"}
    for where, kind in folders.items():
        with suppress(UserError):
            found.setdefault(lookup.find(name, where), kind)
    if not found:
        known = {each for where in folders for each in lookup.names(where)}
        raise UserError(f"there is no schedule and no configuration {name!r}: {did_you_mean(name, known)}")
    return [_of_content(path, kind) for path, kind in found.items()]


def _of_content(path: Path, kind: Kind) -> Kind:
    """Return the kind of a file by its keys; where these say nothing, that of the folder where it was found."""
    keys = parse(str(path), path.read_text(encoding="utf-8", errors="replace"), Faults(), repeats=True).data
    if not isinstance(keys, dict):
        return kind
    of_config = len(keys.keys() & (Config.model_fields.keys() - {"extends"}))
    of_schedule = len(keys.keys() & _OF_SCHEDULES)
    if of_config == of_schedule:
        return kind
    return "configurations" if of_config > of_schedule else "schedules"


def _open_config(name: str, faults: Faults) -> tuple[Config | None, Document]:
    return open_config(name, (), {}, {"model": models.catalogue, "data": data.catalogue}, faults)


def _known(a: Schedule, b: Schedule, config: str | None) -> tuple[_Known, _Known]:
    """Return the configuration under which each schedule is read. Raises `UserError` where `config` has faults."""
    if config is not None:
        faults = Faults()
        opened, document = _open_config(config, faults)
        faults.raise_any()
        one = _Known(config, opened, document)
        return one, one
    first = _of_schedule(a.config or b.config)
    return first, first if b.config in (None, a.config) else _of_schedule(b.config)


def _of_schedule(name: str | None) -> _Known:
    """Return the configuration that a schedule names, as far as it can be read."""
    if name is None:
        return _Known("")
    faults = Faults()
    try:
        config, document = _open_config(name, faults)
        faults.raise_any()
    except UserError as error:
        return _Known(name, reason=str(error).splitlines()[0])
    return _Known(name, config, document)


def _bind(schedule: Schedule, known: _Known) -> tuple[tuple[BoundPolicy, ...] | None, str]:
    """Return the policies bound to the model of a configuration; None, and why, where its names are not known."""
    config = known.config
    if config is None:
        said = f"the selections were compared as text, {known.name} cannot be read: {known.reason}"
        return None, said if known.name else ""
    classes = config.model.num_classes or data.class_count(config.data.name)
    try:
        network = Networks(config, data.image_shape(config.data)).skeleton(classes)
    except UserError as error:
        return None, f"the selections were compared as text, the model of {known.name} is not known: {error}"
    faults = Faults()
    bound = schedule.bind(network, config.epochs, faults)
    faults.raise_any()
    return bound.policies, ""


def _of_config(a: Schedule, b: Schedule, known: tuple[_Known, _Known]) -> list[Difference]:
    """Return the difference that two schedules name configurations of other meanings."""
    if a.config == b.config:
        return []
    one, two = known if None not in (a.config, b.config) else (_Known(""), _Known(""))
    if one.config is not None and two.config is not None and one.document and two.document:
        same = one is not two and not of_configurations(one.config, one.document, two.config, two.document)
        if same:
            return []
    sides = [stated(each.document, ("config",), each.config) for each in (a, b)]
    return [Difference(part="config", what="config", a=sides[0], b=sides[1])]


def _of_claims(a: Schedule, b: Schedule) -> list[Difference]:
    """Return how the claims of two schedules differ, wherever they are written."""
    values = [None if each.claim is None else each.claim.model_dump() for each in (a, b)]
    documents = [_claim_document(each) for each in (a, b)]
    found = []
    for path, here, there in differing(values[0], values[1]):
        sides = [
            stated(document, (*base, *path), value)
            for (document, base), value in zip(documents, (here, there), strict=True)
        ]
        only: Literal["a", "b"] | None = None if None not in values else "b" if values[0] is None else "a"
        what = ".".join(map(str, (EXPECT, *path)))
        found.append(Difference(part=EXPECT, what=what, a=sides[0], b=sides[1], only=only))
    return found


def _claim_document(schedule: Schedule) -> tuple[Document, tuple[str, ...]]:
    """Return the document with the claim of a schedule, and where it stands there."""
    if schedule.claim_text is None:
        return schedule.document, (EXPECT,)
    path = Path(schedule.document.source)
    return parse(str(path.with_name(path.stem + lookup.CLAIM)), schedule.claim_text, Faults()), ()
