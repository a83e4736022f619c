"""What a network does on training images, as a number for each output of each weight."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import CompressError, UserError
from compressor.evaluating import evaluating
from compressor.policies.activations import Looking, Place, places, watch
from compressor.policies.policy import Context, Memory
from compressor.sparsity.normal import expected_relu
from compressor.sparsity.substitution import Substitution
from compressor.sparsity.weights import prunable

Batches = Iterable[tuple[Tensor, Tensor]]
EVERY, KEPT = 10, 0.9
"""The running score looks at every tenth step and forgets a tenth each time (Bartoldson et al., their code)."""


class Sums:
    """Sums over images of what `kind` makes of the tensors at a place, by weight and channel."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.totals: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def _add(self, name: str, by_image: Tensor, positions: int = 1) -> None:
        total = by_image.double().sum(0).cpu()
        self.totals[name] = self.totals[name] + total if name in self.totals else total
        self.counts[name] = self.counts.get(name, 0) + len(by_image) * positions

    def before(self, name: str, value: Tensor) -> None:
        if self._kind == "feature_map":
            self._add(name, _maps(value.detach()).abs().sum(2))

    def after(self, name: str, value: Tensor) -> None:
        maps = _maps(value.detach())
        if self._kind == "apoz":
            self._add(name, (maps == 0).sum(2), maps.shape[2])  # counted: equal numbers of zeros are equal scores
        elif self._kind == "mean_activation":
            self._add(name, maps.mean(2))
        elif self._kind == "taylor":
            kept = maps.clone()  # the network may go on in place

            def seen(gradient: Tensor) -> None:
                self._add(name, (kept * _maps(gradient)).mean(2).abs())

            value.register_hook(seen)  # type: ignore[no-untyped-call]

    def means(self) -> dict[str, Tensor]:
        """The mean over images."""
        return {name: total / self.counts[name] for name, total in self.totals.items()}


def _maps(value: Tensor) -> Tensor:
    """(images, channels, positions), in single precision or better."""
    value = value if value.dtype == torch.float64 else value.float()
    return value.flatten(2) if value.dim() > 2 else value.unsqueeze(2)


def gather(model: nn.Module, kind: str, batches: Batches) -> dict[str, Tensor]:
    """A statistic of every weight's outputs over some batches, in eval mode; the network stays as it is.

    `apoz`: the mean share of zeros behind the activation; `mean_activation`: the mean there; `feature_map`: the mean
    over images of sum |x| before it; `taylor`: the mean over images of |mean over positions of a dL/da|; empty where a
    weight's outputs are no channels. `gradient` is dL/dw in each weight's own shape.
    """
    batches = list(batches)
    if kind == "gradient":
        return _gradients(model, batches)
    every = places(model, batches[0][0][:2])
    found = {name: place for name, place in every.items() if place.channels}
    sums = Sums(kind)
    with torch.set_grad_enabled(kind == "taylor"), evaluating(model):
        for images, labels in batches:
            images = images.detach()  # a tensor of its own
            leaf = images.requires_grad_() if kind == "taylor" else images
            with Looking(found, sums):
                logits = model(leaf.clone() if kind == "taylor" else leaf)
            if kind == "taylor":
                # By the images: no gradient of any weight is touched, and frozen weights are no hindrance.
                loss = nn.functional.cross_entropy(logits.float(), labels, reduction="sum")
                torch.autograd.grad(loss, leaf, allow_unused=True)
    return {**{name: torch.empty(0) for name in every}, **sums.means()}


def _gradients(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    weights = prunable(model)
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    images = sum(len(labels) for _, labels in batches)
    with torch.enable_grad(), evaluating(model), _thawed(weights.values()):
        for inputs, labels in batches:
            loss = nn.functional.cross_entropy(model(inputs).float(), labels, reduction="sum") / images
            gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
            for name, gradient in zip(weights, gradients, strict=True):
                if gradient is not None:
                    total[name] += gradient
    return total


@contextmanager
def _thawed(weights: Iterable[Tensor]) -> Iterator[None]:
    """Frozen weights have a gradient, too."""
    frozen = [weight for weight in weights if not weight.requires_grad]
    try:
        for weight in frozen:
            weight.requires_grad_()
        yield
    finally:
        for weight in frozen:
            weight.requires_grad_(False)


def of_batch_norms(ctx: Context, kind: str, name: str) -> Tensor:
    """`bn_scale`: |gamma|; `expected_activation`: E relu(N(beta, gamma^2)); of the batch norm behind a weight.

    Summed where several read its outputs. Raises `UserError` where there is none.
    """
    graph = ctx.graph()
    if graph is None:
        raise UserError(f"criterion {kind}: which batch norm stands behind {name} is not known: see the warning above")
    places = graph.last_norms(name)
    if not places:
        raise UserError(f"criterion {kind}: no batch norm stands behind {name}")
    score = torch.zeros(len(ctx.parameters[name]), dtype=torch.float64)
    for scale, shift in zip(places[::2], places[1::2], strict=True):
        gamma, beta = (ctx.parameters[own].detach().cpu().double()[entries] for own, entries, _ in (scale, shift))
        score.index_add_(0, scale[2], gamma.abs() if kind == "bn_scale" else expected_relu(beta, gamma.abs()))
    return score


class Running(Substitution):
    """A running mean of sum |x| before each weight's activation, taken in training (Bartoldson et al. 2020).

    Every tenth step r <- 0.9 r + 0.1 x, x summed over the batch; it begins at the first x.
    """

    def __init__(self, ctx: Context, memory: Memory) -> None:
        self._ctx, self._memory = ctx, memory
        self._sums: Sums | None = None
        self._places: Mapping[str, Place] | None = None
        watch(ctx.model, self._armed)

    def take(self, memory: Memory) -> None:
        """Go on with a saved memory."""
        self._memory = memory

    def _armed(self) -> Looking | None:
        if self._sums is None or not self._ctx.model.training or self._places is None:
            return None
        return Looking(self._places, self._sums)

    def before_forward(self) -> None:
        if self._ctx.global_step % EVERY:
            return
        if self._places is None:
            every = places(self._ctx.model, self._ctx.sample()[:2])
            self._places = {name: place for name, place in every.items() if place.channels}
        self._sums = Sums("feature_map")

    def after_backward(self) -> None:
        if self._sums is None:
            return
        now, self._sums = self._sums.totals, None
        if not now:
            raise CompressError("criterion running_feature_map saw no forward pass: it cannot look into a compiled one")
        before: dict[str, Any] = self._memory.setdefault("running", {})
        for name, value in now.items():
            old = before.get(name, value)
            # After a thinning it begins anew.
            before[name] = KEPT * old + (1 - KEPT) * value if old.shape == value.shape else value


def finite(values: Tensor, kind: str, name: str) -> Tensor:
    """The same; raises `CompressError` where a score is no number."""
    if not math.isfinite(float(values.sum())):
        raise CompressError(f"criterion {kind}: the scores of {name} are not finite")
    return values
