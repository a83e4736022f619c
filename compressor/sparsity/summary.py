"""The zeros of a weight, and the distribution of its values."""

import math

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from compressor.sparsity.counting import count_nonzero
from compressor.sparsity.outputs_first import outputs_first


class WeightSummary(BaseModel):
    """Counts, fractions of structures that are all zero (None where a weight has none), and moments of one weight.

    filters: all weights of an output of a convolution (dim 0; of a transposed one dim 1); channels: of an input;
    kernels: of both. rows, cols: dims 0 and 1 of a matrix. std is the unbiased one.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    shape: list[int]
    weights: int
    nonzero: int
    sparsity: float
    filters: float | None
    channels: float | None
    kernels: float | None
    rows: float | None
    cols: float | None
    mean: float
    std: float
    mean_abs: float
    prunable: bool = True
    """Whether it is the weight of a convolution or linear layer: the total `sparsity` counts these."""


@torch.no_grad()
def summarize(
    name: str, weight: Tensor, scratch: Tensor | None = None, *, prunable: bool = True, layer: nn.Module | None = None
) -> WeightSummary:
    """Return the summary of one weight tensor of two or more dims; `layer`: its layer, which says where outputs are.

    `scratch` is a flat buffer of at least its size and of its dtype and device: new memory costs more than the
    arithmetic.
    """
    weight = weight.detach().contiguous()
    if weight.dtype not in (torch.float32, torch.float64):
        weight, scratch = weight.float(), None  # sums of half-precision numbers overflow
    count, matrix = weight.numel(), weight.dim() == 2
    if scratch is None:
        scratch = weight.new_empty(count)
    magnitude = torch.abs(weight.view(-1), out=scratch[:count])
    # The L1 norm of each kernel, as a matrix-vector product: far faster than a reduction over nine elements.
    size = max(math.prod(weight.shape[2:]), 1)
    norms = magnitude if matrix else torch.mv(magnitude.view(-1, size), magnitude.new_ones(size))
    nonzero = count_nonzero(weight)
    per_dim0 = per_dim1 = per_pair = 0.0
    if nonzero < count:
        pairs = outputs_first(norms.view(weight.shape[:2]), layer)
        per_pair, per_dim0, per_dim1 = _dead(pairs), _dead(pairs.sum(1)), _dead(pairs.sum(0))
    total, squares = float(weight.sum()), float(torch.linalg.vector_norm(weight)) ** 2
    variance = max(squares - total * total / max(count, 1), 0.0) / max(count - 1, 1)
    if count > 1 and variance * count < 0.25 * squares:  # the difference of two near-equal sums says little
        variance = float(weight.double().var())
    return WeightSummary(
        name=name,
        shape=list(weight.shape),
        weights=count,
        nonzero=nonzero,
        sparsity=1 - nonzero / count if count else 0.0,
        filters=None if matrix else per_dim0,
        channels=None if matrix else per_dim1,
        kernels=None if matrix else per_pair,
        rows=per_dim0 if matrix else None,
        cols=per_dim1 if matrix else None,
        mean=total / max(count, 1),
        std=variance**0.5,
        mean_abs=float(norms.sum()) / max(count, 1),
        prunable=prunable,
    )


def _dead(norms: Tensor) -> float:
    return 1 - count_nonzero(norms) / norms.numel()
