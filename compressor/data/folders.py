"""Data sets that are folders of image files: <root>/train/<class>/* and <root>/test/<class>/*, or <root>/<class>/*.

A file counts once in a split, however many names it has there: symbolic links, links to folders (also to one above) and
hard links are other names of the same file, and copies of one image must not be on both sides of the validation split.
"""

import hashlib
import os
import stat
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from compressor.config import DataConfig
from compressor.data.checks import listed
from compressor.data.decoding import Files, read
from compressor.data.fingerprinting import of_files
from compressor.data.images import DataSet
from compressor.data.memory import fits, in_memory
from compressor.data.pixels import per_channel
from compressor.data.streamed import Streamed
from compressor.data.transforms import crops_stored
from compressor.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

Identity = int
"""Device and inode of a file as one number, the same for all of its names; a tuple takes three times the memory."""


@dataclass(frozen=True)
class Listing:
    """The content of a split's folder: files relative to it in the order of their classes and names.

    `sizes` are in bytes; `names` is one name of each file, by identity; `notes` say what was left out.
    """

    folder: Path
    classes: tuple[str, ...]
    files: tuple[str, ...]
    labels: Tensor
    sizes: tuple[int, ...]
    names: Mapping[Identity, str]
    notes: tuple[str, ...]


def class_names(folder: Path) -> list[str]:
    """Return the folders in it, sorted; none where it does not exist or has only files (ImageNet's unlabelled test)."""
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in os.scandir(folder) if _is_folder(entry) and not entry.name.startswith("."))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether it is a folder or a link to one; a link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def scan(folder: Path) -> Listing:
    """Return every image file of every class once, without hidden ones and other types.

    What has the name of an image but is no file (a pipe, a socket, a device) is left out, never opened, and noted.
    Raises UserError for an empty class, a link to nothing, a folder that cannot be read, and a file in two classes.
    """
    files: list[tuple[str, int]] = []
    labels: list[int] = []
    names: dict[Identity, str] = {}
    classes = class_names(folder)
    empty: list[str] = []
    others: list[str] = []
    again: list[str] = []
    for label, name in enumerate(classes):
        found = []
        for file, status in _named_as_images(folder, name, again):
            if not stat.S_ISREG(status.st_mode):
                others.append(file)
                continue
            first = names.setdefault(_identity(status), file)
            if first == file:
                found.append((file, status.st_size))
            elif Path(first).parts[0] == name:
                again.append(file)
            else:
                raise UserError(
                    f"{folder / file} is the same file as {folder / first}: an image has one class; remove one of the"
                    f" two names, or the link to a folder that leads from one class into another"
                )
        if not found:
            empty.append(name)
        files += sorted(found)
        labels += [label] * len(found)
    if empty:
        raise UserError(
            f"{folder}: no images in the folder of {listed('class', empty)} (looked for {', '.join(EXTENSIONS)})"
        )
    left_out = (
        ("other names of what is counted already", again),
        ("neither files nor folders", others),
    )
    return Listing(
        folder,
        tuple(classes),
        tuple(file for file, _ in files),
        torch.tensor(labels, dtype=torch.int64),
        tuple(size for _, size in files),
        names,
        tuple(
            f"warning: {folder}: left out, {what}: {listed('name', paths).partition(' ')[2]}"
            for what, paths in left_out
            if paths
        ),
    )


def held_out(listing: Listing) -> tuple[Listing, Listing]:
    """Return training and test images of a folder that has no test images: of each class one in five is for the test.

    They are chosen by the SHA-256 of their names, so that most images stay in their split when others are added. Raises
    `UserError` for a class of one image.
    """
    by_class: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(listing.labels.tolist()):
        by_class[label].append(index)
    if single := [listing.classes[label] for label, indices in by_class.items() if len(indices) < 2]:
        raise UserError(
            f"{listing.folder}: only one image of {listed('class', single)}: it has no test folder beside it, so that"
            " one image of each class is held out for the test; at least two are needed"
        )
    test = {
        index
        for indices in by_class.values()
        for index in sorted(indices, key=lambda i: _digest(listing.files[i]))[: max(round(len(indices) / 5), 1)]
    }
    note = (
        f"{listing.folder} has no test images: {len(test):,} of its {len(listing.files):,} are held out for the test,"
        " one in five of each class, chosen by their names"
    )
    rest = [index for index in range(len(listing.files)) if index not in test]
    return _part(listing, rest, (*listing.notes, note)), _part(listing, sorted(test), ())


