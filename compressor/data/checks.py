"""The conditions of every data set, whoever built it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from compressor.data.images import DataSet, Images
from compressor.errors import UserError


def check(data: DataSet) -> None:
    """Raise `UserError` unless both splits have images, labels are 0..K-1, and every class has training images."""
    channels = data.shape[0]
    if channels not in (1, 3):
        raise UserError(f"{data.name}: images must have 1 or 3 channels, these have {channels}")
    for split, images in (("train", data.train), ("test", data.test)):
        _check_labels(f"{data.name}, {split}", images, data.classes)
    counts = torch.bincount(data.train.labels, minlength=len(data.classes))
    missing = [data.classes[k] for k in torch.nonzero(counts == 0).flatten().tolist()]
    if missing:
        raise UserError(
            f"{data.name}: {listed('class', missing)} without training images "
            f"({len(data.classes)} classes; labels must be 0..{len(data.classes) - 1} without gaps)"
        )


def check_normalization(data: DataSet) -> None:
    """Raise `UserError` unless mean and std fit pixels in [0, 1]."""
    channels = data.shape[0]
    for field, values in (("mean", data.mean), ("std", data.std)):
        if len(values) != channels:
            raise UserError(f"{data.name}: {field} has {len(values)} values, images have {channels} channels")
    if not all(0 <= value <= 1 for value in data.mean):
        raise UserError(f"data.mean: expected values of pixels in [0, 1] (not 0..255), got {list(data.mean)}")
    if not all(value > 0 for value in data.std):
        raise UserError(
            f"data.std: expected values above 0, got {list(data.std)} "
            "(0 is what a channel of equal pixels has: set data.std)"
        )


def listed(noun: str, names: Sequence[str], *, show: int = 8) -> str:
    """Return `class 'a'`, or `classes 'a', 'b', ... (20 in all)`."""
    plural = noun if len(names) == 1 else noun + ("es" if noun.endswith("s") else "s")
    more = f", ... ({len(names)} in all)" if len(names) > show else ""
    return f"{plural} {', '.join(repr(name) for name in names[:show])}{more}"


def _check_labels(what: str, images: Images, classes: Sequence[str]) -> None:
    labels: object = images.labels
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.ndim != 1:
        got = f"{labels.dtype} {list(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        raise UserError(f"{what}: labels must be an int64 tensor [N], got {got}")
    if len(images) == 0:
        raise UserError(f"{what}: there are no images")
    if len(labels) != len(images):
        raise UserError(f"{what}: {len(images)} images have {len(labels)} labels")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(classes):
        index = int(((labels < 0) | (labels >= len(classes))).nonzero()[0])
        raise UserError(
            f"{what}: labels must be 0..{len(classes) - 1} ({len(classes)} classes), "
            f"image {index} has {int(labels[index])}"
        )
