"""The README's generated parts are what the code says now, and its examples work."""

import re
from pathlib import Path

import yaml

from compressor.cli.reference import fill

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_commands_and_methods_are_those_of_the_code() -> None:
    assert README.count("<!-- commands -->") == README.count("<!-- methods -->") == 1
    assert fill(README) == README, "run `make docs`"


def test_the_check_can_fail() -> None:
    broken = README.replace("AutomatedGradualPruner` |", "AutomatedGradulPruner` |")
    assert broken != README
    assert fill(broken) != broken


def test_the_schedule_it_shows_is_the_shipped_one() -> None:
    shown = re.search(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert shown
    shipped = (ROOT / "schedules" / "lenet5_agp.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(shown[1]) == yaml.safe_load(shipped)


def test_no_placeholder_is_left() -> None:
    assert "RESULT_" not in README
