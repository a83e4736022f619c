"""The shapes of the weights over a run in which channels are removed, as far as they are known before it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from compressor.context import View, Widths
from compressor.policies.policy import BoundPolicy
from compressor.sparsity.structures import FILTERS
from compressor.thinning import ChannelGraph, couplings, removed_with


def widths(policies: Sequence[BoundPolicy], view: View) -> Widths:
    """Return the shapes at every event of the policies.

    They are known where only whole outputs are pruned before a removal, as many as a schedule says, and all of them can
    be removed.
    """
    removing = [bound for bound in policies if bound.policy.removes_channels != "none"]
    if not removing:
        return Widths()
    graph = view.graph
    by_step = any(bound.policy.window.unit == "step" and not bound.policy.sets_rates for bound in policies)
    if by_step or not isinstance(graph, ChannelGraph):
        return Widths(unknown=True, removes=True)
    return _Simulation(policies, view, graph).run()


class _Simulation:
    """The outputs that are pruned and the channels that are gone, event after event. Which ones does not matter."""

    def __init__(self, policies: Sequence[BoundPolicy], view: View, graph: ChannelGraph) -> None:
        self._policies, self._view, self._graph = policies, view, graph
        self._gone = torch.zeros(max(graph.cells, 1), dtype=torch.bool)
        self._zero: dict[str, Tensor] = {}
        """The pruned outputs of each weight [dense outputs]."""
        self._known = True
        """Whether these are all zeros that there are."""
        self._at: dict[tuple[str, int], Mapping[str, tuple[int, ...]]] = {}
        self._idle: dict[str, list[int]] = {}

    def run(self) -> Widths:
        """Go through the epochs: pruners act at their beginning, removals in their first mini-batch."""
        for epoch in range(self._view.epochs):
            acting = [bound for bound in self._policies if bound.policy.window.fires(epoch)]
            for bound in acting:
                self._at[bound.key, epoch] = self._shapes()
                self._prune(bound, epoch)
            removing = [bound for bound in acting if bound.policy.removes_channels != "none"]
            if removing and self._known and not any(bool(zero.any()) for zero in self._zero.values()):
                for bound in removing:
                    self._idle.setdefault(bound.key, []).append(epoch)
                continue
            if removing and (not self._known or any(one.policy.removes_channels != "zero" for one in removing)):
                return Widths(self._at, unknown=True, removes=True, idle=self._idle)
            if removing:
                self._remove()
        return Widths(self._at, removes=True, idle=self._idle)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the present shapes of the weights whose channels were removed."""
        found: dict[str, list[int]] = {}
        for (name, dim), cells in self._graph.channels.cells.items():
            removed = int(self._gone[cells[cells >= 0]].sum())
            if removed:
                found.setdefault(name, list(self._view.shapes[name]))[dim] -= removed
        return {name: tuple(shape) for name, shape in found.items()}

    def _prune(self, bound: BoundPolicy, epoch: int) -> None:
        shared = {**self._view.shared, "widths": Widths(self._at)}
        counts = bound.policy.pruned_outputs(bound.view(replace(self._view, shared=shared)), epoch)
        channels = self._graph.channels
        names = [name for name, count in (counts or {}).items() if count]
        outputs = {name: channels.cells.get((name, 0)) for name in names}
        grouped = torch.zeros_like(self._gone) if channels.part is None else channels.part >= 0
        if counts is None or couplings(self._graph, names, FILTERS).broken:
            self._known = False
            return
        for name, cells in outputs.items():
            if cells is None or bool((cells < 0).any()) or bool(grouped[cells].any()):
                self._known = False
                return
            zero = self._zero.setdefault(name, torch.zeros(len(cells), dtype=torch.bool))
            left = (~self._gone[cells]).nonzero().flatten()
            zero[left[(~zero[left]).int().argsort(stable=True)][: counts[name]]] = True

    def _remove(self) -> None:
        """Remove the channels that every layer reads as 0."""
        self._gone |= removed_with(self._graph, self._zero, 0)
