"""The shell's completion: names of schedules, configurations, models, devices and kinds, without torch."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import BashComplete
from helpers import environment

from compressor import models
from compressor.cli import cli
from compressor.cli.completion import model_names
from compressor.lookup import shipped_files


def completed(line: str) -> list[tuple[str, str]]:
    """Type and value of what completes the last word of `compress LINE`."""
    *words, begun = line.split(" ")
    found = BashComplete(cli, {}, "compress", "_COMPRESS_COMPLETE").get_completions(words, begun)
    return [(item.type, item.value) for item in found]


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("train -s pru", ["prune"]),  # in the working directory
        ("train --schedule lenet5_ag", ["lenet5_agp"]),  # shipped
        ("validate lenet5_ag", ["lenet5_agp"]),
        ("plan lenet5_ag", ["lenet5_agp"]),
        ("train --config lenet5_d", ["lenet5_digits"]),
        ("validate prune -c tin", ["tiny"]),
        ("plan prune -c own", ["own"]),  # in configs/
        ("list sch", ["schedules"]),
        ("list con", ["configs"]),
        ("new --model lenet", ["lenet_5"]),
        ("train --device ", ["auto", "cpu", "cuda"]),
        ("ev", ["eval"]),
        ("eval --min", ["--min-top1"]),
    ],
)
def test_names_are_completed(work: Path, line: str, values: list[str]) -> None:
    (work / "configs").mkdir()
    (work / "configs" / "own.yaml").touch()
    assert completed(line) == [("plain", value) for value in values]


@pytest.mark.parametrize("line", ["train -s ./pru", "train -c configs/", "train --init ru", "eval ru", "thin ru"])
def test_everything_else_is_a_path(line: str) -> None:
    assert completed(line) == [("file", line.split()[-1])]


def test_claims_are_not_offered() -> None:
    names = {value for _, value in completed("train -s ")}
    assert names >= set(shipped_files("schedules"))
    assert not [name for name in names if name.endswith("expect")]


def test_a_folder_that_cannot_be_read_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(kind: str) -> set[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("compressor.lookup.names", refuse)
    assert completed("train -s pru") == [("file", "pru")]


def test_the_names_of_models_are_those_that_can_be_built() -> None:
    assert model_names() == set(models.catalogue())


def test_a_shell_is_answered_without_torch(work: Path) -> None:
    ask = {"_COMPRESS_COMPLETE": "bash_complete", "COMP_WORDS": "compress train -s pru", "COMP_CWORD": "3"}
    code = "import sys; sys.argv = ['compress']; from compressor.__main__ import main; main()"
    command = [sys.executable, "-X", "importtime", "-c", code]
    done = subprocess.run(
        command, cwd=work, env={**environment(), **ask}, capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stdout) == (0, "plain,prune\n")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "compressor.cli.completion" in imported
    assert not imported & {"torch", "torchvision", "numpy", "pydantic", "yaml", "rich"}
