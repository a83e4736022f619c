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
    classes: int | None = None
    shape: tuple[int, int, int] | None = None
    images: int | None = None


BUILDERS: dict[str, Builder] = {}


def dataset(
    name: str,
    summary: str,
    classes: int | None = None,
    shape: tuple[int, int, int] | None = None,
    images: int | None = None,
) -> Callable[[Build], Build]:
    """Register a builder under `name`; `summary` is its line in the catalogue.

    `classes` is the number of classes, `shape` (C, H, W) that of the images, `images` the number of training images,
    where they are known before the files are read.
    """

    def enter(build: Build) -> Build:
        if name in BUILDERS:
            raise TypeError(f"two data sets are called {name!r}: {BUILDERS[name].build} and {build}")
        BUILDERS[name] = Builder(summary, build, classes, shape, images)
        return build

    return enter


def builders() -> dict[str, Builder]:
    """Return every builder, after importing every file of this package."""
    package = importlib.import_module("compressor.data")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"compressor.data.{module.name}")
    return dict(sorted(BUILDERS.items()))


def class_count(name: str) -> int | None:
    """Return the number of classes of a named set; None where it is only known from the files."""
    builder = builders().get(name)
    return builder.classes if builder else None


def training_images(name: str) -> int | None:
    """Return the number of training images of a named set; None where it is only known from the files."""
    builder = builders().get(name)
    return builder.images if builder else None


def image_shape(config: DataConfig) -> tuple[int, int, int] | None:
    """Return (C, H, W) of the images of a configuration; None where it is only known from the files."""
    builder = builders().get(config.name)
    channels, height, width = builder.shape if builder and builder.shape else (3, None, None)
    if config.size is not None:
        height = width = config.size
    known = builder is not None and (builder.shape is not None or config.size is not None)
    return (config.channels or channels, height, width) if known and height and width else None


def catalogue() -> dict[str, str]:
    """Return name -> one line, for every data set that a config can name."""
    return {name: builder.summary for name, builder in builders().items()}
