"""Statistics of a network on training images: a number for each output of each weight."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from compressor.context import Context
from compressor.criteria import ActivationCriterion, BatchNorm
from compressor.errors import CompressError, UserError
from compressor.evaluating import evaluating
from compressor.sparsity import Substitution, prunable
from compressor.thinning import following_norms
from compressor.tracing import Place, Watching, at_places, places, trace, watch

Batches = Iterable[tuple[Tensor, Tensor]]
EVERY, KEPT = 10, 0.9
"""The running score uses every tenth step and keeps nine tenths each time (Bartoldson et al., their code)."""


class Sums:
    """Sums over images of a criterion's function of the tensors at a place, by weight and channel."""

    def __init__(self, criterion: ActivationCriterion, processes: int = 1) -> None:
        """`processes`: how many share a batch; each loss is the mean over its own images."""
        self._criterion, self._processes = criterion, processes
        self.totals: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def _add(self, name: str, maps: Tensor, gradient: Tensor | None = None) -> None:
        by_image = self._criterion.summed(maps, gradient)
        total = by_image.double().sum(0)
        self.totals[name] = self.totals[name] + total if name in self.totals else total
        each = maps.shape[2:].numel() if self._criterion.by_position else 1
        self.counts[name] = self.counts.get(name, 0) + len(by_image) * each

    def before(self, name: str, value: Tensor) -> None:
        if not self._criterion.behind_activation:
            self._see(name, value)

    def after(self, name: str, value: Tensor) -> None:
        if self._criterion.behind_activation:
            self._see(name, value)

    def _see(self, name: str, value: Tensor) -> None:
        maps = _maps(value.detach())
        if not self._criterion.with_gradient:
            self._add(name, maps)
            return
        kept = maps.clone()  # the network may go on in place
        value.register_hook(lambda gradient: self._add(name, kept, _maps(gradient) / self._processes))  # type: ignore[no-untyped-call]

    def means(self) -> dict[str, Tensor]:
        """Return the mean over images."""
        return {name: (total / self.counts[name]).cpu() for name, total in self.totals.items()}


def _maps(value: Tensor) -> Tensor:
    """Return [images, channels, one dim or more], in single precision or better."""
    value = value if value.dtype == torch.float64 else value.float()
    return value if value.dim() > 2 else value.unsqueeze(2)


def activations(model: nn.Module, criterion: ActivationCriterion, batches: Batches) -> dict[str, Tensor]:
    """Return the mean over the images of some batches of a criterion's function of every weight's outputs, in eval
    mode.

    The network is not changed. Empty where a weight's outputs are not channels.
    """
    batches = list(batches)
    every = places(trace(model, batches[0][0][:2]))
    found = {name: place for name, place in every.items() if place.channels}
    sums, differentiates = Sums(criterion), criterion.with_gradient
    with torch.set_grad_enabled(differentiates), evaluating(model):
        for images, labels in batches:
            images = images.detach()  # a tensor of its own
            leaf = images.requires_grad_() if differentiates else images
            with at_places(found, sums):
                logits = model(leaf.clone() if differentiates else leaf)
            if differentiates:
                # By the images: no gradient of any weight is touched, and frozen weights are no hindrance.
                loss = nn.functional.cross_entropy(logits.float(), labels, reduction="sum")
                torch.autograd.grad(loss, leaf, allow_unused=True)
    return {**{name: torch.empty(0) for name in every}, **sums.means()}


def gradients(model: nn.Module, batches: Batches) -> dict[str, Tensor]:
    """Return dL/dw of every weight, L the mean loss over the images of some batches; the network is not changed."""
    batches, weights = list(batches), prunable(model)
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    images = sum(len(labels) for _, labels in batches)
    with torch.enable_grad(), evaluating(model), _thawed(weights.values()):
        for inputs, labels in batches:
            loss = nn.functional.cross_entropy(model(inputs).float(), labels, reduction="sum") / images
            found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
            for name, gradient in zip(weights, found, strict=True):
                if gradient is not None:
                    total[name] += gradient
    return total


@contextmanager
def _thawed(weights: Iterable[Tensor]) -> Iterator[None]:
    """Let frozen weights have a gradient inside the block."""
    frozen = [weight for weight in weights if not weight.requires_grad]
    try:
        for weight in frozen:
            weight.requires_grad_()
        yield
    finally:
        for weight in frozen:
            weight.requires_grad_(False)


def batch_norms(ctx: Context, kind: str, name: str) -> list[BatchNorm]:
    """Return the batch norms that read a weight's outputs. Raises `UserError` where there is none."""
    graph = ctx.network.graph()
    if graph is None:
        raise UserError(f"criterion {kind}: which batch norm follows {name} is not known: see the warning above")
    places = following_norms(graph, name)
    if not places:
        raise UserError(f"criterion {kind}: no batch norm follows {name}")
    found = []
    for scale, shift in zip(places[::2], places[1::2], strict=True):
        gamma, beta = (ctx.parameters[own].detach().cpu().double()[entries] for own, entries, _ in (scale, shift))
        found.append(BatchNorm(gamma, beta, scale[2]))
    return found


class HasRunning(Protocol):
    """The memory of a policy that holds running statistics, by weight."""

    running: dict[str, Tensor]


class RunningMeans(Substitution):
    """A running mean of a criterion's sums, taken in training (Bartoldson et al. 2020).

    Every tenth step r <- 0.9 r + 0.1 x, x summed over the batch; it starts with the first x.
    """

    def __init__(self, ctx: Context, memory: HasRunning, criterion: ActivationCriterion) -> None:
        self._ctx, self._memory, self._criterion = ctx, memory, criterion
        self._sums: Sums | None = None
        self._seen: Sums | None = None
        self._places: Mapping[str, Place] | None = None
        watch(ctx.network.model, self._armed)

    def take(self, memory: "HasRunning") -> None:
        """Continue with a saved memory."""
        self._memory = memory

    def _armed(self) -> Watching | None:
        if self._sums is None or not self._ctx.network.model.training or self._places is None:
            return None
        return at_places(self._places, self._sums)

    def before_forward(self) -> None:
        self._seen = None  # of a step that was given up
        if self._ctx.clock.global_step % EVERY:
            return
        if self._places is None:
            every = places(trace(self._ctx.network.model, self._ctx.data.sample()[:2]))
            self._places = {name: place for name, place in every.items() if place.channels}
        self._sums = Sums(self._criterion, self._ctx.world.size)

    def after_backward(self) -> None:
        # Also called after an error, where the other processes are elsewhere: what is seen is summed in `after_step`.
        self._seen, self._sums = self._sums, None
        if self._seen is not None and not self._seen.totals:
            raise CompressError(f"criterion {self._criterion.name} saw no forward pass: set `compile: false`")

    def after_step(self) -> None:
        if self._seen is None:
            return
        seen, self._seen = self._seen.totals, None
        total = self._ctx.world.sum(torch.cat(list(seen.values())))
        now = torch.split(total, [len(value) for value in seen.values()])
        before = self._memory.running
        for name, value in zip(seen, now, strict=True):
            old = before.get(name, value)
            # After a thinning it starts again.
            before[name] = KEPT * old + (1 - KEPT) * value if old.shape == value.shape else value


def finite(values: Tensor, kind: str, name: str) -> Tensor:
    """Return the same values. Raises `CompressError` where a score is not a finite number."""
    if not math.isfinite(float(values.sum())):
        raise CompressError(f"criterion {kind}: the scores of {name} are not finite")
    return values
