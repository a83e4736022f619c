"""docs/thinning.md: the groups that it shows are those of the command, in text and in the picture."""

import re
from pathlib import Path

import pytest
from helpers import succeed, work  # noqa: F401

DOCS = Path(__file__).parents[1] / "docs"
SHOWN = re.compile(r"```\n\$ compress (thin --explain .*)\n([^`]*)```")


def test_the_groups_are_what_the_command_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    [(command, output)] = SHOWN.findall((DOCS / "thinning.md").read_text(encoding="utf-8"))
    monkeypatch.setenv("COLUMNS", "80")
    said = "write its output again into docs/thinning.md, and `--svg docs/thinning_groups.svg`"
    assert succeed(*command.split(), "--svg", "new.svg") == f"{output}written: new.svg\n", said
    assert Path("new.svg").read_text() == (DOCS / "thinning_groups.svg").read_text(), said
