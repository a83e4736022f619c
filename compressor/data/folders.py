"""Data sets that are folders of image files: <root>/train/<class>/* and <root>/test/<class>/*."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from compressor.config import DataConfig
from compressor.data.checks import listed
from compressor.data.decoding import Files, read
from compressor.data.images import DataSet
from compressor.data.memory import fits, in_memory
from compressor.data.pixels import per_channel
from compressor.data.streamed import Streamed
from compressor.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Listing:
    """The content of a split's folder: files relative to it in the order of their classes and names."""

    folder: Path
    classes: tuple[str, ...]
    files: tuple[str, ...]
    labels: Tensor


def class_names(folder: Path) -> list[str]:
    """Return the folders in it, sorted; none where it does not exist or has only files (ImageNet's unlabelled test)."""
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def scan(folder: Path) -> Listing:
    """Return every image file of every class, without hidden ones and other types.

    Raises UserError for an empty class.
    """
    files: list[str] = []
    labels: list[int] = []
    classes = class_names(folder)
    empty = []
    for label, name in enumerate(classes):
        found = sorted(
            os.path.relpath(os.path.join(where, file), folder)
            for where, _, names in os.walk(folder / name, followlinks=True)
            for file in names
            if file.lower().endswith(EXTENSIONS) and not file.startswith(".")
        )
        if not found:
            empty.append(name)
        files += found
        labels += [label] * len(found)
    if empty:
        raise UserError(
            f"{folder}: no images in the folder of {listed('class', empty)} (looked for {', '.join(EXTENSIONS)})"
        )
    return Listing(folder, tuple(classes), tuple(files), torch.tensor(labels, dtype=torch.int64))


def from_folders(
    name: str,
    train: Path,
    test: Path,
    config: DataConfig,
    seed: int,
    *,
    mean: Sequence[float],
    std: Sequence[float],
) -> DataSet:
    """Return folders, decoded into memory where they fit, else read while training; grey only where channels is 1.

    Raises UserError for classes that differ, unreadable files (at once in memory, when they are read on disk), and
    images of different sizes where the config gives no size.
    """
    listings = [scan(train), scan(test)]
    _check_same_classes(*listings)
    channels = config.channels or 3
    height, width = read(train / listings[0].files[0], config.size, channels).shape[1:]
    shape = (channels, height, width)
    count = sum(len(listing.files) for listing in listings)
    keep = fits(count, shape)
    if not keep and config.size is None:
        raise UserError(
            f"{name}: data.size is required: {count} images are too many to check that they have one size "
            f"({listings[0].files[0]} is {width}x{height})"
        )
    splits = [_streamed(listing, config, channels, shape, seed) for listing in listings]
    classes = listings[0].classes
    if keep:  # decoding has set the size and the channels already
        pairs = [(split.decoded(), split.labels) for split in splits]
        return in_memory(name, pairs[0], pairs[1], classes, config, mean=mean, std=std)
    return DataSet(
        name, splits[0], splits[1], classes, shape, mean=per_channel(mean, channels), std=per_channel(std, channels)
    )


def _streamed(listing: Listing, config: DataConfig, channels: int, shape: tuple[int, int, int], seed: int) -> Streamed:
    paths = np.array([os.fsencode(file) for file in listing.files])
    return Streamed(Files(listing.folder, paths, config.size, channels, shape), listing.labels, config.workers, seed)


def _check_same_classes(train: Listing, test: Listing) -> None:
    for here, there in ((train, test), (test, train)):
        if extra := sorted(set(here.classes) - set(there.classes)):
            raise UserError(
                f"{train.folder} and {test.folder} must have the same classes: "
                f"only {here.folder} has {listed('class', extra)}"
            )
