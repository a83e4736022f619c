"""Print the lowest version of each dependency that pyproject.toml allows, as constraints of pip: `make test-oldest`."""

import re
import sys
import tomllib
from pathlib import Path


def constraints(text: str) -> list[str]:
    """Return `name==X.*` for each dependency `name>=X` of a pyproject.toml."""
    found = [re.match(r"([\w-]+)>=([\d.]+)", line) for line in tomllib.loads(text)["project"]["dependencies"]]
    return [f"{match[1]}=={match[2]}.*" for match in found if match]


if __name__ == "__main__":
    sys.stdout.write("\n".join(constraints(Path("pyproject.toml").read_text(encoding="utf-8"))) + "\n")
