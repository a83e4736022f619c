"""SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014), by position.

Integer arithmetic alone: the same bits on every machine, device and version of torch.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bits", "splitmix64"]

Bits = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def splitmix64(seed: Bits, positions: Bits) -> Bits:
    """Return the numbers at some positions (from 0) of the generator's stream of `seed`, all modulo 2^64."""
    z: Bits = seed + (positions + np.uint64(1)) * _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z
