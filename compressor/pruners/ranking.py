"""From parts to masks: which structures stay."""

import math
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from compressor.allocation import Global, Layer, Uniform
from compressor.pruners.part import Order, Part, PartGoal
from compressor.pruners.pruner import Goal, Request
from compressor.rates import Budget, BudgetGoal, ConstantRate, SparsityGoal, State, ThresholdGoal, least_sparsity
from compressor.sparsity import Channels, Slices, compare, copied, new, new_like, smallest
from compressor.sparsity.structures import Structure
from compressor.thinning import ChannelGraph, removed_with, unused_with


def masks_of_parts(request: Request, parts: Iterable[Part]) -> dict[str, Tensor]:
    """Return boolean masks by weight name, true = stays."""
    masks: dict[str, Tensor] = {}
    for part in parts:
        names = request.channels().with_coupled(part.names, part.structure.dim or 0) if part.extends else part.names
        state = State(names, request.weights, request.before, request.memory, part.together, request.stream)
        goal = part.rate.goal(request.window, request.time, state)
        masks.update(
            _above(request, part, names, goal)
            if isinstance(goal, ThresholdGoal)
            else _ranked(request, part, names, goal)
        )
    return masks


def keep_largest(request: Request, goal: Goal) -> dict[str, Tensor]:
    """Return the masks that reach a goal over single weights: the smallest |w| of all weights together are pruned."""
    allocation = Uniform() if len(goal.names) == 1 else Global()
    return masks_of_parts(request, [Part(goal.names, ConstantRate(sparsity=goal.sparsity), allocation=allocation)])


def _above(request: Request, part: Part, names: Sequence[str], goal: ThresholdGoal) -> dict[str, Tensor]:
    """Return masks that keep the values above a threshold."""
    structure = part.structure
    stay = {name: compare(part.score(request, name), operator.gt, goal.of[name]) for name in names}
    return {name: structure.expand(index, request.weights[name].shape) for name, index in stay.items()}


def _ranked(request: Request, part: Part, names: Sequence[str], goal: SparsityGoal | BudgetGoal) -> dict[str, Tensor]:
    """Return masks that prune the structures of smallest score: in each layer as many as `allocation` says.

    Weights that share channels are ranked as one. Channels of a grouped convolution are ranked within its groups, so
    that the groups stay of equal size, except where all layers are ranked together.
    """
    structure, allocation = part.structure, part.allocation
    channels = Channels() if structure.dim is None else request.channels()
    if part.rate.by_itself:  # what was removed counts for nothing, and the groups of a convolution need not be equal
        request, channels = replace(request, dense={}), replace(channels, part=None)
    if isinstance(goal, BudgetGoal):
        within = _within(request, part, names, goal)
        channels, chosen = within.channels, iter(within.chosen)
    else:
        chosen = _chosen(request, part, _sets(part, names, channels), channels, PartGoal(part, goal))
    masks: dict[str, Tensor] = {}
    joint = False
    for one, going in chosen:
        pruned = one.spared(going, channels, structure.dim or 0)
        mine = one.masks(pruned, request, structure, channels)
        masks.update(mine)
        if one.cells is not None:
            joint = True
            for name, keep in mine.items():
                request.record_zeros([name], int((~keep).sum()) + request.removed(name))
    if joint and not isinstance(allocation, Uniform):
        request.record_zeros(names, sum(int((~keep).sum()) + request.removed(name) for name, keep in masks.items()))
    return masks


def _sets(part: Part, names: Sequence[str], channels: Channels) -> list[list[Slices]]:
    """Return the weights in sets that are ranked as one."""
    if part.structure.dim is None:
        return [[(name, -1)] for name in names]
    return channels.joined([(name, part.structure.dim) for name in names])


@dataclass(frozen=True)
class Within:
    """What a budget leaves. `chosen`: true at the structures that are pruned, for weights that are ranked as one.

    `left`: the cost after thinning, which should be at most `most`; the dense network costs `dense`, and with one
    channel in each layer it would be `least`.
    """

    chosen: Sequence[tuple["_Ranked", Tensor]]
    channels: Channels
    """Those that can be removed."""
    pruned: Mapping[str, Tensor]
    """The pruned structures by weight [structures]."""
    gone: Tensor
    """[cells]: the channels that thinning removes."""
    left: int
    most: int
    dense: int
    least: int
    by_number: bool
    """Whether `left` depends on the numbers of channels alone, not on which of them are pruned."""
    shapes: Mapping[str, tuple[int, ...]]
    """The shapes of the parameters that are smaller after thinning."""


