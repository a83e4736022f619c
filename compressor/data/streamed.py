"""Sets that are decoded while they are fed, in `data.workers` processes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from compressor.data.images import Batch
from compressor.data.transforms import transforming
from compressor.errors import UserError
from compressor.importing import global_state_kept

Change = Callable[[Tensor, int], Tensor]
"""A function of an image, uint8 [C, H, W], and its index that returns such an image."""


class Source(Protocol):
    """A source of single images; it is pickled for the worker processes."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return C, H, W of every image."""
        ...

    def image(self, index: int) -> Tensor:
        """Return uint8 [C, H, W]. Raises UserError with the name of what cannot be read."""
        ...


@dataclass(frozen=True)
class Streamed:
    """Images that a `Source` makes one by one. The order is the caller's, so it may start in mid-epoch."""

    source: Source
    labels: Tensor
    workers: int
    seed: int
    change: Change | None = None
    """Changes each image by its index, in the processes that decode it."""

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, order: Tensor, batch: int, device: torch.device) -> Iterator[Batch]:
        """Yield batches as `Images.batches`. Raises UserError with the name of the image that fails."""
        slices = [order[start : start + batch] for start in range(0, len(order), batch)]
        pinned = device.type == "cuda"
        loader: DataLoader[Tensor | str] = DataLoader(
            _Fetch(self.source, self.change),
            batch_size=None,  # an item is a batch already
            sampler=[indices.tolist() for indices in slices],
            num_workers=self.workers,
            pin_memory=pinned,
            generator=torch.Generator().manual_seed(self.seed),  # else it draws from the run's own
        )
        for indices, images in zip(slices, loader, strict=True):
            if isinstance(images, str):
                raise UserError(images)
            yield indices, images.to(device, non_blocking=pinned), self.labels[indices].to(device)

    def decoded(self) -> Tensor:
        """Return all images, uint8 [N, C, H, W], each read once, for sets that fit into memory."""
        out = torch.empty((len(self), *self.source.shape), dtype=torch.uint8)
        for indices, images, _ in self.batches(torch.arange(len(self)), 256, torch.device("cpu")):
            out.numpy()[indices.numpy()] = images.numpy()
        return out


@dataclass(frozen=True)
class _Fetch(Dataset[Tensor | str]):
    """A batch by its indices, or a message where it failed (an exception would carry the worker's traceback)."""

    source: Source
    change: Change | None

    def __getitem__(self, indices: list[int]) -> Tensor | str:
        batch = torch.empty((len(indices), *self.source.shape), dtype=torch.uint8)
        try:
            # Copied by numpy: torch.stack would wake all its threads for every batch, 7 x slower on busy cores.
            with (
                transforming() if self.change else global_state_kept()
            ):  # a user's items may draw, and without workers they would draw from the run's
                for row, index in zip(batch.numpy(), indices, strict=True):
                    image = self.source.image(index)
                    row[...] = (image if self.change is None else self.change(image, index)).numpy()
        except UserError as error:
            return str(error)
        return batch
