"""The sparsity report of a model: what a run writes and what `compress report` prints."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from compressor.reports.macs import macs
from compressor.sparsity.counting import count_nonzero
from compressor.sparsity.summary import summarize
from compressor.sparsity.weights import prunable


class TensorRow(BaseModel):
    """One prunable weight; shares are fractions of structures that are all zero, None where there is no such one."""

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


class Totals(BaseModel):
    """The whole model. Weights are the prunable ones, parameters all; accuracies in percent, of the test set."""

    model_config = ConfigDict(frozen=True)

    weights: int
    nonzero: int
    sparsity: float
    parameters: int
    macs: int
    macs_nonzero: int
    top1: float | None = None
    top5: float | None = None


class Report(BaseModel):
    """Sparsity by tensor, and totals."""

    model_config = ConfigDict(frozen=True)

    tensors: list[TensorRow]
    totals: Totals


def measure(model: nn.Module, shape: tuple[int, int, int], test: Mapping[str, float] | None = None) -> Report:
    """The report of `model` on images of `shape` (C, H, W); `test` has its measured top1 and top5, in percent."""
    weights = prunable(model)
    rows = []
    largest = max(weights.values(), key=lambda weight: weight.numel(), default=None)
    scratch = None if largest is None else torch.empty_like(largest.detach())
    for name, weight in weights.items():
        summary = summarize(weight, scratch)
        rows.append(
            TensorRow(name=name, sparsity=summary.sparsity, **{**asdict(summary), "shape": list(summary.shape)})
        )
    total_macs, by_weight = macs(model, shape)
    saved = sum(by_weight[row.name] * (row.weights - row.nonzero) // max(row.weights, 1) for row in rows)
    count, nonzero = sum(row.weights for row in rows), sum(row.nonzero for row in rows)
    totals = Totals(
        weights=count,
        nonzero=nonzero,
        sparsity=1 - nonzero / count if count else 0.0,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        macs=total_macs,
        macs_nonzero=total_macs - saved,
        top1=test.get("top1") if test else None,
        top5=test.get("top5") if test else None,
    )
    return Report(tensors=rows, totals=totals)


def overall_sparsity(model: nn.Module, dense: Mapping[str, Sequence[int]] | None = None) -> float:
    """Share of zeros over all prunable weights; `dense` has their shapes before channels were removed."""
    weights = prunable(model)
    total = sum(math.prod((dense or {}).get(name, weight.shape)) for name, weight in weights.items())
    return 1 - sum(count_nonzero(weight) for weight in weights.values()) / total if total else 0.0
