"""The sparsity report of a model: what a run writes and what `compress report` prints."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from compressor.reports.latency import Latency, latency
from compressor.sparsity import WeightSummary, count_nonzero, in_use, prunable, summarize, turned_layers, weight_count
from compressor.storage import StoredBits, dense_bits, stored_bits
from compressor.thinning import compact_layers, thin_and_compact
from compressor.tracing import dependent_logits, lost_classes, macs

IMAGES = 16
"""The number of random images on which the logits of the compacted network are compared."""


class Rates(BaseModel):
    """The size of the dense network divided by that of the compressed one, in three ways; None where nothing is left.

    `weights`: the prunable ones. `parameters`: all tensors of two or more dims without their zeros, and all other
    parameters. `bits`: as stored, with buffers.
    """

    model_config = ConfigDict(frozen=True)

    weights: float | None
    parameters: float | None
    bits: float | None


class Others(BaseModel):
    """All parameters of less than two dims together: biases, batch norms ..."""

    model_config = ConfigDict(frozen=True)

    parameters: int
    nonzero: int
    sparsity: float


class Totals(BaseModel):
    """The whole model. Weights are the prunable ones, parameters all; accuracies in percent, on the test set."""

    model_config = ConfigDict(frozen=True)

    weights: int
    nonzero: int
    sparsity: float
    """The fraction of zeros of the prunable weights: those of convolutions and linear layers."""
    sparsity_all: float = 0.0
    """The fraction of zeros of all parameters."""
    parameters: int
    macs: int
    macs_nonzero: int
    dense_weights: int | None = None
    """Prunable weights before channels were removed; None where none were."""
    stored_bits: StoredBits | None = None
    rates: Rates | None = None
    top1: float | None = None
    top5: float | None = None
    train_top1: float | None = None
    """In the last training epoch: augmented images, weights that still changed, dropout."""


class EarlierTest(BaseModel):
    """The test figures after so many epochs, of a run that was trained on after them; accuracies in percent."""

    model_config = ConfigDict(frozen=True)

    epochs: int
    loss: float | None = None
    top1: float | None = None
    top5: float | None = None


class Thinning(BaseModel):
    """One removal of channels: when, the parameters before and after, and the largest change of a logit on real
    images.
    """

    model_config = ConfigDict(frozen=True)

    when: str
    parameters_before: int
    parameters_after: int
    images: int
    largest_difference: float
    exact_difference: float | None = None
    """The difference in float64, where that in float32 is too large because of rounding."""
    stays: list[str]
    skipped: list[str] = []
    """Layers of which only the bias is left: a residual block without them is its shortcut."""


class Stage(BaseModel):
    """The network dense, masked, thin or compacted."""

    model_config = ConfigDict(frozen=True)

    name: str
    parameters: int
    macs: int


class Comparison(BaseModel):
    """The sizes of the stages of one network."""

    model_config = ConfigDict(frozen=True)

    stages: list[Stage]
    compacted: list[str] = []
    """Layers whose zero rows and columns are removed in the stage `compacted`."""
    stays: list[str] = []
    """The zero filters and channels that thinning leaves, and why, unless `thinnings` has them; or why none can go."""
    largest_difference: float | None = None
    """The largest difference of a logit to the stage before, on `IMAGES` random images."""


class Report(BaseModel):
    """Sparsity of each tensor of two or more dims, of all others together, and totals; removals, and their gain.

    A tensor that a layer computes from a parameter (weight_norm, ...) has its computed values and its own name.

    As JSON (`sparsity.json`, `report --json`, `thin --json`) it carries `schema`: the number rises when a key goes, or
    changes its name or its meaning; a new key may join at any time. Accuracies are in percent, sparsities fractions.
    """

    model_config = ConfigDict(frozen=True)

    layout: Literal[1] = Field(default=1, alias="schema")
    tensors: list[WeightSummary]
    others: Others = Others(parameters=0, nonzero=0, sparsity=0.0)
    totals: Totals
    figures: dict[str, dict[str, float]] = {}
    """The last figures of policies, by key: gates that are open, expected L0 ..."""
    earlier_tests: list[EarlierTest] = []
    """Of a run with more epochs than it was planned for: the test images were used before, once each."""
    thinnings: list[Thinning] = []
    lost_classes: list[str] | None = []
    """The classes whose logits do not depend on the image; None where the forward pass cannot be followed."""
    comparison: Comparison | None = None
    latency: Latency | None = None
    """The only part that differs from call to call."""


def compared(
    report: Report, networks: Mapping[str, nn.Module], shape: tuple[int, int, int], *, measures: bool = True
) -> Report:
    """Return the report with the stages of one network (`dense`, `masked`, `thin`); `measures`: with their latency.

    Where the last one has zero rows or columns of weights that thinning leaves, there is one more stage, without them.
    """
    networks = dict(networks)
    last = list(networks.values())[-1]
    images = torch.rand(IMAGES, *shape, generator=torch.Generator().manual_seed(0))
    compaction = thin_and_compact(last, images.to(next(last.parameters()).device))
    if compaction is not None:
        networks["thin, compacted" if compaction.thinned else "compacted"] = compaction.network
    stages = [
        Stage(
            name=name,
            parameters=sum(parameter.numel() for parameter in network.parameters()),
            macs=macs(network, shape)[0],
        )
        for name, network in networks.items()
    ]
    named = {stay for thinning in report.thinnings for stay in thinning.stays}
    comparison = Comparison(
        stages=stages,
        compacted=list(compact_layers(compaction.network)) if compaction else [],
        stays=[one for one in compaction.stays if one not in named] if compaction else [],
        largest_difference=compaction.largest_difference if compaction else None,
    )
    measured = latency(networks, shape) if measures else None
    return report.model_copy(update={"comparison": comparison, "latency": measured})


def measure(
    model: nn.Module,
    shape: tuple[int, int, int],
    test: Mapping[str, float] | None = None,
    thinnings: Sequence[Thinning] = (),
    dense: nn.Module | None = None,
    figures: Mapping[str, dict[str, float]] | None = None,
    train: Mapping[str, float] | None = None,
    classes: Sequence[str] = (),
) -> Report:
    """Return the report of `model` on images of `shape` (C, H, W).

    `test` has its measured top1 and top5 in percent, `train` those of its last training epoch. `dense` is the network
    before channels were removed (only its shapes are used, it may be on the meta device). `classes`: their names.
    """
    values, counted = in_use(model), prunable(model)
    weights = {name: value for name, value in values.items() if value.dim() > 1}
    largest = max(weights.values(), key=lambda weight: weight.numel(), default=None)
    scratch = None if largest is None else largest.detach().new_empty(largest.numel())
    turned = turned_layers(model)
    rows = [
        summarize(name, weight, scratch, prunable=name in counted, layer=turned.get(name))
        for name, weight in weights.items()
    ]
    total_macs, by_weight = macs(model, shape)
    mine = [row for row in rows if row.prunable]
    saved = sum(by_weight[row.name] * (row.weights - row.nonzero) // max(row.weights, 1) for row in mine)
    count, nonzero = sum(row.weights for row in mine), sum(row.nonzero for row in mine)
    parameters, zeros = _parameters(model), sum(row.weights - row.nonzero for row in rows)
    others = _others([value for value in values.values() if value.dim() < 2])
    stored = stored_bits(model.state_dict(keep_vars=True), {n for n, p in model.named_parameters() if p.dim() > 1})
    before = (count, parameters, stored.dense)
    if dense is not None:
        before = (weight_count(dense), _parameters(dense), dense_bits(dense.state_dict(keep_vars=True)))
    totals = Totals(
        weights=count,
        nonzero=nonzero,
        sparsity=1 - nonzero / count if count else 0.0,
        sparsity_all=(zeros + others.parameters - others.nonzero) / parameters if parameters else 0.0,
        parameters=parameters,
        macs=total_macs,
        macs_nonzero=total_macs - saved,
        dense_weights=None if dense is None else before[0],
        stored_bits=stored,
        rates=Rates(
            weights=_rate(before[0], nonzero),
            parameters=_rate(before[1], parameters - zeros),
            bits=_rate(before[2], stored.relative),
        ),
        top1=test.get("top1") if test else None,
        top5=test.get("top5") if test else None,
        train_top1=train.get("top1") if train else None,
    )
    depends = dependent_logits(model, shape)
    return Report(
        tensors=rows,
        others=others,
        totals=totals,
        thinnings=list(thinnings),
        figures=dict(figures or {}),
        lost_classes=None if depends is None else lost_classes(depends, classes),
    )


def _others(tensors: Sequence[Tensor]) -> Others:
    count, nonzero = sum(tensor.numel() for tensor in tensors), sum(map(count_nonzero, tensors))
    return Others(parameters=count, nonzero=nonzero, sparsity=1 - nonzero / count if count else 0.0)


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _rate(before: int, after: int) -> float | None:
    return before / after if after else None


class Sparsities(NamedTuple):
    """The fractions of zeros of a network: of its prunable weights, of all parameters, and of each weight of two or
    more dims. Removed channels count as zeros.
    """

    prunable: float
    everything: float
    by_weight: Mapping[str, float]


def sparsities(model: nn.Module, dense: Mapping[str, Sequence[int]] | None = None) -> Sparsities:
    """Return the fractions of zeros of a network; `dense` has the shapes of its parameters before channels were
    removed.
    """
    values, mine = in_use(model), prunable(model)
    totals = {name: math.prod((dense or {}).get(name, value.shape)) for name, value in values.items()}
    nonzero = {name: count_nonzero(value) for name, value in values.items()}

    def of(names: Collection[str]) -> float:
        total = sum(totals[name] for name in names)
        return 1 - sum(nonzero[name] for name in names) / total if total else 0.0

    by_weight = {
        name: (totals[name] - nonzero[name]) / max(totals[name], 1) for name, value in values.items() if value.dim() > 1
    }
    return Sparsities(of(mine), of(values), by_weight)
