"""A data set as the trainer uses it: two splits of labelled images, addressed by index."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor, Tensor]


@runtime_checkable
class Images(Protocol):
    """One split. The caller owns the order, so shuffling and resuming in mid-epoch need no state here."""

    @property
    def labels(self) -> Tensor:
        """Return int64 [N], on the CPU."""
        ...

    def __len__(self) -> int: ...

    def batches(self, order: Tensor, batch: int, device: torch.device) -> Iterator[Batch]:
        """Yield consecutive slices of `order` (int64 indices), the last one may be smaller.

        Yields (indices [B] on the CPU, images uint8 [B, C, H, W] and labels int64 [B] on `device`).
        """
        ...


@dataclass(frozen=True)
class DataSet:
    """A data set, ready to be fed: `shape` is (C, H, W) as fed, `mean` and `std` per channel of pixels in [0, 1].

    `notes` are messages for the user: what was left out, what looks wrong. `content` has a digest of the images of
    `train` and of `test` as they are stored; without it `fingerprint` reads some of them.
    """

    name: str
    train: Images
    test: Images
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    notes: tuple[str, ...] = ()
    content: Mapping[str, str] | None = None
