"""The validation split."""

from collections.abc import Sized

import numpy as np
import torch
from torch import Tensor

from compressor.data.draws import SPLIT, draw
from compressor.errors import UserError


def split(
    labels_or_count: Sized | int, validation: float, seed: int, images: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return (train, validation) indices, int64, sorted, disjoint, which depend on the four numbers alone.

    round(count * validation) images are used for validation (halves are rounded to the even number); 0: none. With
    `images` only this many are used for both parts together. Raises UserError where a fraction above 0 leaves a part
    empty, or where there are fewer images.
    """
    every = labels_or_count if isinstance(labels_or_count, int) else len(labels_or_count)
    trained, held = sizes(every, validation, images)
    count = trained + held
    # The images with the smallest draws: exact in number and independent of any library's shuffle.
    ranked = np.argsort(draw(torch.arange(every), SPLIT, seed), kind="stable")[:count]
    return torch.from_numpy(np.sort(ranked[held:])), torch.from_numpy(np.sort(ranked[:held]))


def sizes(every: int, validation: float, images: int | None = None) -> tuple[int, int]:
    """Return the numbers of images for training and validation, of `every` images. Raises `UserError` as `split`."""
    if images is not None and images > every:
        raise UserError(f"data.images: there are {every} training images, fewer than {images}")
    count = every if images is None else images
    held = round(count * validation)
    if validation > 0 and not 0 < held < count:
        empty = "validation" if held == 0 else "training"
        raise UserError(
            f"data.validation: {validation} of {count} images leaves no image for {empty}; expected 0 (no validation) "
            f"or a fraction that leaves at least one on both sides"
        )
    return count - held, held
