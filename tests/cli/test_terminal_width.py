"""What the commands print fits the terminal; a pipe and `--wide` get all columns."""

import io
import os
from pathlib import Path

import pytest
from helpers import TINY, compress, succeed

ROWS = """\
version: 2
pruners:
  half: {class: Pruner, criterion: l1, structure: Rows, rate: {sparsity: 0.5}, weights: fc1.weight}
policies:
  - {pruner: {instance_name: half}, starting_epoch: 0, ending_epoch: 1}
"""
PRUNED = ("train", "-s", "prune", "--set", "epochs=1", "--set", "schedule.policies.0.starting_epoch=0")
COMMANDS = {
    "report": ("report", "run", "--no-latency"),
    "thin": ("thin", "run", "--no-latency", "--out", "thin.pt"),
    "plan": ("plan", "prune"),
    "list": ("list",),
    "list of one kind": ("list", "gates"),
}


class Screen(io.StringIO):
    """A stream with a descriptor, as a terminal has one."""

    def fileno(self) -> int:
        return 1


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch in which half of the rows of fc1 become zero."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.yaml").write_text(TINY)
    (folder / "rows.yaml").write_text(ROWS)
    succeed(
        "train", "-s", folder / "rows.yaml", "-c", folder / "tiny.yaml", "--set", "epochs=1", "--out", folder / "run"
    )
    return folder / "run"


@pytest.fixture(autouse=True)
def _run(trained: Path, work: Path) -> None:
    (work / "run").symlink_to(trained)


def shown(*command: str) -> str:
    """The output of a command that may have written thin.pt before."""
    Path("thin.pt").unlink(missing_ok=True)
    return succeed(*command)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_lines_are_no_longer_than_the_terminal_is_wide(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    piped = shown(*command)
    assert max(map(len, piped.splitlines())) > 80
    for columns in ("80", "60"):
        monkeypatch.setenv("COLUMNS", columns)
        fitted = shown(*command)
        assert max(map(len, fitted.splitlines())) <= int(columns)
        assert shown(*command, "--wide") == piped
    for columns in ("0", "", "many", "-5"):
        monkeypatch.setenv("COLUMNS", columns)
        assert shown(*command) == piped


def test_the_width_is_that_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    piped = succeed(*COMMANDS["report"])
    monkeypatch.setattr(io, "StringIO", Screen)
    for columns, most in ((70, 70), (0, 80), (1000, 1000)):  # 0: it does not know its own width
        monkeypatch.setattr(os, "get_terminal_size", lambda _, columns=columns: os.terminal_size((columns, 24)))
        shown = succeed(*COMMANDS["report"])
        assert max(map(len, shown.splitlines())) <= most
        assert (shown == piped) == (columns == 1000)


def test_the_end_of_a_run_fits_and_its_log_has_all_columns(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = compress(*PRUNED, "--out", "next")
    table = result.out[result.out.index("\nname ") : result.out.index("\nrun folder")]
    assert max(map(len, table.splitlines())) <= 80
    assert "not shown here: " in table
    log = (work / "next" / "log.txt").read_text()
    assert "mean_abs" in log
    assert "not shown here: " not in log
