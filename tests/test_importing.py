"""Libraries that are imported late leave the global random states as they are."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import environment

import compressor

SOURCES = sorted(Path(compressor.__file__).parent.rglob("*.py"))

STATES = """
import random, sys
import numpy, torch
from compressor.importing import {how}
random.seed(1), numpy.random.seed(1), torch.manual_seed(1)
before = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
{how}({arguments})
after = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
print([a == b for a, b in zip(before, after)])
"""


def states(how: str, *arguments: str, cwd: Path) -> str:
    """Whether Python's, NumPy's and torch's states are the same afterwards, in a fresh process."""
    script = STATES.format(how=how, arguments=", ".join(map(repr, arguments)))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=cwd, env=environment())
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("name", ["sklearn.linear_model", "torch_pruning"])
def test_a_late_import_keeps_the_random_states(name: str, tmp_path: Path) -> None:
    assert states("late", name, cwd=tmp_path) == "[True, True, True]"


DRAWS = """
import random, numpy, torch
random.random(), numpy.random.rand(), torch.rand(1)
"""


@pytest.mark.parametrize("how", ["late", "import_module"])
def test_a_module_that_draws_while_it_is_imported_changes_nothing(how: str, tmp_path: Path) -> None:
    (tmp_path / "drawing.py").write_text(DRAWS)
    more = ("a plugin",) if how == "import_module" else ()
    assert states(how, "drawing", *more, cwd=tmp_path) == "[True, True, True]"


def test_control_the_module_draws(tmp_path: Path) -> None:
    (tmp_path / "drawing.py").write_text(
        DRAWS + "late = import_module = lambda *names: exec(open('drawing.py').read())"
    )
    script = STATES.format(how="late", arguments="").replace("compressor.importing", "drawing")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip() == "[False, False, False]"


def late_imports(path: Path) -> list[str]:
    """Imports of third parties inside functions that are not made by `late`."""
    found = []
    for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        for node in ast.walk(function):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else names
            found += [f"{path.name}: {name}" for name in names if name.partition(".")[0] != "compressor"]
    return found


def test_no_function_imports_a_library_in_another_way() -> None:
    assert len(SOURCES) > 100
    assert [line for path in SOURCES for line in late_imports(path)] == []
