"""The reasons why filters that are all zero stay, in words."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from compressor.thinning.graph import ChannelGraph, Node
from compressor.tracing import LayerInputs

Way = Literal["zero", "unread", "constant"]
"""Why a channel may be removed: it is 0; no layer reads it; it is a constant."""


@dataclass(frozen=True)
class Stay:
    """Zero filters of one weight that stay, and the reason."""

    weight: str
    count: int
    reason: str

    def __str__(self) -> str:
        filters = "1 zero filter stays" if self.count == 1 else f"{self.count} zero filters stay"
        return f"{self.weight}: {filters}: {self.reason}"


class Reasons:
    """The reasons in one network with these layer inputs; `known` has those that a decision gave, by cell."""

    def __init__(
        self,
        graph: ChannelGraph,
        modules: Mapping[str, Any],
        seen: Mapping[str, LayerInputs],
        ways: frozenset[Way],
        known: Mapping[int, str],
    ) -> None:
        self._graph, self._modules, self._seen, self._ways, self._reasons = graph, modules, seen, ways, known

    def stays(self, gone: Tensor, skipped: frozenset[str]) -> list[Stay]:
        """Return the zero filters that stay, by weight and reason; none of layers that are skipped."""
        found: list[Stay] = []
        for node in self._graph.by_path.values():
            if node.label not in self._graph.weights or node.label in skipped:
                continue
            if node.transposed and node.groups > 1:
                continue
            weight = self._modules[node.label].weight.detach()
            dead = (weight == 0).movedim(node.dims[0], 0).flatten(1).all(1).cpu()
            if len(dead) != len(node.out):
                continue
            stays = dead & ((node.out < 0) | ~gone[node.out.clamp(min=0)])
            reasons = Counter(self._reason(int(cell)) for cell in node.out[stays])
            found += [Stay(self._graph.weights[node.label], count, why) for why, count in reasons.items()]
        return found

    def _reason(self, cell: int) -> str:
        if cell < 0:
            return "no layer that follows it could be traced"
        if cell in self._reasons:
            return self._reasons[cell]
        if "zero" not in self._ways:
            return "only channels that no layer reads are removed"
        nodes = self._graph.nodes_with(cell)
        alive = [n for n in nodes if n.kind in ("producer", "depthwise") and n.owned and self._is_nonzero(n, cell)]
        joins = [n.label for n in nodes if n.kind == "operation" and len(n.inputs) > 1]
        if alive and cell in self._graph.ties:
            return f"{self._graph.ties[cell]}, and others of them are not zero"
        if alive and joins:
            return f"{joins[0]} joins them with {alive[0].label}, which is not zero there"
        for node in self._graph.nodes:
            if node.kind == "producer" and node.into is not None and node.label in self._seen:
                constant = self._seen[node.label].constant[node.into == cell]
                if len(constant) and bool((torch.isfinite(constant) & (constant != 0)).any()):
                    if "constant" not in self._ways:
                        return f"they are constant, not 0, where {node.label} reads them: not absorbed in training"
                    return f"they are constant, not 0, and {node.label} cannot absorb that (padding or no bias)"
        norms = [n.label for n in nodes if n.kind == "norm" and n.owned and self._norm_is_nonzero(n, cell)]
        if norms:
            return f"{norms[0]} after them is not zero there"
        readers = [n.label for n in self._graph.nodes if n.into is not None and bool((n.into == cell).any())]
        behind = ", ".join(dict.fromkeys(n.label for n in nodes if n.kind == "operation")) or "nothing"
        return f"{readers[0]} reads them after {behind} and is given more than 0" if readers else f"{behind} mixes them"

    def _norm_is_nonzero(self, node: Node, cell: int) -> bool:
        norm = self._modules[node.label]
        places = (node.out == cell).nonzero().flatten()
        return norm.weight is None or bool(((norm.weight != 0) | (norm.bias != 0)).cpu()[places].any())

    def _is_nonzero(self, node: Node, cell: int) -> bool:
        places = (node.out == cell).nonzero().flatten()
        weight = self._modules[node.label].weight.detach().movedim(node.dims[0], 0)
        return (
            bool(len(places)) and len(weight) == len(node.out) and bool((weight[places.to(weight.device)] != 0).any())
        )
