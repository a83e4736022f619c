"""The lists of `compress list`, by kind, with one line for each entry, and one entry with all that is known of it."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_origin

from compressor import data, lookup, models
from compressor.component import Component
from compressor.errors import UserError, did_you_mean
from compressor.schedule import Argument, arguments, components, example

COMPONENTS = (
    "policies",
    "pruners",
    "criteria",
    "structures",
    "allocations",
    "rates",
    "regularizers",
    "extensions",
    "gates",
    "lr-schedulers",
)
KINDS = (*COMPONENTS, "models", "datasets", "schedules", "configs")
"""What `compress list` knows, in its order."""


@dataclass(frozen=True)
class Entry:
    """A component, model, data set, schedule or configuration: its text, its arguments, and YAML with it."""

    name: str
    kind: str
    text: str
    arguments: tuple[Argument, ...] = ()
    example: str = ""


def catalogue(kind: str) -> dict[str, str]:
    """Return name -> one line, for one of the kinds that `compress list` knows."""
    if kind == "models":
        return models.catalogue()
    if kind == "datasets":
        return data.catalogue()
    if kind in ("schedules", "configs"):
        return {name: _headline(path) for name, path in lookup.shipped_files(kind).items()}
    known = components(kind.replace("-", "_"))
    return {name: known[name].summary() for name in sorted(known)}


def entries(name: str) -> list[Entry]:
    """Return what has this name: one entry of each kind. Raises `UserError` with the nearest names where nothing has.

    A name in other letters (`steplr`) is found where it is the only one.
    """
    known = {kind: catalogue(kind) for kind in KINDS}
    every = {each for names in known.values() for each in names}
    alike = [each for each in every if each.lower() == name.lower()]
    wanted = alike[0] if name not in every and len(alike) == 1 else name
    found = [_entry(kind, wanted, names[wanted]) for kind, names in known.items() if wanted in names]
    if not found:
        hint = did_you_mean(name, every | set(KINDS))
        if not hint.startswith("did you mean"):
            hint = f"the kinds are {', '.join(KINDS)}; without an argument all names are listed"
        raise UserError(f"there is no kind and no component {name!r}: {hint}")
    return found


def _entry(kind: str, name: str, line: str) -> Entry:
    if kind == "models":
        own = () if line == "torchvision" else _of_builder(models.arguments(name))
        said = f"{line}: its arguments are those of torchvision's builder" if line == "torchvision" else line
        return Entry(name, kind, said, own, f"model: {{name: {name}}}")
    if kind == "datasets":
        return Entry(name, kind, line, (), f"data: {{name: {name}}}")
    if kind in ("schedules", "configs"):
        return Entry(name, kind, f"{line}\n\nIts file: {lookup.shipped_files(kind)[name]}")
    cls = components(kind.replace("-", "_"))[name]
    return Entry(name, kind, _text(cls, name), tuple(arguments(cls)), example(cls))


def _text(cls: type[Component], name: str) -> str:
    """Return the docstring, another name that it has, and where its arguments stand."""
    said = [inspect.getdoc(cls) or ""]
    if name != cls.name:
        said.append(f"Another name of {cls.name}.")
    if cls.section == "policies":
        inside = getattr(cls, "component", None)
        where = f"`{cls.name}:`" if inside is None else f"`args:`, beside `instance_name` or `class` of one of {inside}"
        said.append(f"Its arguments stand under {where}; when it acts, beside `{cls.name}:`, as in the example.")
    return "\n\n".join(said)


def _of_builder(parameters: dict[str, inspect.Parameter]) -> tuple[Argument, ...]:
    return tuple(
        Argument(name, _annotation(one.annotation), None if one.default is one.empty else repr(one.default), "")
        for name, one in parameters.items()
    )


def _annotation(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return "any value"
    plain = annotation.__origin__ if get_origin(annotation) is Annotated else annotation
    return plain.__name__ if type(plain) is type else str(plain)


def _headline(path: Path) -> str:
    """Return the first comment line that is a sentence."""
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.lstrip("# ")
        if line.startswith("#") and text and not text.startswith("yaml-language-server"):
            return text
    return ""
