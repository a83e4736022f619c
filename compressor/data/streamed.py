"""Sets that are decoded while they are fed, in `data.workers` processes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from compressor.data.ahead import copied_ahead
from compressor.data.images import Batch
from compressor.data.transforms import transforming
from compressor.errors import UserError
from compressor.importing import global_state_kept

AHEAD = 2
"""The number of batches that each process decodes before they are asked for."""

Task = tuple[int | None, list[int]]
"""The images of a batch, and the epoch in which they are changed; None: they are not changed."""


class Change(Protocol):
    """Changes an image, uint8 [C, H, W], by its index and the epoch; the result has the shape of the set's images."""

    @property
    def whole(self) -> bool:
        """Return whether it takes images in the size in which they are stored."""
        ...

    def __call__(self, image: Tensor, index: int, epoch: int) -> Tensor: ...


class Source(Protocol):
    """A source of single images; it is pickled for the worker processes."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return C, H, W of every image."""
        ...

    def image(self, index: int) -> Tensor:
        """Return uint8 [C, H, W]. Raises UserError with the name of what cannot be read."""
        ...

    def whole(self, index: int) -> Tensor:
        """Return the image in the size in which it is stored. Raises UserError as `image`."""
        ...


@dataclass(frozen=True)
class Streamed:
    """Images that a `Source` makes one by one. The order is the caller's, so it may start in mid-epoch.

    The processes of a pass stay for the next one, unless it was left before its end. A pass inside another one has its
    own.
    """

    source: Source
    labels: Tensor
    workers: int
    seed: int
    change: Change | None = None
    """Changes images where a pass belongs to an epoch, in the processes that decode them."""
    _idle: "dict[bool, _Loader]" = field(init=False, repr=False, compare=False, default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, order: Tensor, batch: int, device: torch.device, epoch: int | None = None) -> Iterator[Batch]:
        """Yield batches as `Images.batches`. Raises UserError with the name of the image that fails.

        `epoch`: the images are changed as in this epoch; None: they are not changed.
        """
        return copied_ahead(self._read(order, batch, epoch, pinned=device.type == "cuda"), device)

    def _read(self, order: Tensor, batch: int, epoch: int | None, *, pinned: bool) -> Iterator[Batch]:
        slices = [order[start : start + batch] for start in range(0, len(order), batch)]
        loader = self._idle.pop(pinned, None) or _Loader(self, pinned)
        tasks = ((epoch, indices.tolist()) for indices in slices)
        for indices, images in zip(slices, loader.read(tasks), strict=True):
            if isinstance(images, str):
                raise UserError(images)
            yield indices, images, self.labels[indices]
        if self.workers:
            self._idle[pinned] = loader

    def decoded(self) -> Tensor:
        """Return all images, uint8 [N, C, H, W], each read once, for sets that fit into memory."""
        out = torch.empty((len(self), *self.source.shape), dtype=torch.uint8)
        for indices, images, _ in self.batches(torch.arange(len(self)), 256, torch.device("cpu")):
            out.numpy()[indices.numpy()] = images.numpy()
        return out


class _Tasks:
    """The tasks of a pass. A loader takes no other ones later; this one object stays with it."""

    def __init__(self) -> None:
        self.now: Iterable[Task] = ()

    def __iter__(self) -> Iterator[Task]:
        return iter(self.now)


class _Loader:
    """The processes that decode, for one pass after another."""

    def __init__(self, images: Streamed, pinned: bool) -> None:
        self._tasks = _Tasks()
        self._loader: DataLoader[Tensor | str] = DataLoader(
            _Fetch(images.source, images.change),
            batch_size=None,  # an item is a batch already
            sampler=self._tasks,
            num_workers=images.workers,
            prefetch_factor=AHEAD if images.workers else None,
            persistent_workers=images.workers > 0,
            pin_memory=pinned,
            generator=torch.Generator().manual_seed(images.seed),  # else it draws from the run's own
        )

    def read(self, tasks: Iterable[Task]) -> Iterator[Tensor | str]:
        """Return the batches of some tasks; of one that failed a message."""
        self._tasks.now = tasks
        return iter(self._loader)


@dataclass(frozen=True)
class _Fetch(Dataset[Tensor | str]):
    """A batch by its task, or a message where it failed (an exception would carry the worker's traceback)."""

    source: Source
    change: Change | None

    def __getitem__(self, task: Task) -> Tensor | str:
        epoch, indices = task
        batch = torch.empty((len(indices), *self.source.shape), dtype=torch.uint8)
        changes = self.change is not None and epoch is not None
        try:
            # Copied by numpy: torch.stack would wake all its threads for every batch, 7 x slower on busy cores.
            with (
                transforming() if changes else global_state_kept()
            ):  # a user's items may draw, and without workers they would draw from the run's
                for row, index in zip(batch.numpy(), indices, strict=True):
                    row[...] = self._image(index, epoch).numpy()
        except UserError as error:
            return str(error)
        return batch

    def _image(self, index: int, epoch: int | None) -> Tensor:
        if self.change is None or epoch is None:
            return self.source.image(index)
        return self.change(self.source.whole(index) if self.change.whole else self.source.image(index), index, epoch)
