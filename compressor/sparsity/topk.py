"""Exact numbers of structures, and the exact selection of the smallest scores."""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from compressor.errors import CompressError
from compressor.sparsity.counting import count_nonzero

Rounding = Literal["floor", "ceil", "round"]


def pruned_count(sparsity: float, total: int) -> int:
    """Return how many of `total` elements are pruned: floor(sparsity * total), the floor of Python's float product."""
    return math.floor(sparsity * total)


_ROUND: dict[str, Callable[[float], int]] = {"floor": math.floor, "ceil": math.ceil, "round": round}


def structures_to_prune(sparsity: float, total: int, rounding: Rounding = "floor", group_size: int = 1) -> int:
    """Return how many of `total` structures are pruned: the rounded number, in multiples of `group_size`, never all."""
    share = sparsity * total if group_size == 1 else sparsity * total / group_size
    most = max(total - 1, 0) // group_size * group_size
    return min(_ROUND[rounding](share) * group_size, most)


def smallest(score: Tensor, count: int) -> Tensor:
    """Return true at exactly the `count` smallest entries of `score` (any shape); of equal scores at the lower index.

    Uses one partition instead of a sort; NaN counts as the largest. Raises `CompressError` where fewer than `count`
    scores are numbers.
    """
    if count <= 0:
        return torch.zeros_like(score, dtype=torch.bool)
    flat = score.detach().flatten()
    if flat.dtype not in (torch.float32, torch.float64):
        flat = flat.float()
    if count >= flat.numel():
        return torch.ones_like(score, dtype=torch.bool)
    threshold = _kth_smallest(flat, count)
    if math.isnan(threshold):
        raise CompressError(
            f"cannot rank {flat.numel()} scores: fewer than {count} of them are numbers, the others are NaN"
        )
    # NumPy compares four times as fast as torch on a CPU.
    chosen = flat <= threshold if flat.is_cuda else torch.from_numpy(flat.numpy() <= threshold)
    surplus = count_nonzero(chosen) - count
    if surplus:
        ties = (flat == threshold).nonzero().flatten()
        chosen[ties[-surplus:]] = False
    return chosen.view(score.shape)


def _kth_smallest(flat: Tensor, k: int) -> float:
    if flat.is_cuda:
        return float(flat.kthvalue(k).values)
    values = flat.numpy()
    # A partition is slow where many values are equal, and magnitudes of pruned weights are: zeros are counted instead.
    probe = values[:: values.size // 1024 + 1]
    if np.count_nonzero(probe) < 0.9 * probe.size and values.min() >= 0:
        zeros = values.size - count_nonzero(flat)
        if k <= zeros:
            return 0.0
        values, k = values[values > 0], k - zeros
        if k > values.size:
            return math.nan
    return float(np.partition(values, k - 1)[k - 1])
