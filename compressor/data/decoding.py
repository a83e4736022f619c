"""Image files to tensors; the same code whether the set is then held in memory or stays on disk."""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from compressor.errors import UserError

GREY = ("1", "L", "LA")

MOST_PIXELS = 64_000_000
"""Images with more pixels are refused before they are decoded (192 MB as RGB); Pillow itself only warns above 89
megapixels and refuses 179."""


def from_pil(image: Image.Image, size: int | None, channels: int | None) -> Tensor:
    """Return uint8 [C, H, W]: the centred square resized to size x size (bilinear, antialiased), without transparency.

    Raises ValueError for more than `MOST_PIXELS`, and for pixels that do not have 8 bits, which a conversion would clip
    without a message.
    """
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise ValueError(
            f"it has {width} x {height} = {width * height:,} pixels, at most {MOST_PIXELS:,} are read: make it smaller"
        )
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"its pixels have more than 8 bits (mode {image.mode}); convert it to 8 bits")
    if channels is None:
        channels = 1 if image.mode in GREY else 3
    image = image.convert("L" if channels == 1 else "RGB")
    if size is not None and image.size != (size, size):
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        square = (left, top, left + side, top + side)
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=square)
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if channels == 1 else pixels.permute(2, 0, 1)


def read(path: Path, size: int | None, channels: int) -> Tensor:
    """Return uint8 [C, H, W] of an image file. Raises UserError with the file's name."""
    try:
        with warnings.catch_warnings(category=Image.DecompressionBombWarning, action="ignore"):  # we refuse it
            opened = Image.open(path)
        with opened as image:
            return from_pil(image, size, channels)
    except Image.DecompressionBombError as error:
        raise UserError(
            f"{path}: it has more than {MOST_PIXELS:,} pixels, the most that are read: make it smaller"
        ) from error
    except Exception as error:  # Pillow's readers raise almost anything on a broken file
        raise UserError(f"{path}: cannot be read as an image: {type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class Files:
    """A `Source` of image files; `paths` are bytes relative to `folder`, in one array that worker processes share."""

    folder: Path
    paths: NDArray[np.bytes_]
    size: int | None
    channels: int
    shape: tuple[int, int, int]

    def path(self, index: int) -> Path:
        """Return the file of an image."""
        return self.folder / os.fsdecode(bytes(self.paths[index]))

    def whole(self, index: int) -> Tensor:
        """Return uint8 [C, H, W] in the file's own size. Raises UserError for a file that cannot be read."""
        return read(self.path(index), None, self.channels)

    def image(self, index: int) -> Tensor:
        """Return uint8 [C, H, W].

        Raises UserError for a file that cannot be read or has another size than the first.
        """
        pixels = read(self.path(index), self.size, self.channels)
        if pixels.shape != self.shape:
            raise UserError(
                f"images have different sizes: {self.path(0)} is {_size(self.shape)}, {self.path(index)} is "
                f"{_size(pixels.shape)} (width x height); set data.size to resize them"
            )
        return pixels


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[-1]}x{shape[-2]}"
