"""docs/weights.md: its lists are those of the code, and its commands those of the command line."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from helpers import work  # noqa: F401

from compressor.cli import cli
from compressor.schedule import Faults, open_schedule
from compressor.training.weights.reading import WRAPPERS
from compressor.training.weights.unpickling import STAND_INS

PAGE = (Path(__file__).parents[1] / "docs" / "weights.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"```bash *(\w*)\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for _, block in BLOCKS for line in block.splitlines() if line.startswith("compress ")]


@pytest.mark.parametrize(("key", "names"), [("wrappers", WRAPPERS), ("classes", STAND_INS)])
def test_its_lists_are_those_of_the_code(key: str, names: tuple[str, ...]) -> None:
    shown = re.search(rf"<!-- {key} -->(.*?)<!-- /{key} -->", PAGE, re.DOTALL)
    assert shown
    assert tuple(re.findall(r"`([^`]+)`", shown[1])) == names


def test_it_has_commands_for_each_source() -> None:
    assert [name for name, _ in BLOCKS] == ["", "timm", "lightning", "", "distiller", "cifar10"]


@pytest.mark.parametrize("line", COMMANDS)
def test_its_commands_have_arguments_that_exist(line: str) -> None:
    _, name, *arguments = shlex.split(line)
    cli.commands[name].make_context(name, arguments).close()


def test_its_schedule_is_valid(tmp_path: Path) -> None:
    [text] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "halve.yaml").write_text(text)
    assert yaml.safe_load(text)["version"] == 2
    faults = Faults()
    open_schedule(str(tmp_path / "halve.yaml"), (), faults)
    assert faults.lines == []
