"""Opens schedules and configurations: found by name, read, overridden, checked against the grammar."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from compressor import lookup
from compressor.config import SCHEMES, Config
from compressor.errors import UserError, did_you_mean
from compressor.importing import refusal
from compressor.schedule import claim, extending, grammar, parsing, variables
from compressor.schedule.document import Document, of_data, parse, parse_value, read
from compressor.schedule.faults import Faults, Message
from compressor.schedule.schedule import Schedule

Overrides = Sequence[tuple[str, str]]
"""Keys and values of `--set`; a key that begins with `schedule.` is the schedule's, any other the configuration's."""

Catalogues = Mapping[str, Callable[[], Mapping[str, str]]]
"""By block of a configuration the names that its `name` may have."""


def read_schedule(source: str | Path | Mapping[str, Any], faults: Faults, overrides: Overrides = ()) -> Schedule:
    """Return the schedule of a file (a path or bare name) or of plain data; what is wrong in it becomes a fault.

    Its claim is not read. Raises `UserError` where the file does not exist or cannot be read, or the data are no plain
    values.
    """
    if isinstance(source, Mapping):
        document = extending.extended(of_data(source, "the schedule", faults), "schedules", faults)
    else:
        document = _document(str(source), "schedules", overrides, faults)
    if isinstance(document.data, dict):
        document.data.pop(claim.KEY, None)
    return grammar.read(document, faults)


def open_schedule(name: str, overrides: Overrides, faults: Faults) -> Schedule:
    """Return the schedule that a path or bare name means, with its claim; what is wrong in them becomes a fault.

    Raises `UserError` where the file does not exist or cannot be read.
    """
    document = _document(name, "schedules", overrides, faults)
    schedule = grammar.read(document, faults)
    beside = claim.document_beside(Path(document.source), schedule.version, faults)
    if beside is not None and (beside.data is not None or not faults):  # else it could not be parsed
        schedule.claim = claim.build(beside, (), beside.data, faults)
        schedule.claim_text = beside.text
    if schedule.claim is not None:
        place = document.place((claim.KEY,)) if beside is None else beside.place(())
        wanted = schedule.claim.config or schedule.config
        try:
            if wanted is None:
                faults.add(place, f"{claim.KEY!r} needs the key 'config': the schedule names no configuration")
            else:
                lookup.find(wanted, "configs")
                if schedule.claim.init is not None:
                    _find_start(schedule.claim.init)
        except UserError as error:  # a run is resumed from other directories, too
            schedule.notes.append(Message(place, f"the claim cannot be compared: {error}", "warning"))
    return schedule


def _find_start(start: claim.Start) -> None:
    """Raise `UserError` where a file of the run that a claimed one begins with is not found."""
    lookup.find(start.config, "configs")
    if start.schedule is not None:
        lookup.find(start.schedule, "schedules")


def open_config(
    name: str, overrides: Overrides, flags: Mapping[str, Any], catalogues: Catalogues, faults: Faults
) -> tuple[Config | None, Document]:
    """Return the configuration that a path or bare name means (None where it has faults) and its document.

    `flags` are values from the command line, by key; `init` replaces the path alone where the file has `{path, ...}`,
    and `keep-zeros` holds the zeros of the checkpoint, wherever that is named. Raises `UserError` where the file is
    missing or cannot be read.
    """
    document = _document(name, "configs", overrides, faults)
    for place, said in document.repeats:
        faults.add(place, said)
    if document.data is None and faults:
        return None, document
    if isinstance(document.data, dict):
        _set_flags(document, flags)
    expanded = variables.expand(document, faults)
    built = parsing.build(Config, document.data, document, (), faults, what="the configuration")
    if built is None or not expanded:
        _check_names(document, catalogues, faults)
        return None, document
    refused = [(key, text) for key, name in built.own_code.items() if (text := refusal(name))]
    for key, text in refused:
        path = tuple(int(part) if part.isdecimal() else part for part in key.split("."))
        faults.add(document.place(path), f"{key}: {text}")
    return None if refused else built, document


def _document(name: str, kind: str, overrides: Overrides, faults: Faults) -> Document:
    path = lookup.find(name, kind)
    document = parse(str(path), read(path), faults, repeats=kind == "schedules")  # version 1 allows them
    document = extending.extended(document, kind, faults)
    for key, value in overrides if document.data is not None else ():
        if key.startswith("schedule.") == (kind == "schedules"):
            source, inside = f"--set {key}={value}", key.removeprefix("schedule.")
            if inside == extending.KEY:
                raise UserError(f"{source}: {extending.KEY!r} is a key of a file: write a file that extends the other")
            document.set(inside, parse_value(value, source), source)
    return document


def _set_flags(document: Document, flags: Mapping[str, Any]) -> None:
    """Set what flags of the command line say. Raises `UserError` where there is no checkpoint whose zeros are kept."""
    for key, value in flags.items():
        if key == "keep-zeros":
            _keep_zeros(document)
            continue
        of_path = key == "init" and isinstance(document.data.get(key), dict) and value not in SCHEMES
        document.set("init.path" if of_path and isinstance(value, str) else key, value, f"--{key}")


def _keep_zeros(document: Document) -> None:
    source = document.data.get("init")
    if isinstance(source, str) and source not in SCHEMES:
        document.set("init", {"path": source}, str(document.place(("init",))))
    elif not isinstance(source, dict):
        raise UserError(
            "--keep-zeros needs a checkpoint: --init CHECKPOINT, or `init: CHECKPOINT` in the configuration"
        )
    document.set("init.keep_zeros", True, "--keep-zeros")


def _check_names(document: Document, catalogues: Catalogues, faults: Faults) -> None:
    """Add a fault for a model or data set that does not exist, in a configuration that has other faults."""
    for block, catalogue in catalogues.items():
        here = document.data.get(block) if isinstance(document.data, dict) else None
        name = here.get("name") if isinstance(here, dict) else None
        if not isinstance(name, str) or ":" in name or "${" in name:  # what was not expanded is a fault already
            continue
        if name not in (known := catalogue()):
            faults.add(document.place((block, "name")), f"there is no {block} {name!r}: {did_you_mean(name, known)}")
