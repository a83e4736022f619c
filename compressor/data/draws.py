"""Random numbers that are a pure function of where they are used: no generator, hence no state to save or to lose.

SplitMix64 (Steele, Lea & Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014) addressed by position:
integer arithmetic alone, so the same bits on every machine, device and version of torch.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

SPLIT, AUGMENT, ORDER = 1, 2, 3
"""Streams: draws for different purposes are independent though they share a seed."""

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = 2**64 - 1


def draw(indices: Tensor, *key: int) -> NDArray[np.uint64]:
    """64 random bits per index, determined by (key, index) alone; `key` is e.g. (stream, seed, epoch), all >= 0."""
    state = np.zeros(1, np.uint64)
    for part in key:
        state = _mix(state + np.uint64((part + 1) * _GOLDEN & _MASK))
    return _mix(state + (indices.cpu().numpy().astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN))


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
