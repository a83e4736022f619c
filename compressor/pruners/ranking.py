"""Ranking of structures: the smallest go, so many of each layer, or of all layers together."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from compressor.pruners.pruner import Asked
from compressor.sparsity.channels import Channels, Slices
from compressor.sparsity.structures import Structure
from compressor.sparsity.topk import smallest

Rounding = Literal["floor", "ceil", "round"]
Score = Callable[[str], Tensor]
"""From a weight's name to a number for each of its structures."""

Order = Literal["smallest", "largest", "random"]
"""Which structures go first."""

_ROUND: dict[str, Callable[[float], int]] = {"floor": math.floor, "ceil": math.ceil, "round": round}


def structures_to_prune(sparsity: float, total: int, rounding: Rounding = "floor", group_size: int = 1) -> int:
    """How many of `total` structures go: the rounded share, in multiples of `group_size`; one is always spared."""
    share = sparsity * total if group_size == 1 else sparsity * total / group_size
    most = max(total - 1, 0) // group_size * group_size
    return min(_ROUND[rounding](share) * group_size, most)


def preference(score: Tensor, order: Order, gone: Tensor | None = None) -> Tensor:
    """Scores whose smallest go first under an order; before them those that are `gone` already."""
    if order == "largest":
        score = -score
    elif order == "random":
        score = torch.rand(score.shape, dtype=torch.float64).to(score.device)
    return score if gone is None else torch.where(gone.to(score.device), -math.inf, score)


