"""The zeros that a pruner will make, as far as they are known before a run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from compressor.context import Prediction, View
from compressor.masking.budgets import budgeted, planned, zeros_of
from compressor.masking.masks import with_coupled_weights
from compressor.pruners import Goal, PrunerBase
from compressor.rates import BudgetGoal
from compressor.reconstruction import pruned_inputs
from compressor.thinning import ChannelGraph
from compressor.timing import Window


def predict_zeros(view: View, pruner: PrunerBase, window: Window, time: int, *, current: bool = False) -> Prediction:
    """Return the zeros that a pruner makes at `time`; those of a threshold or a draw are not known before the run.

    `current`: sparsities refer to the weights as they are then. Removed entries count as zeros of the dense weights.
    """
    names = [name for selected in view.targets.values() for name in selected]
    if (budget := pruner.budget(window, time)) is not None:
        return _of_budget(view, pruner, window, time, budget)
    unknown, shapes = pruner.unknown(view.targets), view.shapes_at(time)
    removes = shapes is None or any(shapes[name] != view.shapes[name] for name in names)
    if current and removes and (shapes is None or pruner.reconstruction is not None):
        return Prediction(unknown=dict.fromkeys(names, AFTER_REMOVALS))
    if pruner.reconstruction is not None:
        goal = pruner.goals(view.targets, window, time)[0]  # the same for all of its weights
        return replace(pruned_inputs(view, names, lambda total: goal.count(goal.sparsity, total)), asked=goal.sparsity)
    asked = shapes if current and shapes is not None else view.shapes
    goals = pruner.goals(view.targets, window, time, asked)
    found = zeros_of_goals(replace(view, shapes=asked), goals)
    if removes and shapes is not None:
        found = _after_removals(view, shapes, found, goals, current)
    return replace(found, unknown={**found.unknown, **unknown})


def _of_budget(view: View, pruner: PrunerBase, window: Window, time: int, budget: BudgetGoal) -> Prediction:
    """Return the zeros that a budget makes, and what it leaves after thinning."""
    names, found = _names(view, pruner), planned(view, pruner, window, time)
    if found is None:
        return Prediction(unknown=dict.fromkeys(names, "which channels can be removed is not known"))
    left = budgeted(budget, found)
    if left.left is None:
        return Prediction(unknown=dict.fromkeys(names, TOGETHER), budget=left)
    if view.shapes_at(window.first) != view.shapes:
        return Prediction(unknown=dict.fromkeys(names, AFTER_REMOVALS), budget=replace(left, left=None, shapes={}))
    return Prediction(
        {(name,): zeros for name, zeros in zeros_of(found, pruner.unit, view.shapes).items()}, budget=left
    )


def _names(view: View, pruner: PrunerBase) -> list[str]:
    """Return the weights that a pruner prunes, as far as they are known."""
    graph = view.graph
    names = list(dict.fromkeys(name for selected in view.targets.values() for name in selected))
    return with_coupled_weights(pruner, names, graph.channels) if isinstance(graph, ChannelGraph) else names


TOGETHER = "channels are ranked together until a budget is met: which ones depends on the weights in the run"
AFTER_REMOVALS = "it depends on the channels that are removed before"


def _after_removals(
    view: View, shapes: Mapping[str, tuple[int, ...]], found: Prediction, goals: Sequence[Goal], current: bool
) -> Prediction:
    """Return a prediction with the zeros of the dense weights, and the sparsity in the other meaning."""
    zeros = dict(found.zeros)
    dense = left = pruned = 0
    for goal in goals:
        if goal.names not in zeros:
            continue
        before, now = (sum(math.prod(of[name]) for name in goal.names) for of in (view.shapes, shapes))
        if current:
            mine = zeros[goal.names]
            zeros[goal.names] += before - now
        else:
            counts = [sum(goal.structure.count(of[name]) for name in goal.names) for of in (view.shapes, shapes)]
            due = goal.count(goal.sparsity, counts[0]) - (counts[0] - counts[1])
            mine = max(due, 0) * goal.structure.size(shapes[goal.names[0]])
        dense, left, pruned = dense + before, left + now, pruned + mine
    if not left:
        return found
    of_dense, of_left = 1 - (left - pruned) / dense, pruned / left
    said = f"of the dense weights, that is {100 * of_left:.2f} % of those left then"
    if current:
        said = f"of the weights left then, that is {100 * of_dense:.2f} % of the dense weights"
    return replace(found, zeros=zeros, otherwise=said)


def predict_outputs(
    view: View, pruner: PrunerBase, window: Window, time: int, *, current: bool
) -> dict[str, int] | None:
    """Return how many of the outputs that each weight has at `time` are pruned then; None where not whole outputs are
    pruned, or their numbers are not known.
    """
    shapes = view.shapes_at(time)
    if shapes is None or pruner.unknown(view.targets) or pruner.reconstruction is not None:
        return None
    found: dict[str, int] = {}
    if pruner.budget(window, time) is not None:
        within = planned(view, pruner, window, time)
        changed = view.shapes_at(window.first) != view.shapes
        if within is None or not within.by_number or changed or pruner.unit.dim != 0:
            return None
        removed = {name: view.shapes[name][0] - shapes[name][0] for name in within.pruned}
        return {name: max(int(pruned.sum()) - removed[name], 0) for name, pruned in within.pruned.items()}
    for goal in pruner.goals(view.targets, window, time, shapes if current else view.shapes):
        if len(goal.names) > 1 or goal.structure.dim != 0:
            return None
        name = goal.names[0]
        dense, now = goal.structure.count(view.shapes[name]), goal.structure.count(shapes[name])
        count = goal.count(goal.sparsity, now if current else dense)
        found[name] = count if current else max(count - (dense - now), 0)
    selected = {name for chosen in view.targets.values() for name in chosen}
    return found if selected <= set(found) else None


def zeros_of_goals(view: View, goals: Sequence[Goal]) -> Prediction:
    """Return the zeros that goals make, and the sparsity that they ask for, weighted by the sizes of the weights.

    Where structures of different sizes are ranked together, the number of zeros depends on which of them are pruned.
    """
    sizes = [sum(math.prod(view.shapes[name]) for name in goal.names) for goal in goals]
    asked = sum(goal.sparsity * size for goal, size in zip(goals, sizes, strict=True)) / max(sum(sizes), 1)
    zeros: dict[tuple[str, ...], int] = {}
    unknown: dict[str, str] = {}
    for goal in goals:
        if len({goal.structure.size(view.shapes[name]) for name in goal.names}) > 1:
            said = f"structures ({goal.structure.name}) of different sizes are ranked together"
            unknown.update(dict.fromkeys(goal.names, said))
        else:
            zeros[goal.names] = goal.zeros(view.shapes)
    return Prediction(zeros, unknown, asked=asked if any(sizes) else None)
