"""Sets that are held in memory as bytes, and on the device once they are fed to it."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from compressor.config import DataConfig
from compressor.data.fingerprinting import of_tensors
from compressor.data.images import Batch, DataSet
from compressor.data.pixels import convert, measure, per_channel, planes

LIMIT = 2**30
"""The largest size of a set in memory, in bytes; above, files stay on disk and are resized for each batch."""


def fits(count: int, shape: Sequence[int]) -> bool:
    """Return whether `count` uint8 images of `shape` may be held in memory."""
    return count * torch.Size(shape).numel() <= LIMIT


class InMemory:
    """Images held as uint8 [N, C, H, W], resized first where that fits, else for each batch."""

    def __init__(self, images: Tensor, labels: Tensor, size: int | None = None, channels: int | None = None) -> None:
        """Take `images`, [N, C, H, W] in 0..255, uint8 or float, and `labels`, int64 [N]."""
        self.labels = labels
        late = size is not None and not fits(len(images), (images.shape[1], size, size))
        self._size = size if late else None
        self._channels = channels
        self.images = convert(images, None if late else size, channels)
        height, width = (size, size) if size else images.shape[-2:]
        self.shape: tuple[int, int, int] = (channels or images.shape[1], height, width)
        self._resident: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, order: Tensor, batch: int, device: torch.device) -> Iterator[Batch]:
        """Yield batches as `Images.batches`; the whole set is copied to `device` the first time."""
        if device not in self._resident:
            self._resident[device] = self.images.to(device), self.labels.to(device)
        images, labels = self._resident[device]
        there = order.to(device)
        for start in range(0, len(order), batch):
            chosen = there[start : start + batch]
            # Indexing a few rows is cheaper by index_select than by [].
            picked = convert(images.index_select(0, chosen), self._size, None)
            yield order[start : start + batch], planes(picked, self._channels), labels.index_select(0, chosen)


def in_memory(
    name: str,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    classes: Sequence[str],
    config: DataConfig,
    *,
    size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    content: Mapping[str, str] | None = None,
) -> DataSet:
    """Return a data set of (images [N, C, H, W] in 0..255, labels) pairs, at the config's size (else `size`) and
    channels.

    `mean` and `std` are those of the images as given; without them they are measured on the training images. `content`
    has the digests of what the images were read from; without it the images are hashed.
    """
    content = content or {"train": of_tensors(*train), "test": of_tensors(*test)}
    splits = [InMemory(images, labels, config.size or size, config.channels) for images, labels in (train, test)]
    shape = splits[0].shape
    if mean is None or std is None:
        mean, std = measure(splits[0].images)
    return DataSet(
        name,
        splits[0],
        splits[1],
        tuple(classes),
        shape,
        mean=per_channel(mean, shape[0]),
        std=per_channel(std, shape[0]),
        content=content,
    )
