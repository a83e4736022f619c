"""Rooms: what one imports from another is what the other exports."""

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import compressor

PACKAGE = Path(compressor.__file__).parent
ROOMS = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
UNEXPORTED = {"cli", "experiment", "integrations", "models", "policies"}
"""The commands import modules of `experiment` when they run, users those of `integrations`; `models` has its own
functions; of `policies` other rooms import only `policies.policy`."""


def imports() -> Iterator[tuple[str, str, list[str]]]:
    """The file, the module and the names of every import from another room."""
    for file in sorted(PACKAGE.rglob("*.py")):
        place = file.relative_to(PACKAGE)
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("compressor."):
                module = node.module or ""
                room = module.split(".")[1]
                if room in ROOMS and room not in (place.parts[0], *UNEXPORTED):
                    yield str(place), module, [alias.name for alias in node.names]


def test_a_room_imports_from_others_only_what_they_export() -> None:
    found = list(imports())
    assert len(found) > 100
    for place, module, names in found:
        assert module.removeprefix("compressor.") in ROOMS | {"sparsity.structures"}, (place, module)
        room = import_module(module)
        modules = {path.stem for path in Path(room.__file__ or "").parent.glob("*.py")}
        assert set(names) <= {*room.__all__, *modules}, (place, module, names)


def test_what_a_room_exports_is_there() -> None:
    for name in sorted(ROOMS - UNEXPORTED):
        room = import_module(f"compressor.{name}")
        assert room.__all__, name
        assert [entry for entry in room.__all__ if not hasattr(room, entry)] == [], name


def test_each_room_says_what_belongs_there() -> None:
    assert [name for name in sorted(ROOMS) if not (import_module(f"compressor.{name}").__doc__ or "").strip()] == []
