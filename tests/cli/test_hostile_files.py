"""Files that name code: nothing of it runs, and no command succeeds, unless the user allows it."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import TINY, compress, environment, saved, succeed

import compressor
from compressor.errors import UserError

ALLOW = "COMPRESS_ALLOW_PLUGINS"
DATA = "data: {name: digits, size: 8, batch: 64, validation: 0.1}\n"
REST = "optimizer: {name: sgd, lr: 0.1}\nepochs: 1\nreport: {html: false}\n"
CONFIGS = {
    "model": ("model: {name: 'os:system', command: 'touch marker'}\n" + DATA + REST, "1:15", "os", "system"),
    "data": (TINY.splitlines()[0] + "\ndata: {name: 'zz_evil:make'}\n" + REST, "2:14", "zz_evil", "make"),
}
"""Configurations, with the place and the parts of the name that would be run."""

SCHEDULE = "version: 2\nconfig: evil.yaml\npolicies:\n  - lr_scheduler: {class: StepLR, step_size: 1}\n"


@pytest.fixture(autouse=True)
def evil(work: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Code that leaves a marker when it is imported."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (work / "zz_evil.py").write_text("from pathlib import Path\nPath('marker').touch()\n")
    (work / "evil.yaml").unlink(missing_ok=True)
    (work / "s.yaml").write_text(SCHEDULE)
    yield
    sys.modules.pop("zz_evil", None)


def ran() -> bool:
    return Path("marker").exists() or "zz_evil" in sys.modules


COMMANDS: dict[str, tuple[str, ...]] = {
    "train": ("train", "-c", "evil.yaml"),
    "train with a schedule": ("train", "-s", "s.yaml"),
    "train --smoke": ("train", "-c", "evil.yaml", "--smoke"),
    "train --resume": ("train", "-c", "evil.yaml", "--resume"),
    "validate": ("validate", "s.yaml"),
    "plan": ("plan", "s.yaml", "--json"),
}


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_configuration_that_names_code_is_refused_at_its_line(command: tuple[str, ...], kind: str) -> None:
    text, place, module, attribute = CONFIGS[kind]
    Path("evil.yaml").write_text(text)
    result = compress(*command)
    assert result.code == 2
    (line,) = result.err.splitlines()
    assert f"evil.yaml:{place}: {kind}.name: " in line
    assert f"import the module {module!r} and call its {attribute!r}" in line
    assert "--allow-plugins" in line
    assert ALLOW in line
    assert not ran()
    assert not Path("runs").exists()


def test_an_override_that_names_code_is_refused_too() -> None:
    result = compress("train", "-c", "tiny", "--set", "model={name: 'os:system', command: 'touch marker'}")
    assert (result.code, ran()) == (2, False)
    assert "'system'" in result.err


def test_a_refused_name_stands_beside_the_other_faults_of_the_files() -> None:
    Path("evil.yaml").write_text(CONFIGS["model"][0])
    Path("s.yaml").write_text(SCHEDULE.replace("StepLR", "StepLRR"))
    result = compress("validate", "s.yaml")
    assert (result.code, len(result.err.splitlines()), ran()) == (2, 2, False)


@pytest.mark.parametrize("value", ["", "0", "no"])
def test_only_1_in_the_environment_allows_it(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("evil.yaml").write_text(CONFIGS["model"][0])
    monkeypatch.setenv(ALLOW, value)
    assert (compress("validate", "s.yaml").code, ran()) == (2, False)


@pytest.mark.parametrize("how", ["flag", "environment"])
def test_control_where_it_is_allowed_the_code_runs(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("evil.yaml").write_text(CONFIGS["model"][0])
    if how == "environment":
        monkeypatch.setenv(ALLOW, "1")
    result = compress("validate", "s.yaml", *(["--allow-plugins"] if how == "flag" else []))
    assert (result.code, ran()) == (2, True)
    assert "should return a torch.nn.Module, got int" in result.err
    Path("marker").unlink()
    monkeypatch.delenv(ALLOW, raising=False)
    assert (compress("validate", "s.yaml").code, ran()) == (2, False)  # the flag ends with its command


# --- checkpoints ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The checkpoint of a run."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.yaml").write_text(TINY)
    succeed("train", "-c", folder / "tiny.yaml", "--set", "epochs=1", "--out", folder / "run")
    return saved(folder / "run" / "checkpoint.pt")


NAMES: dict[str, dict[str, Any]] = {
    "model": {"model": {"name": "os:system", "command": "touch marker"}},
    "data": {"data": {"name": "zz_evil:make"}},
}

READERS: dict[str, Callable[[], Any]] = {
    "eval": lambda: compress("eval", "evil.pt"),
    "report": lambda: compress("report", "evil.pt", "--json"),
    "thin": lambda: compress("thin", "evil.pt"),
    "eval of a folder": lambda: compress("eval", "."),
}


def write(trained: dict[str, Any], kind: str) -> None:
    config = {**trained["config"], **NAMES[kind]}
    for name in ("evil.pt", "checkpoint.pt"):
        torch.save({**trained, "config": config}, name)


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("command", READERS.values(), ids=READERS)
def test_a_checkpoint_that_names_code_is_refused(
    command: Callable[[], Any], kind: str, trained: dict[str, Any]
) -> None:
    write(trained, kind)
    result = command()
    assert (result.code, result.out, ran()) == (2, "", False)
    (line,) = result.err.splitlines()
    assert f"{kind}.name of its configuration: this would import the module" in line
    assert "--allow-plugins" in line
    assert not Path("thin.pt").exists()


@pytest.mark.parametrize("kind", NAMES)
def test_compressor_load_refuses_it_too(kind: str, trained: dict[str, Any]) -> None:
    write(trained, kind)
    with pytest.raises(UserError, match="or the argument allow_plugins=True of a function"):
        compressor.load("evil.pt")
    assert not ran()


NETWORK = """\
from torch import nn

def make(num_classes=10):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))
"""


def test_what_is_allowed_trains_and_is_read_again_with_the_flag_alone() -> None:
    Path("zz_evil.py").write_text(NETWORK)
    Path("own.yaml").write_text("model: {name: 'zz_evil:make'}\n" + DATA + REST)
    flag = "--allow-plugins"
    assert str(Path.cwd()) not in sys.path
    succeed("train", "-c", "own", "--out", "run", flag)
    assert succeed("eval", "run", flag).startswith("test loss")
    assert "total" in succeed("report", "run", flag)
    assert "nothing to remove" in succeed("thin", "run", flag)
    assert compressor.load("run", allow_plugins=True)[1].weight.shape == (10, 64)
    sys.modules.pop("zz_evil")
    for command in (("eval", "run"), ("train", "-c", "own", "--out", "run", "--resume")):
        assert (compress(*command).code, ran()) == (2, False)


def test_a_file_of_the_working_directory_does_not_stand_for_a_library(tmp_path: Path) -> None:
    for name in ("click", "pydantic", "torch", "yaml"):
        (tmp_path / f"{name}.py").write_text("open('marker', 'w')\n")
    command = [sys.executable, "-m", "compressor", "list", "pruners"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr, (tmp_path / "marker").exists()) == (0, "", False)
