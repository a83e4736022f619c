"""MNIST's file format: big-endian header (type and rank, then the dimensions), then the bytes."""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from compressor.errors import UserError

_UNSIGNED_BYTES = 0x08


def read_idx(path: Path, rank: int) -> Tensor:
    """Return a uint8 tensor of `rank` dims.

    Raises UserError with the file's name where it is not one, or is too short.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    start = 4 + 4 * rank
    if len(content) < start or content[:4] != bytes((0, 0, _UNSIGNED_BYTES, rank)):
        raise UserError(
            f"{path}: not an IDX file of {rank}-dimensional bytes: expected it to begin with 0000080{rank}, "
            f"got {content[:4].hex() or 'an empty file'}"
        )
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", rank, offset=4))
    if len(content) - start != math.prod(shape):
        raise UserError(
            f"{path}: damaged: according to its header {' x '.join(map(str, shape))} = {math.prod(shape):,} bytes, "
            f"{len(content) - start:,} follow; delete the file and get it again"
        )
    return (
        torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).view(shape)
        if math.prod(shape)
        else torch.empty(shape, dtype=torch.uint8)
    )
