"""Libraries that are imported late leave the global random states as they are."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import environment

import compressor

SOURCES = sorted(Path(compressor.__file__).parent.rglob("*.py"))

DRAWS = """
import random, numpy, torch
random.random(), numpy.random.rand(), torch.rand(1)
"""

ASK = """
import importlib, json, random, sys
import numpy, torch
from compressor import models
from compressor.importing import import_module, late, plugins_allowed

def allowed(*arguments):
    with plugins_allowed():
        import_module(*arguments)

def states():
    return random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

def kept(function, *arguments):
    random.seed(1), numpy.random.seed(1), torch.manual_seed(1)
    before = states()
    function(*arguments)
    return [a == b for a, b in zip(before, states())]

models.build("mlp")
print(json.dumps({
    "torchvision": "torchvision" in sys.modules,
    "scipy.sparse.csgraph": kept(late, "scipy.sparse.csgraph"),
    "sklearn.linear_model": kept(late, "sklearn.linear_model"),
    "late": kept(late, "draws_late"),
    "import_module": kept(allowed, "draws_of_a_plugin", "a plugin"),
    "control": kept(importlib.import_module, "draws_unwatched"),
}))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a fresh process says: whether Python's, NumPy's and torch's states are the same after each import."""
    folder = tmp_path_factory.mktemp("drawing")
    for name in ("draws_late", "draws_of_a_plugin", "draws_unwatched"):
        (folder / f"{name}.py").write_text(DRAWS)
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, cwd=folder, env=environment())
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", ["scipy.sparse.csgraph", "sklearn.linear_model"])
def test_a_late_import_keeps_the_random_states(name: str, answers: dict[str, Any]) -> None:
    assert answers[name] == [True, True, True]


@pytest.mark.parametrize("how", ["late", "import_module"])
def test_a_module_that_draws_while_it_is_imported_changes_nothing(how: str, answers: dict[str, Any]) -> None:
    assert answers[how] == [True, True, True]


def test_control_the_module_draws(answers: dict[str, Any]) -> None:
    assert answers["control"] == [False, False, False]


def test_torchvision_is_imported_when_asked_for(answers: dict[str, Any]) -> None:
    assert answers["torchvision"] is False


def late_imports(path: Path) -> list[str]:
    """Imports of third parties inside functions that are not made by `late`."""
    found = []
    for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        for node in ast.walk(function):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else names
            own = {"compressor", *sys.stdlib_module_names}
            found += [f"{path.name}: {name}" for name in names if name.partition(".")[0] not in own]
    return found


def test_no_function_imports_a_library_in_another_way() -> None:
    assert len(SOURCES) > 100
    assert [line for path in SOURCES for line in late_imports(path)] == []
