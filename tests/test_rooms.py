"""Above the policies nobody knows a single component, neither by import nor by name."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import compressor
from compressor.component import Component
from compressor.schedule.registry import AXES, SECTIONS, components

ROOT = Path(compressor.__file__).parent
ABOVE = ("cli", "experiment", "reports", "schedule", "session", "training")
FILES = sorted(path for room in ABOVE for path in (ROOT / room).rglob("*.py"))


def classes() -> set[str]:
    """The names of all components' classes, and those that schedules give them where they are no plain words."""
    found: set[str] = set()
    for section in ("policies", *SECTIONS, "gates", *AXES):
        for name, cls in components(section).items():
            found.add(cls.__name__)
            if not name.islower():
                found.add(name)
    return found - {Component.__name__}


def names_in(source: str) -> Iterator[tuple[int, str]]:
    """Every name that is imported or used, and every string that is no docstring, with its line."""
    tree = ast.parse(source)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from ((node.lineno, alias.name.rpartition(".")[2]) for alias in node.names)
        elif isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute):
            yield node.lineno, node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def test_there_are_components_and_files_to_compare() -> None:
    assert {"PruningPolicy", "L1Regularizer", "AutomatedGradualPruner", "HardConcreteL0", "StepLR"} <= classes()
    assert len(FILES) > 40


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_component_is_named(path: Path) -> None:
    known = classes()
    assert [(line, name) for line, name in names_in(path.read_text(encoding="utf-8")) if name in known] == []


def test_control_an_import_a_use_and_a_literal_are_seen() -> None:
    source = '"""StepLR."""\nfrom a import PruningPolicy\nisinstance(x, b.StepLR)\ny = name == "L1Regularizer"\n'
    found = [(line, name) for line, name in names_in(source) if name in classes()]
    assert found == [(2, "PruningPolicy"), (3, "StepLR"), (4, "L1Regularizer")]
