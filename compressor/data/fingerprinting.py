"""Which images a data set has: its fingerprint, kept in checkpoints and compared before they are used again.

A fingerprint is plain data: `classes` in order, `counts` of images by class for each split, `content`, a SHA-256 for
each split over all labels and over the images as they are stored (before they are resized, since other machines round
in other ways). Past `WHOLE` bytes (or `MOST_FILES` files) a fixed sample stands for all. What is hashed of a set:

- in memory (MNIST, CIFAR's batches, digits): the tensors of the files;
- folders of image files: all names and sizes, and the bytes of the files;
- of a factory of the user: the images as it returns them. They must be the same each time: a factory that draws random
  images without the seed it is offered, or decodes them with another version of a library, has another fingerprint.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compressor.data.images import DataSet, Images
from compressor.data.streamed import Streamed
from compressor.errors import UserError

WHOLE = 2**26
"""The largest number of bytes of a split's images that are all hashed."""

MOST_FILES = 10_000
"""The largest number of image files of a split that are all read."""

SAMPLED = 256
"""The number of images of a larger split that are hashed, at equal distances from the first to the last; of each image
file the first `WHOLE // SAMPLED` bytes."""

FED = 32
"""The number of images that are hashed where each must be decoded first."""

Fingerprint = dict[str, Any]


def fingerprint(data: DataSet) -> Fingerprint:
    """Return the classes, the counts and the content of both splits, as plain data."""
    splits = {"train": data.train, "test": data.test}
    content = data.content or {split: of_images(images) for split, images in splits.items()}
    return {
        "classes": [str(name) for name in data.classes],
        "counts": {
            split: torch.bincount(images.labels, minlength=len(data.classes)).tolist()
            for split, images in splits.items()
        },
        "content": dict(content),
    }


def of_tensors(images: Tensor, labels: Tensor) -> str:
    """Return the digest of a split that is held as `images` [N, C, H, W] and `labels` [N]."""
    whole = images.numel() * images.element_size() <= WHOLE
    hashed = images if whole else images[_sample(len(images), SAMPLED)]
    return _digest(f"{images.dtype} {list(images.shape)}", labels, [hashed.contiguous().numpy().data])


def of_files(folder: Path, files: Sequence[str], sizes: Sequence[int], labels: Tensor) -> str:
    """Return the digest of image files, by their names relative to `folder`, sizes and bytes.

    Raises UserError for a file that cannot be read.
    """
    whole = sum(sizes) <= WHOLE and len(files) <= MOST_FILES
    hashed, most = (range(len(files)), WHOLE) if whole else (_sample(len(files), SAMPLED).tolist(), WHOLE // SAMPLED)
    names = b"".join(b"%s\0%d\0" % (os.fsencode(file), size) for file, size in zip(files, sizes, strict=True))
    return _digest("files", labels, [names], (_bytes(folder / files[index], most) for index in hashed))


def of_images(images: Images) -> str:
    """Return the digest of a split from a sample of it, as it is fed."""
    if isinstance(images, Streamed):
        images = replace(images, workers=0)
    batches = images.batches(_sample(len(images), FED), FED, torch.device("cpu"))
    return _digest("images", images.labels, (batch.contiguous().numpy().data for _, batch, _ in batches))


def differences(saved: Mapping[str, Any], here: Fingerprint) -> list[str]:
    """Return how the data `here` differ from those of a `saved` fingerprint, in words; nothing where they do not.

    A saved one may lack counts and content (checkpoints of earlier versions do).
    """
    if found := _other_classes(saved["classes"], here["classes"]):
        return [found]
    return [words for split in here["content"] if (words := _other_images(saved, here, split))]


def _other_classes(before: Sequence[str], now: Sequence[str]) -> str:
    if list(before) == list(now):
        return ""
    gone, new = ([repr(name) for name in ours if name not in theirs] for ours, theirs in ((before, now), (now, before)))
    if gone or new:
        changes = [f"{_first(names)} {what}" for names, what in ((gone, "gone"), (new, "new")) if names]
        return f"the classes have other names: {', '.join(changes)}"
    pairs = enumerate(zip(before, now, strict=False))
    return f"the classes are in another order: {_first([f'{n} was {a!r}, is {b!r}' for n, (a, b) in pairs if a != b])}"


def _other_images(saved: Mapping[str, Any], here: Fingerprint, split: str) -> str:
    before, now = (data.get("counts", {}).get(split) for data in (saved, here))
    if before is not None and before != now:
        pairs = zip(here["classes"], before, now, strict=True)
        changed = [f"{name!r} had {a:,}, has {b:,}" for name, a, b in pairs if a != b]
        return f"the number of {split} images by class: {_first(changed)}"
    digest = saved.get("content", {}).get(split)
    if digest is not None and digest != here["content"][split]:
        return f"the {split} images: as many of each class, but other ones, or in another order"
    return ""


def _first(items: Sequence[str], show: int = 3) -> str:
    return ", ".join(items[:show]) + (f", ... ({len(items)} in all)" if len(items) > show else "")


def _sample(count: int, most: int) -> Tensor:
    """Return the indices of at most `most` of `count` images, the same on every machine."""
    taken = min(count, most)
    return torch.arange(taken) * (count - 1) // max(taken - 1, 1)


def _digest(what: str, labels: Tensor, *parts: Iterable[Any]) -> str:
    digest = hashlib.sha256(f"{what}\0{len(labels)}\0".encode())
    digest.update(labels.contiguous().numpy().data)
    for part in parts:
        for piece in part:
            digest.update(piece)
    return digest.hexdigest()


def _bytes(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
