"""Strided taps: S. Anwar, K. Hwang and W. Sung, "Structured Pruning of Deep Convolutional Neural Networks", 2017."""

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from compressor.sparsity.structures.structure import CONVOLUTIONS, Shape, Structure


class Taps(Structure, name="Taps"):
    """Strided taps (Anwar et al. 2017): of one channel, in all filters, the taps k, k + stride, ... in raster order."""

    example: ClassVar[str] = "{Taps: 2}"
    weight_dims: ClassVar[tuple[int, ...]] = CONVOLUTIONS
    members: ClassVar[tuple[int, ...]] = (0, 2)
    main: ClassVar[str] = "stride"

    stride: int = Field(
        default=2, ge=1, description="distance of the taps that go together, in raster order of the kernel"
    )

    def view_shape(self, shape: Shape) -> tuple[int, ...]:
        taps = math.prod(shape[2:])
        return (shape[0], shape[1], -(-taps // self.stride), self.stride)

    def misfit(self, shape: Shape) -> str | None:
        if (said := super().misfit(shape)) is not None:
            return said
        taps = math.prod(shape[2:])
        return f"a kernel of {taps} taps has no stride of {self.stride}" if self.stride > taps else None

    def size(self, shape: Shape) -> int:
        """Return the size of the smallest structure: where the stride does not divide the kernel, later ones have one
        tap less.
        """
        return int(shape[0]) * (math.prod(shape[2:]) // self.stride)

    def view(self, weight: Tensor) -> Tensor:
        filters, channels, rows, stride = self.view_shape(weight.shape)
        flat = weight.reshape(filters, channels, -1)
        missing = rows * stride - flat.shape[2]
        return torch.nn.functional.pad(flat, (0, missing)).reshape(filters, channels, rows, stride)

    def expand(self, index: Tensor, shape: Shape) -> Tensor:
        filters, channels, rows, stride = self.view_shape(shape)
        wide = index.reshape(1, channels, 1, stride).expand(filters, channels, rows, stride)
        taps = math.prod(shape[2:])
        return wide.reshape(filters, channels, -1)[:, :, :taps].reshape(tuple(shape))
