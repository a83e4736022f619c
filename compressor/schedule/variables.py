"""`${NAME}` in the values of a configuration: variables of the environment."""

import os
import re
from collections.abc import Mapping
from typing import Any

from compressor.errors import did_you_mean
from compressor.schedule.document import Document, KeyPath
from compressor.schedule.faults import Faults

_VARIABLE = re.compile(r"\$\{(.*?)(\}|$)", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def expand(document: Document, faults: Faults) -> bool:
    """Put the environment's values in place of each `${NAME}` in the text values of a document.

    A variable that does not exist is a fault, and so is any other use of `${`; then False is returned. A single `$`
    has no meaning.
    """
    wrong: list[KeyPath] = []

    def expanded(value: Any, path: KeyPath) -> Any:
        if isinstance(value, dict):
            return {key: expanded(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [expanded(item, (*path, index)) for index, item in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        filled = fill(value, document, path, faults)
        if filled is None:
            wrong.append(path)
            return value
        return filled

    document.data = expanded(document.data, ())
    return not wrong


def fill(value: str, document: Document, path: KeyPath, faults: Faults) -> str | None:
    """Return the text at `path` of a document with the environment's values; None, and faults, where it has no such."""
    said = [said for found in _VARIABLE.finditer(value) if (said := _wrong(found, os.environ))]
    for line in said:
        faults.add(document.place(path), f"{'.'.join(map(str, path))}: {line}")
    return None if said else _VARIABLE.sub(lambda found: os.environ[found[1]], value)


def _wrong(found: re.Match[str], variables: Mapping[str, str]) -> str | None:
    """Return what is wrong with one `${...}`; the value of a variable is never shown, it may be a secret."""
    name = found[1]
    if not found[2] or not _NAME.fullmatch(name):
        return f"'{found[0][:40]}' should be ${{NAME}}, the name of an environment variable"
    if name not in variables:
        hint = did_you_mean(name, variables)
        return f"there is no environment variable {name!r}: " + (
            hint if hint.startswith("did you mean") else f"set it (export {name}=...), or write its value here"
        )
    if "${" in variables[name]:
        return f"the environment variable {name!r} itself has a '${{', which is not expanded: write it in full"
    return None
