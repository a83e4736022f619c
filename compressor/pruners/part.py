"""One way to prune some weights: all that decides which of their structures stay."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from compressor.allocation import Allocation, Layer, Uniform
from compressor.criteria import Criterion, L1Norm
from compressor.pruners.pruner import Goal, Request, Shapes
from compressor.rates import Rate, SparsityGoal
from compressor.sparsity import Rounding, pruned_count, structures_to_prune
from compressor.sparsity.structures import ELEMENTS, Structure
from compressor.timing import Window

Order = Literal["smallest", "largest", "random"]
"""Which structures are pruned first."""

L1, UNIFORM = L1Norm(), Uniform()


@dataclass(frozen=True)
class Part:
    """Weights that are pruned in one way. `rate`: how much; the structures of smallest score are pruned.

    Weights that share channels are ranked as one, by the sum of their scores; with `leader` by those of the first.
    `extends`: all weights that share channels with `names` are pruned with them. `noise`: each score is multiplied by 1
    + noise * N(0, 1). `at_random`: the probability that a ranking is drawn at random instead. `together`: the weights
    of which a threshold takes one deviation.
    """

    names: Sequence[str]
    rate: Rate
    criterion: Criterion | None = L1
    """None where `order` is random."""
    structure: Structure = ELEMENTS
    allocation: Allocation = UNIFORM
    order: Order = "smallest"
    rounding: Rounding = "floor"
    group_size: int = 1
    noise: float = 0.0
    at_random: float = 0.0
    leader: bool = False
    extends: bool = False
    together: Sequence[str] = ()

    @property
    def final(self) -> bool:
        """Return whether pruned structures stay pruned."""
        return self.rate.final or self.order != "smallest"

    @property
    def spare(self) -> int:
        """Return how many structures of each weight stay in any case."""
        return 0 if self.structure.single or self.structure.whole else 1

    def count(self, goal: SparsityGoal, total: int) -> int:
        """Return how many of `total` structures are pruned."""
        if goal.count is not None:
            return min(goal.count(total), total if self.structure.single else max(total - 1, 0))
        if self.structure.single:
            return pruned_count(goal.sparsity, total)
        return structures_to_prune(goal.sparsity, total, self.rounding, self.group_size)

    def score(self, request: Request, name: str) -> Tensor:
        """Return a score for each structure of a weight, in `index_shape`; the smallest are pruned."""
        weight = request.weights[name]
        if self.criterion is None:
            return torch.zeros(self.structure.index_shape(weight.shape))
        found = self.criterion.score(request.look(self.criterion), name, self.structure)
        if self.noise:
            normal = torch.randn(found.shape, dtype=found.dtype, generator=request.stream).to(found.device)
            noisy = found * (1 + self.noise * normal)
            found = torch.where(found == 0, -math.inf, noisy)  # what is gone goes first, whatever the noise
        if self.allocation.needs_scores and self.criterion is not None:
            found = self.criterion.comparable(found, self.structure, weight.shape)
        return found

    def goals(self, window: Window, time: int, shapes: Shapes | None) -> list[Goal]:
        """Return the sparsities that are reached at least at `time`."""
        goal = self.rate.foresee(window, time)
        if goal is None:
            return []
        names, due = tuple(self.names), PartGoal(self, goal)
        if isinstance(self.allocation, Uniform):
            return [Goal((name,), goal.sparsity, self.structure, due.of) for name in names]
        if self.allocation.needs_scores or shapes is None:
            return [Goal(names, goal.sparsity, self.structure, due.of)]
        layers = [
            Layer(name, tuple(shape), self.structure.count(shape), self.structure.size(shape), spare=self.spare)
            for name, shape in ((name, shapes[name]) for name in names)
        ]
        counts = self.allocation.counts(layers, due)
        return [
            Goal((layer.name,), count / max(layer.count, 1), self.structure, FixedCount(count).of)
            for layer, count in zip(layers, counts, strict=True)
        ]


@dataclass(frozen=True)
class PartGoal:
    """The goal of a part over all its weights."""

    part: Part
    goal: SparsityGoal

    @property
    def sparsity(self) -> float:
        """Return the fraction of the structures that is pruned."""
        return self.goal.sparsity

    def count(self, total: int) -> int:
        """Return how many of `total` structures are pruned."""
        return self.part.count(self.goal, total)

    def of(self, sparsity: float, total: int) -> int:
        """Return the same, in the form that a `Goal` needs."""
        return self.count(total)


@dataclass(frozen=True)
class FixedCount:
    """A known number of structures."""

    number: int

    def of(self, sparsity: float, total: int) -> int:
        """Return the number."""
        return self.number
