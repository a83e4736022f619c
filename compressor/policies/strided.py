"""Intra-kernel strided pruning by a particle search.

S. Anwar, K. Hwang and W. Sung, "Structured Pruning of Deep Convolutional Neural Networks", ACM JETC 13(3), 2017 (arXiv
1512.08571). In the kernels that read one input map the taps offset, offset + stride, ... stay, in raster order: then
the same rows of the unrolled image (im2col) are not needed, and both matrices of the product are smaller.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from compressor.component import Selects, Targets
from compressor.component import Weights as Selection
from compressor.evaluating import evaluating
from compressor.policies.policy import Context, Finding, Memory, Policy, Prediction, View, refuse
from compressor.sparsity.structures import Taps
from compressor.thinning import CONVOLUTIONS
from compressor.timing import Clock

Stride = Annotated[int, Field(ge=2)]


@dataclass
class Searched(Memory):
    """The results of the search, for the log."""

    figures: dict[str, float] = field(default_factory=dict)


class StridedPolicy(Policy, name="strided"):
    """Prune all but every stride-th tap of each input map's kernels, chosen by a particle search (Anwar 2017).

    A particle is an offset for each input map. Its weight is 1 - the misclassification rate on some training batches,
    of the present network in eval mode. Particles are drawn with replacement in proportion to their weights, and some
    of their offsets are drawn again; the best of all particles is kept, and is the mask from then on. The search runs
    once, when the window opens; the later epochs are the retraining.
    """

    example: ClassVar[str] = """
    version: 2
    policies:
      - strided: {weights: ['conv2.weight'], stride: 2, particles: 20, rounds: 5, batches: 4}
    """

    weights: Selection = Field(
        description="weights of convolutions whose taps are pruned: a name, a glob, re:EXPRESSION, type:CLASS or"
        " '*', or a list of them"
    )
    stride: Annotated[Stride | dict[str, Stride], Selects()] = Field(
        description="one of this many taps stays; one number, or one for each weight"
    )
    particles: int = Field(default=20, ge=1, le=10_000, description="number of candidates in each generation")
    rounds: int = Field(
        default=5, ge=0, le=10_000, description="number of generations after the first, which is random"
    )
    redraw: float = Field(default=0.1, ge=0, le=1, description="probability that an offset is drawn again in a round")
    batches: int = Field(default=4, ge=1, description="number of calibration batches on which candidates are judged")

    def misfits(self, targets: Targets, model: nn.Module) -> list[str]:
        """Return one line for each weight that has no strided taps."""
        names = targets["weights"]
        strays = [name for name in targets.get("stride", {}) if name not in names]
        lines = [f"`stride` names {name}, which is not among `weights`" for name in strays]
        return lines + [f"{name}: {said}" for name in names if (said := self._misfit(targets, model, name))]

    def _misfit(self, targets: Targets, model: nn.Module, name: str) -> str | None:
        layer, shape = model.get_submodule(name.rpartition(".")[0]), model.get_parameter(name).shape
        if isinstance(layer, nn.Linear):
            return "a linear layer has no kernels whose taps could be strided"
        if isinstance(layer, CONVOLUTIONS) and (layer.transposed or layer.groups > 1):
            return "the kernels in one column of a transposed or grouped convolution's weight read different maps"
        if isinstance(self.stride, dict) and name not in targets["stride"]:
            return "`stride` has no value for it"
        return Taps(stride=self._stride(targets, name)).misfit(shape)

    def _stride(self, targets: Targets, name: str) -> int:
        return int(targets["stride"][name]) if isinstance(self.stride, dict) else self.stride

    @property
    def needs_images(self) -> bool:
        return True

    def check(self, view: View) -> list[Finding]:
        found = [Finding("error", line) for line in self.misfits(view.targets, view.model)]
        window = self.window
        if window.step > 1 or len(window.epochs or []) > 1:
            said = f"{view.key}: it prunes once, in {window.unit} {window.first}: that mask stays"
            found.append(Finding("note", said, of_policy=True))
        return found

    def predict(self, view: View, clock: Clock, time: int) -> Prediction:
        if time < self.window.first:
            return Prediction()
        return Prediction(unknown=dict.fromkeys(view.targets["weights"], "a search decides which taps stay"))

    def init(self, ctx: Context) -> Searched:
        refuse(ctx, self.misfits(ctx.targets, ctx.network.model))
        return Searched()

    def on_enter(self, ctx: Context, memory: Searched) -> None:
        owner, names = ctx.key, ctx.targets["weights"]
        cuts = {name: Taps(stride=self._stride(ctx.targets, name)) for name in names}
        shapes = {name: ctx.parameters[name].shape for name in names}
        maps = [shapes[name][1] for name in names]

        def masks(offsets: Tensor) -> dict[str, Tensor]:
            found = {}
            for (name, cut), own in zip(cuts.items(), torch.split(offsets, maps), strict=True):
                found[name] = cut.expand(nn.functional.one_hot(own, cut.stride).bool(), shapes[name])
            return found

        strides = torch.cat([torch.full((count,), cuts[name].stride) for name, count in zip(names, maps, strict=True)])

        def searched() -> tuple[Found, float, int]:
            batches = ctx.data.batches(self.batches)
            with _trial(ctx, names) as put:
                whole = accuracy(ctx.network.model, batches)

                def fitness(offsets: Tensor) -> float:
                    put(masks(offsets))
                    return accuracy(ctx.network.model, batches)

                found = search(fitness, strides, self.particles, self.rounds, self.redraw, _draws(ctx, owner))
            return found, whole, sum(len(labels) for _, labels in batches)

        found, whole, images = ctx.world.decide(searched)
        chosen = masks(found.offsets)
        for name, keep in chosen.items():
            ctx.masks.set(owner, name, keep)
        ctx.masks.apply()
        memory.figures = {
            "unpruned": whole,
            "first_mean": found.first_mean,
            "first_best": found.first_best,
            "chosen": found.best,
            "images": images * (found.evaluated + 1),
            **{f"columns {name}": int(keep[0].sum()) for name, keep in chosen.items()},
        }
        shares = (found.best, found.first_best, whole)
        best, first, unpruned = (f"{100 * share:.2f} %" for share in shares)
        ctx.say(
            f"{owner}: on {images:,} training images the accuracy of the best of {found.evaluated} masks is {best},"
            f" of the best of the first {self.particles} {first}, of the unpruned network {unpruned}"
        )

    def figures(self, ctx: Context, memory: Searched) -> dict[str, float]:
        return dict(memory.figures)

    def settled(self, clock: Clock) -> int:
        return clock.epoch_of(self.window, self.window.first)


@dataclass(frozen=True)
class Found:
    """The best particle, its weight, those of the first generation, and how many different particles were evaluated."""

    offsets: Tensor
    best: float
    first_best: float
    first_mean: float
    evaluated: int


def search(
    fitness: Callable[[Tensor], float],
    strides: Tensor,
    particles: int,
    rounds: int,
    redraw: float,
    draws: torch.Generator,
) -> Found:
    """Return the result of the evolutionary particle filter over offsets 0 <= offset < stride, for each of `strides`.

    From the second generation on the best so far is one of the particles. No particle is evaluated twice.
    """

    def drawn() -> Tensor:
        return (torch.rand(particles, len(strides), generator=draws, dtype=torch.float64) * strides).long()

    known: dict[tuple[int, ...], float] = {}
    first: list[float] = []
    best, highest = torch.zeros_like(strides), -1.0
    generation = drawn()
    for number in range(rounds + 1):
        if number:
            weights = torch.tensor([known[tuple(offsets.tolist())] for offsets in generation], dtype=torch.float64)
            weights = weights if bool(weights.any()) else torch.ones_like(weights)
            parents = torch.multinomial(weights, particles, replacement=True, generator=draws)
            redrawn = torch.rand(particles, len(strides), generator=draws) < redraw
            generation = torch.where(redrawn, drawn(), generation[parents])
            generation[0] = best
        for offsets in generation:
            key = tuple(offsets.tolist())
            if key not in known:
                known[key] = fitness(offsets)
            if known[key] > highest:
                best, highest = offsets.clone(), known[key]
        first = first or [known[tuple(offsets.tolist())] for offsets in generation]
    return Found(best, highest, max(first), sum(first) / len(first), len(known))


@torch.no_grad()
def accuracy(model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Return 1 - the misclassification rate, in eval mode."""
    with evaluating(model):
        right = [(model(images).argmax(1) == labels).sum() for images, labels in batches]
    return int(torch.stack(right).sum()) / sum(len(labels) for _, labels in batches)


@contextmanager
def _trial(ctx: Context, names: Sequence[str]) -> Iterator[Callable[[Mapping[str, Tensor]], None]]:
    """Try masks on the network as it is shipped inside the block; then everything is restored."""
    with ctx.as_shipped():
        whole = {name: ctx.parameters[name].detach().clone() for name in names}

        def put(masks: Mapping[str, Tensor]) -> None:
            for name, keep in masks.items():
                ctx.parameters[name].copy_(whole[name] * keep.to(whole[name].device))

        try:
            yield put
        finally:
            for name, value in whole.items():
                ctx.parameters[name].copy_(value)


def _draws(ctx: Context, owner: str) -> torch.Generator:
    """Return random numbers of this search alone: other draws of the run, and a resumed run, are not affected."""
    key = hashlib.sha256(f"{ctx.seed} {owner} {ctx.clock.global_step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(key[:8], "little"))