def within_budget(request: Request, part: Part, goal: BudgetGoal) -> Within:
    """Return what a part prunes under a budget."""
    names = request.channels().with_coupled(part.names, part.structure.dim or 0) if part.extends else part.names
    return _within(request, part, names, goal)


def _within(request: Request, part: Part, names: Sequence[str], goal: BudgetGoal) -> Within:
    """Return the structures of smallest score that are pruned so that the thinned network is within a budget: at the
    smallest sparsity, as `allocation` shares it.

    Only channels that can be removed are ranked, those of a flattened map as a whole; those that other policies have
    masked go, too. Where a budget cannot be met, one
    channel is left in each layer.
    """
    if request.cost is None:
        raise TypeError("a budget needs the network's costs")
    cost, dim = request.cost(goal.unit), part.structure.dim or 0
    channels = _removable(request.channels(), cost.graph, [name for name in names if name in request.weights], dim)
    sets = [together for together in _sets(part, names, channels) if _has_cells(together, channels)]
    every = [_rank(request, part, together, channels) for together in sets]
    others = replace(request, before=request.others)
    masked = [_masked_already(others, part, one.names, one.cells, channels) for one in every]

    def pruned_at(sparsity: SparsityGoal) -> tuple[list[Tensor], dict[str, Tensor], Tensor]:
        chosen = _allocated(part, every, PartGoal(part, sparsity))
        for place, one in enumerate(every):  # one ranking of all layers knows no groups, and thinning needs equal ones
            if one.group is not None and part.allocation.needs_scores:
                chosen[place] = one.pruned(int(chosen[place].sum()) + one.layer.removed, part.spare)
        chosen = [going if gone is None else going | gone for going, gone in zip(chosen, masked, strict=True)]
        pruned: dict[str, Tensor] = {}
        for one, going in zip(every, chosen, strict=True):
            spared = one.spared(going, channels, dim)
            pruned |= {name: one.of(name, spared, channels, dim) for name in one.names}
        return chosen, pruned, removed_with(cost.graph, pruned, dim)

    dense = cost.of({name: shape for name, shape in request.dense.items() if name in cost.shapes})
    most = goal.most(dense)
    counts = [one.layer.count for one in every]
    totals = set(counts) if isinstance(part.allocation, Uniform) else {sum(counts)}
    found = least_sparsity(totals, lambda sparsity: cost.without(pruned_at(sparsity)[-1]) <= most)
    chosen, pruned, gone = pruned_at(found)
    least = cost.without(pruned_at(SparsityGoal(1.0))[-1])
    pairs, shapes = list(zip(every, chosen, strict=True)), cost.shapes_without(gone)
    by_number = (len(every) == 1 or not part.allocation.needs_scores) and _alike(every, cost.graph)
    return Within(pairs, channels, pruned, gone, cost.of(shapes), most, dense, least, by_number, shapes)


def _alike(every: Sequence["_Ranked"], graph: ChannelGraph) -> bool:
    """Return whether the channels that are ranked together are used alike: each layer has all of them, or none."""
    owner = torch.full((max(graph.cells, 1),), -1, dtype=torch.long)
    for number, one in enumerate(every):
        assert one.cells is not None
        owner[one.cells] = number
    mine = owner >= 0
    for node in graph.nodes:
        for side in (node.out, node.into):
            if side is None or not every:
                continue
            uses = torch.bincount(side[side >= 0], minlength=len(owner))[mine]
            least, most = (
                torch.zeros(len(every), dtype=torch.long).scatter_reduce(0, owner[mine], uses, how, include_self=False)
                for how in ("amin", "amax")
            )
            if not torch.equal(least, most):
                return False
    return True


def _removable(channels: Channels, graph: ChannelGraph, names: Sequence[str], dim: int) -> Channels:
    """Return the channels that can be removed when the named weights are pruned; the others are none (-1)."""
    every = {
        name: torch.ones_like(channels.cells[name, dim], dtype=torch.bool)
        for name in names
        if (name, dim) in channels.cells
    }
    free = unused_with(graph, every, dim)
    cells = {one: torch.where((mine >= 0) & free[mine.clamp(min=0)], mine, -1) for one, mine in channels.cells.items()}
    return replace(channels, cells=cells)


