"""Sizes and channels of images that are tensors already; `decoding` does the same for image files."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 1024
"""The number of images converted at a time, which limits the float32 copies."""

LUMA = (19595, 38470, 7471)
"""ITU-R 601 in 16-bit fixed point, as in Pillow's convert("L"): both ways give the same bytes."""


def convert(images: Tensor, size: int | None, channels: int | None) -> Tensor:
    """Return the centred square of each image at size x size, as uint8 [N, C, H, W]; colour becomes grey for
    channels 1.

    `images`: [N, C, H, W] in 0..255, uint8 or float. Bilinear (align_corners False), antialiased where it shrinks. Grey
    stays one plane: `planes` repeats it when it is fed, which saves two thirds of the memory.
    """
    same = size is None or tuple(images.shape[-2:]) == (size, size)
    if images.dtype == torch.uint8 and same and not (channels == 1 and images.shape[1] == 3):
        return images.contiguous()
    return torch.cat([_convert(chunk, size, channels) for chunk in torch.split(images, CHUNK)])


def _convert(images: Tensor, size: int | None, channels: int | None) -> Tensor:
    if channels == 1 and images.shape[1] == 3:
        weights = torch.tensor(LUMA, dtype=torch.int32)[:, None, None]
        images = (
            (_bytes(images).int() * weights).sum(1, keepdim=True).add(1 << 15).bitwise_right_shift(16).to(torch.uint8)
        )
    height, width = images.shape[-2:]
    if size is not None and (height, width) != (size, size):
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = images[..., top : top + side, left : left + side].float()
        images = F.interpolate(square, (size, size), mode="bilinear", align_corners=False, antialias=size < side)
    return _bytes(images)


def _bytes(images: Tensor) -> Tensor:
    return images if images.dtype == torch.uint8 else images.round().clamp(0, 255).to(torch.uint8)


def planes(images: Tensor, channels: int | None) -> Tensor:
    """Return [B, 1, H, W] as `channels` equal planes; colour images as they are."""
    if channels is None or images.shape[1] == channels:
        return images
    return images.expand(-1, channels, -1, -1).contiguous()


def per_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """Return a mean or std of the images for `channels`: one value repeated, or three weighted as luma is.

    For the mean that is exact; for the std it is that of perfectly correlated colours, a few % above real images'.
    """
    if channels == 1 and len(values) == 3:
        return (sum(weight * value for weight, value in zip(LUMA, values, strict=True)) / sum(LUMA),)
    return tuple(values) * (channels // len(values))


def measure(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel of uint8 [N, C, H, W], in units of 255.

    From histograms, that is from exact integers: the same floats on every machine.
    """
    values = torch.arange(256)
    means, stds = [], []
    for channel in images.unbind(1):
        counts = torch.bincount(channel.reshape(-1), minlength=256)
        total = int(counts.sum())
        first, second = int((counts * values).sum()), int((counts * values**2).sum())
        means.append(first / total / 255)
        stds.append(((second * total - first * first) ** 0.5) / total / 255)
    return tuple(means), tuple(stds)
