"""Random numbers that depend only on where they are used: there is no generator, so no state to save or to lose."""

from functools import lru_cache

import numpy as np
from torch import Tensor

from compressor.splitmix import Bits, splitmix64

SPLIT, AUGMENT, ORDER, TRANSFORM, ERASE, MIX = 1, 2, 3, 4, 5, 6
"""Streams: draws for different purposes are independent though they share a seed."""

_MASK = 2**64 - 1


def draw(indices: Tensor, *key: int) -> Bits:
    """Return 64 random bits for each index, determined by (key, index) alone.

    `key`: whole numbers of at least 0, e.g. (stream, seed, epoch).
    """
    return splitmix64(_state(key), indices.cpu().numpy().astype(np.uint64))


@lru_cache(maxsize=16)
def _state(key: tuple[int, ...]) -> Bits:
    """Return the state after a key: that of an epoch is used for each of its images."""
    state = np.zeros(1, np.uint64)
    for part in key:
        state = splitmix64(state, np.array([part & _MASK], np.uint64))
    return state