def _has_cells(together: Sequence[Slices], channels: Channels) -> bool:
    """Return whether there are channels among these entries."""
    return all(one in channels.cells and bool((channels.cells[one] >= 0).any()) for one in together)


def _chosen(
    request: Request, part: Part, sets: Sequence[Sequence[Slices]], channels: Channels, due: PartGoal
) -> Iterator[tuple["_Ranked", Tensor]]:
    """Yield the weights that are ranked as one, with true at the structures that the allocation prunes."""
    ranked, allocation = (_rank(request, part, together, channels) for together in sets), part.allocation
    if part.structure.single and not allocation.needs_scores:
        names = [name for ((name, _),) in sets]
        layers = [_layer(request, part, (name,), _removed(request, part, name)) for name in names]
        # The scores of one weight after the other: together they would take as much memory as the weights.
        for one, count in zip(ranked, allocation.counts(layers, due), strict=True):
            yield one, one.pruned(count, part.spare)
        return
    every = list(ranked)
    yield from zip(every, _allocated(part, every, due), strict=True)


def _allocated(part: Part, every: Sequence["_Ranked"], due: PartGoal) -> list[Tensor]:
    """Return true at the structures that the allocation prunes, for all weights that are ranked as one."""
    if not every:
        return []  # no channel can be removed
    allocation = part.allocation
    layers, scores = [one.layer for one in every], [one.score for one in every] if allocation.needs_scores else None
    chosen = None if scores is None else allocation.chosen(layers, due, scores)
    if chosen is not None:
        return chosen
    counts = allocation.counts(layers, due, scores)
    return [one.pruned(count, part.spare) for one, count in zip(every, counts, strict=True)]


