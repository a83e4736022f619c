"""A value that a file states, and its place there."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Stated(BaseModel):
    """A value of one file, and its place there. `given`: it is written there; else it is the default, or missing."""

    model_config = ConfigDict(frozen=True)

    value: Any
    file: str | None
    line: int | None
    column: int | None
    given: bool = True

    @property
    def place(self) -> str:
        """Return `file:line:column`, as far as it is known."""
        return ":".join(str(part) for part in (self.file or "", self.line, self.column) if part is not None)

    @property
    def text(self) -> str:
        """Return the value as YAML has it in one line, `-` where the file has none."""
        if self.value is None and not self.given:
            return "-"
        return _yaml(self.value) + ("" if self.given else " (default)")


def _yaml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
