"""From a block of a document to a pydantic object; pydantic's errors become faults with a place."""

import re
from collections.abc import Iterable
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from compressor.component import Named
from compressor.errors import did_you_mean
from compressor.schedule.document import Document, KeyPath, describe
from compressor.schedule.faults import Faults, Place

Model = TypeVar("Model", bound=BaseModel)


def build(
    cls: type[Model], data: Any, document: Document, path: KeyPath, faults: Faults, *, what: str, **given: Any
) -> Model | None:
    """Return `cls` from `data` (at `path`) and the `given` fields; None, and faults, where it is invalid."""
    if not isinstance(data, dict):
        faults.add(document.place(path), f"{what} should be a mapping, got {describe(data)}")
        return None
    try:
        return cls.model_validate({**data, **given})
    except ValidationError as error:
        _report(error.errors(include_url=False), cls, document, path, faults, what, given)
        return None


def _report(
    errors: list[ErrorDetails],
    cls: type[BaseModel],
    document: Document,
    base: KeyPath,
    faults: Faults,
    what: str,
    given: Iterable[str],
) -> None:
    missing = {e["loc"] for e in errors if e["type"] == "missing"}
    wrong: dict[KeyPath, list[ErrorDetails]] = {}
    for error in errors:
        loc = error["loc"]
        if error["type"] == "extra_forbidden":
            key = str(loc[-1])
            hint = did_you_mean(key, set(_keys(cls, loc[:-1])) - set(given))
            meant = {(*loc[:-1], name) for name in re.findall(r"'([^']+)'", hint) if hint.startswith("did you mean")}
            missing -= set(sorted(meant & missing, key=str)[:1])
            place = document.place(_existing(document, base, loc), key=True)
            faults.add(place, f"unknown key {key!r} in {what}: {hint}")
    for error in errors:
        if error["type"] == "extra_forbidden":
            continue
        if error["type"] == "missing":
            name = str(error["loc"][-1])
            if error["loc"] in missing:
                place = document.place(_existing(document, base, error["loc"][:-1]))
                faults.add(place, f"{what} needs the key {name!r}")
            continue
        wrong.setdefault(_existing(document, base, error["loc"]), []).append(error)
    for path, together in wrong.items():
        if path in document.broken:
            continue
        inside = [str(part) if isinstance(part, str) else f"[{part}]" for part in path[len(base) :]]
        named = ".".join(inside[-2:]).replace(".[", "[") if inside and inside[-1][0] == "[" else "".join(inside[-1:])
        name = f"{named!r} of {what}" if named else what
        said = _say_all(together)
        place, hint = _from_elsewhere(document, path, said)
        faults.add(place, f"{name}: {said}{hint}")


def _from_elsewhere(document: Document, path: KeyPath, said: str) -> tuple[Place, str]:
    """Return the place of the mapping at `path`, or of a key of it that a message quotes and another file or flag gave.

    With it comes a hint how the key of another file is removed.
    """
    whole = document.place(path)
    for key in re.findall(r"'([^']+)'", said) if document.has(path) else ():
        place = document.place((*path, key), key=True)
        if document.has((*path, key)) and place.source != whole.source:
            merged = place.file is not None and place.source != document.source
            return place, f"; `{key}: null` in {document.source} removes it there" if merged else ""
    return whole, ""


def _existing(document: Document, base: KeyPath, loc: tuple[int | str, ...]) -> KeyPath:
    """Return the place in the document of pydantic's location, which also names union members, which are no keys."""
    path = base
    for part in loc:
        if document.has((*path, part)):
            path = (*path, part)
    return path


def _keys(cls: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Return the YAML keys of the model at `loc` below `cls`."""
    here: Any = cls
    for part in loc:
        if isinstance(here, Named):
            here = here.known.get(str(part))
        else:
            if part == here.__name__:  # the member of a union
                continue
            field = next((f for n, f in here.model_fields.items() if part in (n, f.alias)), None)
            here = None if field is None else inside(field)
        if here is None:
            return []
    return [] if isinstance(here, Named) else [field.alias or name for name, field in here.model_fields.items()]


def inside(field: FieldInfo) -> Any:
    """Return the class that has the keys of a field's mapping: the mark of a field that names a component, or a
    model.
    """
    members = get_args(field.annotation)
    options = (field.annotation, *members, *(m for member in members for m in get_args(member)), *field.metadata)
    marks = [mark for option in options for mark in (option, *getattr(option, "__metadata__", ()))]
    models = [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]
    return next((mark for mark in marks if isinstance(mark, Named)), models[0] if models else None)


def _say_all(errors: list[ErrorDetails]) -> str:
    """Return the message for one value for which several forms were tried."""
    if {error["type"] for error in errors} == {"string_type", "list_type"}:
        return f"should be a selector: a name or a list of names, got {describe(errors[0]['input'])}"
    return " or ".join(dict.fromkeys(map(_say, errors)))


def _say(error: ErrorDetails) -> str:
    """Return the message for one error."""
    message = error["msg"]
    if error["type"] == "value_error":
        return message.removeprefix("Value error, ")
    if error["type"] == "model_type":
        message = "should be a mapping"
    message = message.removeprefix("Input ").replace("a valid integer", "an integer").replace("a valid ", "a ")
    return f"{message}, got {describe(error['input'])}"
