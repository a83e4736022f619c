"""Exact selection of the smallest scores."""

import math

import numpy as np
import torch
from torch import Tensor

from compressor.errors import CompressError


def pruned_count(sparsity: float, total: int) -> int:
    """How many of `total` elements a sparsity takes: floor(sparsity * total), Python's floor of the float product."""
    return math.floor(sparsity * total)


def smallest(score: Tensor, count: int) -> Tensor:
    """True at exactly the `count` smallest entries of `score` (any shape); of equal scores the lower index goes first.

    One partition instead of a sort; NaN ranks as the largest. Raises `CompressError` where fewer are numbers.
    """
    if count <= 0:
        return torch.zeros_like(score, dtype=torch.bool)
    flat = score.detach().flatten()
    if count >= flat.numel():
        return torch.ones_like(score, dtype=torch.bool)
    threshold = _kth_smallest(flat, count)
    if math.isnan(threshold):
        raise CompressError(
            f"cannot rank {flat.numel()} scores: fewer than {count} of them are numbers, the others are NaN"
        )
    chosen = flat <= threshold
    surplus = int(chosen.count_nonzero()) - count
    if surplus:
        ties = (flat == threshold).nonzero().flatten()
        chosen[ties[-surplus:]] = False
    return chosen.view(score.shape)


def _kth_smallest(flat: Tensor, k: int) -> float:
    if flat.is_cuda:
        return float(flat.float().kthvalue(k).values)
    if flat.dtype not in (torch.float32, torch.float64):
        flat = flat.float()
    values = np.partition(flat.numpy(), k - 1)
    return float(values[k - 1])
