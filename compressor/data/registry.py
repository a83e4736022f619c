"""The data sets by name. A new one is one new file here with a decorated builder; nothing else is edited."""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from compressor.config import DataConfig
from compressor.data.images import DataSet

Build = Callable[[DataConfig, Path, int], DataSet]


@dataclass(frozen=True)
class Builder:
    """A data set that can be named: `build(config, root, seed)` reads it."""

    summary: str
    build: Build


BUILDERS: dict[str, Builder] = {}


def dataset(name: str, summary: str) -> Callable[[Build], Build]:
    """Enters a builder under `name`; `summary` is its line in the catalogue."""

    def enter(build: Build) -> Build:
        if name in BUILDERS:
            raise TypeError(f"two data sets are called {name!r}: {BUILDERS[name].build} and {build}")
        BUILDERS[name] = Builder(summary, build)
        return build

    return enter


def builders() -> dict[str, Builder]:
    """Every builder, after importing every file of this package."""
    package = importlib.import_module("compressor.data")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"compressor.data.{module.name}")
    return dict(sorted(BUILDERS.items()))


def catalogue() -> dict[str, str]:
    """Name -> one line, for every data set that a config can name."""
    return {name: builder.summary for name, builder in builders().items()}
