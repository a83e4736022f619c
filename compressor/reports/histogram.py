"""Histograms of the weights of a network."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from compressor.reports.recorded import Histogram
from compressor.sparsity import in_use

BINS = 50


@torch.no_grad()
def histograms(model: nn.Module, dense: Mapping[str, Sequence[int]] | None = None) -> dict[str, Histogram]:
    """Return the histogram of each weight of two or more dims; `dense` has their shapes before channels were removed.

    Values that are not finite are left out; where all are equal, there is one bin.
    """
    found = {}
    for name, value in in_use(model).items():
        if value.dim() > 1:
            found[name] = _histogram(value.detach(), math.prod((dense or {}).get(name, value.shape)) - value.numel())
    return found


def _histogram(values: Tensor, removed: int) -> Histogram:
    flat = values.flatten().float().cpu()
    kept = flat[flat != 0]
    zeros = removed + flat.numel() - kept.numel()
    kept = kept[kept.isfinite()]
    if not kept.numel():
        return Histogram(low=None, high=None, counts=[], zeros=zeros)
    low, high = float(kept.min()), float(kept.max())
    if low == high:
        return Histogram(low=low, high=high, counts=[kept.numel()], zeros=zeros)
    # In float64, so that no value is outside of the range; in pieces, so that no copy is large.
    counts = np.zeros(BINS, np.int64)
    for piece in torch.split(kept, 2**20):
        counts += np.histogram(piece.double().numpy(), BINS, (low, high))[0]
    return Histogram(low=low, high=high, counts=counts.tolist(), zeros=zeros)