@dataclass(frozen=True)
class _Ranked:
    """Weights whose structures are ranked as one: of one weight its structures, of several the channels they share.

    `score` has a number for each; `part` the group of a grouped convolution that it lies in, where there is one;
    `removed` is how many more there were before some were thinned away.
    """

    names: tuple[str, ...]
    score: Tensor
    removed: int
    cells: Tensor | None = None
    part: Tensor | None = None
    weights: Tensor | None = None
    """How many of the weights have each of the shared channels."""

    @property
    def total(self) -> int:
        return len(self.score) + self.removed

    def gone(self, asked: Asked, structure: Structure, channels: Channels) -> Tensor:
        """True where a structure (of a shared channel: all that is in it) is masked by this policy already."""
        gone = torch.ones(len(self.score), dtype=torch.bool)
        for name in self.names:
            keep = asked.before(name)
            if keep is None:
                return torch.zeros_like(gone)
            masked = (structure.sums(keep.double()) == 0).flatten().cpu()
            if self.cells is None:
                gone &= masked
            else:
                gone &= ~torch.isin(self.cells, channels.cells[name, structure.dim or 0][~masked])
        return gone

    def reordered(self, order: Order, gone: Tensor | None) -> "_Ranked":
        """The same with scores whose smallest go first."""
        return (
            self if order == "smallest" and gone is None else replace(self, score=preference(self.score, order, gone))
        )

    def going(self, count: int) -> Tensor:
        """True at the `count` (with those removed already) smallest scores, as many in each group."""
        count -= self.removed
        if self.part is None:
            return smallest(self.score, min(count, len(self.score) - 1))
        gone = torch.zeros(len(self.score), dtype=torch.bool)
        groups = sorted(set(self.part.tolist()))
        for group in groups:
            mine = self.part == group
            gone[mine] = smallest(self.score[mine], min(count // len(groups), int(mine.sum()) - 1))
        return gone

    def spared(self, gone: Tensor, channels: Channels, dim: int) -> Tensor:
        """`gone`, but for the best structure of each weight that would lose all of them."""
        if self.cells is None:
            return gone
        gone = gone.clone()
        for name in self.names:
            mine = torch.isin(self.cells, channels.cells[name, dim])
            if bool(mine.any()) and bool((gone | ~mine).all()):
                gone[int(torch.where(mine, self.score, -math.inf).argmax())] = False
        return gone

    def masks(self, gone: Tensor, asked: Asked, structure: Structure, channels: Channels) -> dict[str, Tensor]:
        """Keep-masks of the weights, where `gone` says which structures (or shared channels) go."""
        found = {}
        for name in self.names:
            weight = asked.weights[name]
            index = gone
            if self.cells is not None:
                index = torch.isin(channels.cells[name, structure.dim or 0], self.cells[gone])
            index = index.reshape(structure.index_shape(weight.shape)).to(weight.device)
            found[name] = structure.expand(~index, weight.shape)
        return found


def keep_best(
    asked: Asked,
    names: Sequence[str],
    structure: Structure,
    score: Score,
    going: Callable[[int], int],
    *,
    leader: bool = False,
    order: Order = "smallest",
    final: bool = False,
) -> dict[str, Tensor]:
    """Masks in which of each weight the structures of smallest score are gone: `going(how many there were)` of them.

    Weights that share channels are ranked as one, by the sum of their scores; with `leader` by those of the first.
    Channels of a grouped convolution are ranked within its groups, so that the groups stay of equal size. With another
    `order` others go first; with `final` what went stays away.
    """
    channels = Channels() if structure.dim is None else asked.channels()
    masks: dict[str, Tensor] = {}
    for scored in _sets(asked, names, structure, score, channels, leader=leader):
        ranked = scored.reordered(order, scored.gone(asked, structure, channels) if final else None)
        gone = ranked.spared(ranked.going(going(ranked.total)), channels, structure.dim or 0)
        mine = ranked.masks(gone, asked, structure, channels)
        masks.update(mine)
        if ranked.cells is not None:
            for name, keep in mine.items():
                asked.promise([name], int((~keep).sum()) + asked.removed(name))
    return masks


def keep_best_of_all(
    asked: Asked,
    names: Sequence[str],
    structure: Structure,
    score: Score,
    going: Callable[[int], int],
    *,
    order: Order = "smallest",
    final: bool = False,
) -> dict[str, Tensor]:
    """Masks in which the structures of smallest score over all the weights are gone; each weight keeps its best one.

    Weights that share channels are ranked as one, by the mean of their scores.
    """
    channels = Channels() if structure.dim is None else asked.channels()
    sets = []
    for ranked in _sets(asked, names, structure, score, channels):
        mean = ranked if ranked.weights is None else replace(ranked, score=ranked.score / ranked.weights)
        sets.append(mean.reordered(order, mean.gone(asked, structure, channels) if final else None))
    whole = {0, 1} <= set(structure.members)  # layers: all but one of them may go
    every = torch.cat([ranked.score for ranked in sets])
    free = torch.ones(len(every), dtype=torch.bool)
    end = 0
    for ranked in sets if not whole else []:
        end += len(ranked.score)
        free[end - 1 - int(ranked.score.flip(0).argmax())] = False
    count = going(sum(ranked.total for ranked in sets)) - sum(ranked.removed for ranked in sets)
    gone = torch.zeros_like(free)
    gone[free] = smallest(every[free], min(count, int(free.sum()) - whole))
    masks: dict[str, Tensor] = {}
    for ranked, mine in zip(sets, torch.split(gone, [len(ranked.score) for ranked in sets]), strict=True):
        mine = ranked.spared(mine, channels, structure.dim or 0)
        masks.update(ranked.masks(mine, asked, structure, channels))
    if any(ranked.cells is not None for ranked in sets):
        asked.promise(names, sum(int((~keep).sum()) + asked.removed(name) for name, keep in masks.items()))
    return masks


def _sets(
    asked: Asked, names: Sequence[str], structure: Structure, score: Score, channels: Channels, *, leader: bool = False
) -> list[_Ranked]:
    dim = structure.dim
    sets: list[list[Slices]] = [[(name, -1)] for name in names]
    if dim is not None:
        sets = channels.joined([(name, dim) for name in names])
    return [_ranked(asked, together, structure, score, channels, leader) for together in sets]


def _ranked(
    asked: Asked, together: list[Slices], structure: Structure, score: Score, channels: Channels, leader: bool
) -> _Ranked:
    names = tuple(name for name, _ in together)
    shape = asked.weights[names[0]].shape
    removed = structure.count(asked.dense.get(names[0], shape)) - structure.count(shape)
    cells = [channels.cells[slices] for slices in together if slices in channels.cells]
    ranking = cells[:1] if leader else cells
    every = torch.tensor(sorted({number for cell in ranking for number in cell.tolist()} - {-1}), dtype=torch.long)
    part = channels.part[every] if channels.part is not None and len(every) else None
    part = None if part is None or bool((part < 0).any()) else part
    # Columns of one flattened channel are structures of their own; outputs that share a channel are one.
    apart = structure.dim != 0 or not cells or len(set(cells[0].tolist())) == len(cells[0])
    if len(names) == 1 and part is None and apart:
        return _Ranked(names, score(names[0]).flatten().cpu().double(), removed)
    total = torch.zeros(int(every.max()) + 1, dtype=torch.float64)
    count = torch.zeros_like(total)
    for name, cell in zip(names, ranking, strict=False):
        mine = cell >= 0
        total.index_add_(0, cell[mine], score(name).flatten().cpu().double()[mine])
        count[sorted(set(cell[mine].tolist()))] += 1
    # A flattened channel is many columns: what was removed is counted in channels, as what is ranked.
    columns = len(cells[0]) // max(len(set(cells[0].tolist()) - {-1}), 1)
    return _Ranked(names, total[every], removed // max(columns, 1), every, part, count[every])
