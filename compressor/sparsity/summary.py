"""What of a weight is zero, and how it is distributed."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class WeightSummary:
    """Counts, shares of structures that are all zero (None where there is none), and moments.

    filters: slices of dim 0 of a convolution; channels: of dim 1; kernels: of both. rows, cols: dims 0 and 1 of a
    matrix. std is the unbiased one.
    """

    shape: tuple[int, ...]
    weights: int
    nonzero: int
    filters: float | None
    channels: float | None
    kernels: float | None
    rows: float | None
    cols: float | None
    mean: float
    std: float
    mean_abs: float

    @property
    def sparsity(self) -> float:
        """Share of zeros."""
        return 1 - self.nonzero / self.weights if self.weights else 0.0


@torch.no_grad()
def summarize(weight: Tensor) -> WeightSummary:
    """The summary of one weight tensor of two or more dimensions."""
    weight = weight.detach()
    count = weight.numel()
    nonzero = int(weight.count_nonzero())
    if nonzero == count:
        per_dim0 = per_dim1 = per_pair = 0.0  # nothing can be all zero: the usual dense case costs no pass
    else:
        alive = weight != 0
        pairs = alive.flatten(2).any(2) if weight.dim() > 2 else alive
        per_pair, per_dim0, per_dim1 = _dead(pairs), _dead(pairs.any(1)), _dead(pairs.any(0))
    matrix = weight.dim() == 2
    total = float(weight.sum(dtype=torch.float64)) if count else 0.0
    squares = float(torch.linalg.vector_norm(weight, dtype=torch.float64)) ** 2 if count else 0.0
    variance = max(squares - total * total / count, 0.0) / (count - 1) if count > 1 else 0.0
    return WeightSummary(
        shape=tuple(weight.shape),
        weights=count,
        nonzero=nonzero,
        filters=None if matrix else per_dim0,
        channels=None if matrix else per_dim1,
        kernels=None if matrix else per_pair,
        rows=per_dim0 if matrix else None,
        cols=per_dim1 if matrix else None,
        mean=total / max(count, 1),
        std=variance**0.5,
        mean_abs=float(weight.abs().sum()) / max(count, 1),
    )


def _dead(alive: Tensor) -> float:
    return 1 - int(alive.count_nonzero()) / alive.numel()
