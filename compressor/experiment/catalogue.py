"""The lists of `compress list`, by kind, with one line for each entry."""

from pathlib import Path

from compressor import data, lookup, models
from compressor.schedule import components


def catalogue(kind: str) -> dict[str, str]:
    """Return name -> one line, for one of the kinds that `compress list` knows."""
    if kind == "models":
        return models.catalogue()
    if kind == "datasets":
        return data.catalogue()
    if kind in ("schedules", "configs"):
        return {name: _headline(path) for name, path in lookup.shipped_files(kind).items()}
    known = components(kind.replace("-", "_"))
    return {name: known[name].summary() for name in sorted(known)}


def _headline(path: Path) -> str:
    """Return the first comment line that is a sentence."""
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.lstrip("# ")
        if line.startswith("#") and text and not text.startswith("yaml-language-server"):
            return text
    return ""