@dataclass(frozen=True)
class _Ranked:
    """Weights whose structures are ranked as one: the structures of one weight, or the channels that several share.

    `score` has a number for each, the smallest are pruned first; `group` is its group of a grouped convolution, if any;
    `layer.removed` is the number of structures that were thinned away.
    """

    names: tuple[str, ...]
    score: Tensor
    layer: Layer
    cells: Tensor | None = None
    group: Tensor | None = None

    def pruned(self, count: int, spare: int) -> Tensor:
        """Return true at the `count` (including those removed already) smallest scores, the same number in each
        group.
        """
        count -= self.layer.removed
        if self.group is None:
            return smallest(self.score, min(count, len(self.score) - spare))
        pruned = torch.zeros(len(self.score), dtype=torch.bool)
        groups = sorted(set(self.group.tolist()))
        for group in groups:
            mine = self.group == group
            pruned[mine] = smallest(self.score[mine], min(count // len(groups), int(mine.sum()) - spare))
        return pruned

    def spared(self, pruned: Tensor, channels: Channels, dim: int) -> Tensor:
        """Return `pruned` without the best structure of each weight that would lose all of them."""
        if self.cells is None:
            return pruned
        pruned = pruned.clone()
        for name in self.names:
            mine = torch.isin(self.cells, channels.cells[name, dim])
            if bool(mine.any()) and bool((pruned | ~mine).all()):
                pruned[int(torch.where(mine, self.score, -math.inf).argmax())] = False
        return pruned

    def masks(self, pruned: Tensor, request: Request, structure: Structure, channels: Channels) -> dict[str, Tensor]:
        """Return masks of the weights, where `pruned` has true at structures (or shared channels) that are pruned."""
        found = {}
        for name in self.names:
            weight = request.weights[name]
            index = self.of(name, pruned, channels, structure.dim or 0)
            index = index.reshape(structure.index_shape(weight.shape)).to(weight.device)
            found[name] = structure.expand(index.logical_not_(), weight.shape)
        return found

    def of(self, name: str, pruned: Tensor, channels: Channels, dim: int) -> Tensor:
        """Return true at the pruned structures of one weight."""
        return pruned if self.cells is None else torch.isin(channels.cells[name, dim], self.cells[pruned])


def _rank(request: Request, part: Part, together: Sequence[Slices], channels: Channels) -> _Ranked:
    """Return the scores of weights that are ranked as one."""
    structure, names = part.structure, tuple(name for name, _ in together)
    removed = _removed(request, part, names[0])
    found = [channels.cells[slices] for slices in together if slices in channels.cells]
    ranking = found[:1] if part.leader else found
    every = torch.tensor(sorted({number for cell in ranking for number in cell.tolist()} - {-1}), dtype=torch.long)
    group = channels.part[every] if channels.part is not None and len(every) else None
    group = None if group is None or bool((group < 0).any()) else group
    # Columns of one flattened channel are structures of their own; outputs that share a channel are one.
    apart = structure.dim != 0 or not found or len(set(found[0].tolist())) == len(found[0])
    if len(names) == 1 and group is None and apart and not isinstance(part.rate, Budget):
        score = part.score(request, names[0]).flatten()
        score = _drawn(request, part, score if structure.single else score.cpu().double())
        score = _ordered(
            request, score, part.order, _masked_already(request, part, names, None, channels) if part.final else None
        )
        return _Ranked(names, score, _layer(request, part, names, removed))
    total = torch.zeros(len(every), dtype=torch.float64)
    count = torch.zeros_like(total)
    for name, cell in zip(names, ranking, strict=False):
        mine = cell >= 0
        places = torch.searchsorted(every, cell[mine])
        total.index_add_(0, places, part.score(request, name).flatten().cpu().double()[mine])
        count[places.unique()] += 1  # type: ignore[no-untyped-call]
    # A flattened channel is many columns: what was removed is counted in channels, as what is ranked.
    columns = len(found[0]) // max(len(set(found[0].tolist()) - {-1}), 1)
    score = total / count if part.allocation.needs_scores else total
    score = _drawn(request, part, score)
    score = _ordered(
        request, score, part.order, _masked_already(request, part, names, every, channels) if part.final else None
    )
    layer = _layer(request, part, names, removed // max(columns, 1), len(every))
    return _Ranked(names, score, layer, every, group)


def _removed(request: Request, part: Part, name: str) -> int:
    """Return how many structures of a weight were thinned away."""
    shape = request.weights[name].shape
    return part.structure.count(request.dense.get(name, shape)) - part.structure.count(shape)


def _layer(request: Request, part: Part, names: Sequence[str], removed: int, left: int | None = None) -> Layer:
    """Return the layer of weights that are ranked as one, for an allocation; `left`: the structures that they have
    now.
    """
    shapes = [tuple(request.dense.get(name, request.weights[name].shape)) for name in names]
    left = part.structure.count(request.weights[names[0]].shape) if left is None else left
    size = sum(part.structure.size(shape) for shape in shapes)
    return Layer(names[0], shapes[0], left + removed, size, removed, part.spare, request.types.get(names[0], ""))


def _masked_already(
    request: Request, part: Part, names: Sequence[str], cells: Tensor | None, channels: Channels
) -> Tensor | None:
    """Return true where a structure (of a shared channel: all of it) is masked before; None where none is."""
    gone: Tensor | None = None
    for name in names:
        keep = request.before(name)
        if keep is None:
            return None
        if part.structure.single:
            masked = ~keep.flatten()
        else:
            masked = (part.structure.sums(keep.double()) == 0).flatten().cpu()
        if cells is not None:
            masked = ~torch.isin(cells, channels.cells[name, part.structure.dim or 0][~masked])
        gone = masked if gone is None else gone & masked
    return gone


def _drawn(request: Request, part: Part, score: Tensor) -> Tensor:
    """Return random scores in place of `score` with the probability `part.at_random`; what is 0 is pruned first."""
    if not part.at_random or float(torch.rand((), generator=request.stream)) >= part.at_random:
        return score
    drawn = torch.randn(score.shape, dtype=torch.float64, generator=request.stream).to(score.device)
    return torch.where(score == 0, -math.inf, drawn)


def _ordered(request: Request, score: Tensor, order: Order, gone: Tensor | None) -> Tensor:
    """Return scores whose smallest are pruned first under an order; before them those that are `gone` already."""
    if order == "largest":
        score = torch.neg(score, out=new_like(score))
    elif order == "random":
        drawn = torch.rand(score.shape, out=new(score.shape, torch.float64), generator=request.stream)
        score = drawn.to(score.device)
    return score if gone is None else copied(score).masked_fill_(gone.to(score.device), -math.inf)