def _digest(file: str) -> bytes:
    return hashlib.sha256(os.fsencode(file)).digest()


def _part(listing: Listing, indices: Sequence[int], notes: tuple[str, ...]) -> Listing:
    files = tuple(listing.files[index] for index in indices)
    here = set(files)
    return replace(
        listing,
        files=files,
        labels=listing.labels[list(indices)],
        sizes=tuple(listing.sizes[index] for index in indices),
        names={identity: name for identity, name in listing.names.items() if name in here},
        notes=notes,
    )


def _named_as_images(folder: Path, name: str, again: list[str]) -> Iterator[tuple[str, os.stat_result]]:
    """Yield path and status of everything in the folder of a class with an image's name; every folder is entered once.

    Paths are relative to `folder`. Those of links to a folder that was entered already are put into `again`.
    Breadth first: of several names of a file the one nearest to its class counts.
    """
    entered: set[Identity] = set()
    above = len(os.path.join(folder, ""))
    waiting = deque([os.path.join(folder, name)])
    while waiting:
        where = waiting.popleft()
        status = _status(where)
        if _identity(status) in entered:
            again.append(where[above:])
            continue
        entered.add(_identity(status))
        try:
            entries = sorted(os.scandir(where), key=lambda entry: entry.name)
        except OSError as error:
            raise UserError(f"{where}: the folder cannot be read: {error.strerror}") from error
        for entry in entries:
            if _is_folder(entry):
                waiting.append(entry.path)
            elif entry.name.lower().endswith(EXTENSIONS) and not entry.name.startswith("."):
                yield entry.path[above:], _status(entry.path)


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev << 64 | status.st_ino


def _status(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        what = "a link to nothing" if os.path.islink(path) else "it cannot be read"
        raise UserError(f"{path}: {what}: {error.strerror}; remove it, or restore the file") from error


def from_folders(
    name: str,
    train: Listing,
    test: Listing,
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
    listings = [train, test]
    check_same_classes(*listings)
    notes = [note for listing in listings for note in listing.notes]
    if shared := listings[0].names.keys() & listings[1].names.keys():
        example = test.folder / listings[1].names[min(shared)]
        notes.append(f"warning: {len(shared):,} of the test images are training images, too, as {example} is")
    channels = config.channels or 3
    height, width = read(train.folder / train.files[0], config.size, channels).shape[1:]
    shape = (channels, height, width)
    count = sum(len(listing.files) for listing in listings)
    keep = fits(count, shape) and not crops_stored(config)
    if not keep and config.size is None:
        raise UserError(
            f"{name}: data.size is required: {count} images are too many to check that they have one size "
            f"({listings[0].files[0]} is {width}x{height})"
        )
    content = {
        split: of_files(listing.folder, listing.files, listing.sizes, listing.labels)
        for split, listing in zip(("train", "test"), listings, strict=True)
    }
    splits = [_streamed(listing, config, channels, shape, seed) for listing in listings]
    classes = listings[0].classes
    if keep:  # decoding has set the size and the channels already
        pairs = [(split.decoded(), split.labels) for split in splits]
        made = in_memory(name, pairs[0], pairs[1], classes, config, mean=mean, std=std, content=content)
    else:
        means, stds = per_channel(mean, channels), per_channel(std, channels)
        made = DataSet(name, splits[0], splits[1], classes, shape, mean=means, std=stds, content=content)
    return replace(made, notes=tuple(notes))


def _streamed(listing: Listing, config: DataConfig, channels: int, shape: tuple[int, int, int], seed: int) -> Streamed:
    paths = np.array([os.fsencode(file) for file in listing.files])
    return Streamed(Files(listing.folder, paths, config.size, channels, shape), listing.labels, config.workers, seed)


def check_same_classes(train: Listing, test: Listing) -> None:
    """Raise `UserError` unless both splits have the same classes."""
    for here, there in ((train, test), (test, train)):
        if extra := sorted(set(here.classes) - set(there.classes)):
            raise UserError(
                f"{train.folder} and {test.folder} must have the same classes: "
                f"only {here.folder} has {listed('class', extra)}"
            )
