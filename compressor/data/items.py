"""The items of a user's map-style dataset, checked: (image, label, ...)."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from compressor.data.decoding import from_pil
from compressor.data.pixels import convert, planes
from compressor.errors import CompressError, UserError

PROBED = 4
"""The number of first items that are read twice, to find random transforms."""


@dataclass(frozen=True)
class Items:
    """A `Source` of a map-style dataset's items.

    An image is a PIL image, or a tensor [H, W] or [C, H, W] (C 1 or 3): uint8, or float in [0, 1], which is rounded to
    255 steps. A label is an int. The same index always gives the same item: random augmentation is done by
    `data.augment`, whose draws survive resuming.
    """

    name: str
    dataset: Any
    size: int | None
    channels: int | None

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Return C, H, W of the first image; the first few are read twice, to find items that differ each time."""
        if len(self.dataset) == 0:
            raise UserError(f"{self.name}: there are no images")
        for index in range(min(PROBED, len(self.dataset))):
            if not torch.equal(self._pixels(self._item(index)[0], index), self._pixels(self._item(index)[0], index)):
                raise UserError(
                    f"{self.name}: item {index} differs each time it is read; remove the random transforms from the "
                    "dataset and set data.augment instead"
                )
        channels, height, width = self._pixels(self._item(0)[0], 0).shape
        return channels, height, width

    def image(self, index: int) -> Tensor:
        """Return uint8 [C, H, W]. Raises UserError with the item's number."""
        return self._same_shape(self._pixels(self._item(index)[0], index), index)

    def whole(self, index: int) -> Tensor:
        """Return the image in its own size, uint8 [C, H, W]. Raises UserError with the item's number."""
        return replace(self, size=None)._pixels(self._item(index)[0], index)

    def pair(self, index: int) -> tuple[Tensor, int]:
        """Return (image, label) of one read. Raises UserError with the item's number."""
        item = self._item(index)
        return self._same_shape(self._pixels(item[0], index), index), self.label(item[1], index)

    def label(self, value: Any, index: int) -> int:
        """Return a label as int. Raises UserError for anything that is not an integer."""
        if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # 0-dimensional tensors and numpy's integers
            value = value.item()
        if not isinstance(value, int) or isinstance(value, bool):
            raise UserError(
                f"{self.name}: the label of item {index} must be an int, got {type(value).__name__} {value!r}"
            )
        return value

    def _item(self, index: int) -> Any:
        try:
            item = self.dataset[index]
        except CompressError:
            raise
        except (Exception, SystemExit) as error:
            raise UserError(f"{self.name}: reading item {index} failed: {type(error).__name__}: {error}") from error
        if not isinstance(item, (tuple, list)) or len(item) < 2:
            raise UserError(f"{self.name}: item {index} must be (image, label), got {type(item).__name__}")
        return item

    def _pixels(self, image: Any, index: int) -> Tensor:
        if isinstance(image, Image.Image):
            try:
                return from_pil(image, self.size, self.channels)
            except (OSError, ValueError) as error:
                raise UserError(f"{self.name}: item {index} cannot be read as an image: {error}") from error
        if not isinstance(image, Tensor):
            raise UserError(
                f"{self.name}: the image of item {index} must be a tensor or a PIL image, got {type(image).__name__}"
            )
        if image.ndim == 2:
            image = image[None]
        if image.ndim != 3 or image.shape[0] not in (1, 3) or not image.numel():
            raise UserError(
                f"{self.name}: the image of item {index} must be [H, W] or [1 or 3, H, W], got {list(image.shape)}"
            )
        if image.is_floating_point():
            if not bool(((image >= 0) & (image <= 1)).all()):  # NaN is neither
                raise UserError(
                    f"{self.name}: pixels of item {index} must be in [0, 1], got "
                    f"{float(image.min()):.4g}..{float(image.max()):.4g}; data.mean and data.std normalize them later"
                )
            image = image * 255
        elif image.dtype != torch.uint8:
            raise UserError(
                f"{self.name}: the image of item {index} must be uint8 or float in [0, 1], got {image.dtype}"
            )
        return planes(convert(image[None], self.size, self.channels), self.channels)[0]

    def _same_shape(self, pixels: Tensor, index: int) -> Tensor:
        if pixels.shape != self.shape:
            raise UserError(
                f"{self.name}: item 0 is {list(self.shape)}, item {index} is {list(pixels.shape)} (C, H, W); "
                "set data.size or data.channels"
            )
        return pixels


def read_all(items: Items) -> tuple[Tensor, Tensor]:
    """Return images uint8 [N, C, H, W] and labels int64 [N], every item read once."""
    images = torch.empty((len(items.dataset), *items.shape), dtype=torch.uint8)
    labels = torch.empty(len(images), dtype=torch.int64)
    for index in range(len(images)):
        images[index], labels[index] = items.pair(index)
    return images, labels


def given_labels(items: Items) -> Tensor:
    """Return the labels of a set that is too large to read: its `targets` or `labels`, compared with the first
    items.
    """
    found = next((v for k in ("targets", "labels") if (v := getattr(items.dataset, k, None)) is not None), None)
    if found is None or len(found) != len(items.dataset):
        raise UserError(
            f"{items.name}: {len(items.dataset)} images are too many for memory, "
            "so it needs an attribute `targets` with their labels"
        )
    values = [items.label(value, index) for index, value in enumerate(found)]
    for index in range(min(PROBED, len(values))):
        if (label := items.pair(index)[1]) != values[index]:
            raise UserError(f"{items.name}: targets[{index}] is {values[index]}, the label of item {index} is {label}")
    return torch.tensor(values, dtype=torch.int64)
