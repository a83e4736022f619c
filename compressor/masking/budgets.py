"""Budgets: what is left of a network after thinning, before a run and in it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from compressor.context import Budgeted, Context, Finding, View
from compressor.errors import listed
from compressor.masking.masks import cost, pruned_weights, with_coupled_weights
from compressor.pruners import PartsPruner, PrunerBase, Request, Within, within_budget
from compressor.rates import BudgetGoal
from compressor.sparsity.structures import Structure
from compressor.thinning import ChannelGraph, cost_of, couplings, removed_with
from compressor.timing import Window


def check_budget(view: View, pruner: PrunerBase, masks: bool) -> list[Finding]:
    """Return the findings of a pruner with a budget: whether it can be met. `masks`: whether what it chooses is
    pruned.
    """
    goal = pruner.budget(view.window, view.window.last)
    if goal is None:
        return []
    if view.version == 1:
        return [Finding("error", f"`rate: {goal.unit}` needs `version: 2`", "rate")]
    if not masks:
        return [Finding("error", f"`rate: {goal.unit}` is what is left after thinning: nothing is pruned here", "rate")]
    if view.image is None:
        return []  # said of the channels already; checked again when the images are known
    if not isinstance(view.graph, ChannelGraph):
        said = (
            f"{view.key}: `rate: {goal.unit}` is what is left after thinning, and nothing can be thinned: {view.graph}"
        )
        return [Finding("error", said, "rate")]
    found = planned(view, pruner, view.window, view.window.last)
    assert found is not None
    if found.least <= found.most:
        return []
    said = f"{view.key}: {goal} cannot be reached"
    names = with_coupled_weights(pruner, list(pruner.cuts(view.targets)), view.graph.channels)
    kept = "; ".join(f"{listed(these)}: {why}" for why, these in _kept(view.graph, names, pruner.unit).items())
    if not found.chosen:
        said += f": none of its channels can be removed ({kept}): select other weights"
        return [Finding("error", said, "rate")]
    least = math.ceil(1000 * found.least / found.dense) / 1000
    least_network = (
        f"with one channel in each of its layers{f', and all that cannot be removed ({kept}),' if kept else ''}"
        f" {found.least:,} of {found.dense:,} are left"
    )
    first = view.window.first
    if any(one.unit == view.window.unit and one.first < first for one in view.removals):
        said = f"{view.key}: {goal} needs channels that are removed before ({view.window.unit} {first})"
        return [Finding("warning", f"{said}: of the dense network {least_network}", "rate")]
    said += f": {least_network}. The smallest budget is `{goal.unit}: {least:g}`; or prune more layers"
    return [Finding("error", said, "rate")]


def _kept(graph: ChannelGraph, names: Sequence[str], structure: Structure) -> dict[str, list[str]]:
    """Return the weights of which channels cannot be removed, by the reason."""
    reasons = dict(couplings(graph, names, structure).broken)
    found: dict[str, list[str]] = {}
    for name in names:
        cells = graph.channels.cells.get((name, structure.dim or 0))
        never = [] if cells is None else [graph.keeps[cell] for cell in cells.tolist() if cell in graph.keeps]
        why = "its inputs are the network's" if cells is None else next(iter(never), reasons.get(name))
        if why is not None:
            found.setdefault(why, []).append(name)
    return found


def planned(view: View, pruner: PrunerBase, window: Window, time: int) -> Within | None:
    """Return what a pruner with a budget prunes of the dense network at `time`, as far as that is known: with all
    scores equal. None without a budget, or where the channels are not known.
    """
    goal, graph = pruner.budget(window, time), view.graph
    if goal is None or not isinstance(graph, ChannelGraph) or not isinstance(pruner, PartsPruner):
        return None

    def find(goal: BudgetGoal = goal, graph: ChannelGraph = graph) -> Within:
        assert view.image is not None
        costs = view.once(f"cost {goal.unit}", lambda: cost_of(goal.unit, graph, view.model, view.image or ()))
        nothing = {name: torch.zeros(()).expand(shape) for name, shape in view.shapes.items()}
        request = Request(nothing, view.targets, window, time, channels=lambda: graph.channels, cost=lambda unit: costs)
        [part] = pruner.parts(view.targets)
        return within_budget(request, replace(part, criterion=None, order="smallest"), goal)

    found: Within = view.once(f"budget {view.key} {goal}", find)
    return found


def budgeted(goal: BudgetGoal, found: Within) -> Budgeted:
    """Return what a plan says of a budget."""
    if not found.by_number:
        return Budgeted(goal.unit, goal.left, found.most, found.dense)
    shapes = {name: shape for name, shape in found.shapes.items() if len(shape) > 1}
    return Budgeted(goal.unit, goal.left, found.most, found.dense, found.left, shapes)


def zeros_of(found: Within, structure: Structure, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Return the number of zeros that a budget makes in each weight."""
    return {name: int(pruned.sum()) * structure.size(shapes[name]) for name, pruned in found.pruned.items()}


def left_of(ctx: Context, pruner: PrunerBase, goal: BudgetGoal) -> tuple[int, int, int]:
    """Return the cost of the network without the channels that are zero now in a pruner's weights, that of the dense
    network, and the largest within the budget.
    """
    costs, structure = cost(ctx, goal.unit), pruner.unit
    zero = {
        name: (structure.largest(ctx.network.outputs_first(name, ctx.parameters[name].detach()).abs()) == 0)
        .flatten()
        .cpu()
        for name in pruned_weights(ctx, pruner)
    }
    dense = costs.of({name: shape for name, shape in ctx.network.dense.items() if name in costs.shapes})
    return costs.without(removed_with(costs.graph, zero, structure.dim or 0)), dense, goal.most(dense)
