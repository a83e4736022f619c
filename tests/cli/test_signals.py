"""SIGINT and SIGTERM before a run is in training: one line, and the exit code of the signal."""

import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from helpers import environment

ROOT = Path(__file__).resolve().parents[2]

# The signal comes in the middle of an import, where all exceptions are caught.
INTERRUPTED = """
import os, runpy, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        try:
            if name == {module!r}:
                os.kill(os.getpid(), {number})
        except BaseException:
            pass

sys.meta_path.insert(0, Interrupting())
sys.argv = ["compress", "train", "-c", "tiny", "--out", "run"]
runpy.run_module("compressor", run_name="__main__")
"""


@pytest.mark.parametrize(
    ("module", "number", "code"),
    [("click", signal.SIGINT, 130), ("torch.nn", signal.SIGINT, 130), ("yaml", signal.SIGTERM, 143)],
)
def test_a_signal_during_the_imports_ends_the_command_in_one_line(
    work: Path, module: str, number: int, code: int
) -> None:
    command = [sys.executable, "-c", INTERRUPTED.format(module=module, number=int(number))]
    done = subprocess.run(command, cwd=work, env=environment(), capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "interrupted\n")
    assert not (work / "run").exists()


def test_the_installed_command_is_the_module() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"compress": "compressor.__main__:main"}
