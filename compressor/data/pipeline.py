"""From stored bytes to the network's input, by batch and on the batch's device."""

from collections.abc import Collection, Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.config import KINDS
from compressor.data.draws import AUGMENT, draw
from compressor.errors import UserError, did_you_mean

LARGE = 3 * 64 * 64
"""The number of values from which images are changed one by one on the CPU."""


def prepare(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return float32 (x / 255 - mean) / std of uint8 [B, C, H, W], on the images' device."""
    shift, scale = _affine(tuple(mean), tuple(std), images.device)
    return images.to(torch.float32, memory_format=torch.contiguous_format).sub_(shift).mul_(scale)


def augment(images: Tensor, indices: Tensor, *, seed: int, epoch: int, kinds: Collection[str]) -> Tensor:
    """Return randomly shifted ("crop") and mirrored ("flip") copies of prepared images [B, C, H, W] with `indices` [B].
    Where they are only mirrored, they may be bytes, too.

    crop: out[y, x] = in[y + dy, x + dx], 0 (the mean) outside, dy in -(H // 8)..H // 8 and dx likewise, uniform; flip:
    left and right exchanged with probability 1/2, after the crop. The draws depend on (seed, epoch, index) alone, so a
    sample's picture does not depend on its batch, the device, or where training was resumed.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise UserError(f"data.augment: there is no {kind!r}: {did_you_mean(kind, KINDS)}")
    if not kinds:
        return images
    dy, dx, mirrored = drawn(indices, seed, epoch, images.shape, images.device)
    if "crop" in kinds:
        images = _windows(images, dy, dx)
    if "flip" in kinds:
        images = _mirrored(images, mirrored.bool())
    return images


def drawn(indices: Tensor, seed: int, epoch: int, shape: Sequence[int], device: torch.device) -> Tensor:
    """Return int64 [3, B]: the shifts of `crop`, down and right, each from 0, and 1 where `flip` mirrors.

    `shape`: of the images, [..., H, W].
    """
    height, width = shape[-2:]
    return _chosen(indices, (AUGMENT, seed, epoch), (2 * (height // 8) + 1, 2 * (width // 8) + 1, 2), device)


def _mirrored(images: Tensor, which: Tensor) -> Tensor:
    """Return the images, those of `which` [B] with left and right exchanged."""
    if images.is_cuda or images[0].numel() <= LARGE:
        return torch.where(which[:, None, None, None], images.flip(-1), images)
    images = images.clone()  # a choice between two batches of large images takes ten times as long
    for index in which.nonzero().flatten().tolist():
        images[index] = images[index].flip(-1)
    return images


def _windows(images: Tensor, top: Tensor, left: Tensor) -> Tensor:
    """Return the window of each zero-padded image that starts at its own (top, left)."""
    height, width = images.shape[-2:]
    padded = F.pad(images, (width // 8, width // 8, height // 8, height // 8))
    # A view of every window there is; indexing it copies whole rows, several times faster than gathering pixels.
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(len(images), device=images.device), :, top, left]


def _chosen(indices: Tensor, key: tuple[int, ...], options: Sequence[int], device: torch.device) -> Tensor:
    """Return int64 [len(options), B]: row i is uniform in 0..options[i]-1, from its own 20 bits of one draw."""
    bits = draw(indices, *key)
    rows = [
        (bits >> np.uint64(20 * i) & np.uint64(0xFFFFF)) * np.uint64(n) >> np.uint64(20) for i, n in enumerate(options)
    ]
    table = torch.from_numpy(np.stack(rows).astype(np.int64))
    if device.type == "cuda":  # from pageable memory the copy would wait for the device
        table = table.pin_memory()
    return table.to(device, non_blocking=True)


@lru_cache(maxsize=64)
def _affine(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return 255 * mean and 1 / (255 * std), each [C, 1, 1]: made once, because a copy in every step would delay the
    device.
    """
    with torch.inference_mode(False):
        shift = torch.tensor([255 * m for m in mean], device=device)
        scale = torch.tensor([1 / (255 * s) for s in std], device=device)
        return shift[:, None, None], scale[:, None, None]
