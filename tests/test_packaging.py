"""What pyproject.toml says of the package."""

import tomllib
from pathlib import Path

from oldest import constraints

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def test_every_dependency_has_a_lowest_version_that_can_be_tested() -> None:
    text = PYPROJECT.read_text(encoding="utf-8")
    lowest = constraints(text)
    assert len(lowest) == len(tomllib.loads(text)["project"]["dependencies"])
    assert {"torch==2.8.*", "torchvision==0.23.*", "numpy==1.26.*"} <= set(lowest)
    assert constraints('[project]\ndependencies = ["a-b>=1.6,<2", "c"]') == ["a-b==1.6.*"]
