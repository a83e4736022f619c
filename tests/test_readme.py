"""README.md is short, true, and one click away from what a newcomer looks for."""

import re
from pathlib import Path

import pytest
import yaml

from compressor.cli import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXT = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
LINKS = re.findall(r"\]\(([^)#]+)", README)


def test_it_is_read_in_a_few_minutes() -> None:
    assert len(README.split()) < 1400


def test_the_schedule_it_shows_is_the_shipped_one() -> None:
    shown = re.search(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert shown
    shipped = (ROOT / "schedules" / "lenet5_agp.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(shown[1]) == yaml.safe_load(shipped)


def test_it_names_every_command() -> None:
    assert re.findall(r"^\| `compress (\w+)", README, re.MULTILINE) == list(cli.commands)


@pytest.mark.parametrize(
    "page", ["prune.md", "own_loop.md", "export.md", "weights.md", "migration.md", "extending.md", "quickstart.md"]
)
def test_a_newcomer_is_one_click_away(page: str) -> None:
    assert f"docs/{page}" in LINKS


def test_its_links_lead_to_files() -> None:
    assert [link for link in LINKS if not link.startswith("http") and not (ROOT / link).is_file()] == []
