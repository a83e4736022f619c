"""The reasons why filters and channels that are all zero stay, in words."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from compressor.errors import listed
from compressor.sparsity import PRUNABLE, count_nonzero, in_use, outputs_first
from compressor.thinning.graph import ChannelGraph, Node
from compressor.tracing import LayerInputs

Way = Literal["zero", "unread", "constant"]
"""Why a channel may be removed: it is 0; no layer reads it; it is a constant."""


@dataclass(frozen=True)
class Stay:
    """Zero filters (or input channels) of one weight that stay, and the reason."""

    weight: str
    count: int
    reason: str
    structure: Literal["filter", "channel"] = "filter"

    def __str__(self) -> str:
        one = self.count == 1
        return f"{self.weight}: {self.count} zero {self.structure}{' stays' if one else 's stay'}: {self.reason}"


NOTHING_REMOVED = "nothing was removed, though filters or channels are all zero"


def nothing_removed(stays: Sequence[Stay]) -> str:
    """Return in words that nothing was removed although filters or channels are all zero, and why, by weight."""
    return f"{NOTHING_REMOVED}:" + "".join(f"\n  {stay}" for stay in stays)


def nothing_zero(network: nn.Module) -> str:
    """Return in words that there is nothing to remove, with the number of zeros that are scattered."""
    weights = [weight for weight in in_use(network).values() if weight.dim() > 1]
    total = sum(weight.numel() for weight in weights)
    zeros = total - sum(count_nonzero(weight) for weight in weights)
    return f"nothing to remove: no filter and no channel is all zero ({zeros:,} of {total:,} weights are zero)"


def read_by(names: Sequence[str]) -> str:
    """Return in words that other weights read the same channels."""
    return f"{listed(names)} {'reads' if len(names) == 1 else 'read'} the same channels"


def made_by(names: Sequence[str], joins: Sequence[str]) -> str:
    """Return in words that other weights make the same channels, which these operations join."""
    how = f"joined by {joins[0]}" if joins else "joined"
    return f"{listed(names)} {'makes' if len(names) == 1 else 'make'} the same channels ({how})"


class Reasons:
    """The reasons in one network with these layer inputs; `known` has those that a decision gave, by cell.

    `absorbers`: the layers that can absorb a constant input.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        modules: Mapping[str, Any],
        seen: Mapping[str, LayerInputs],
        ways: frozenset[Way],
        known: Mapping[int, str],
        absorbers: Collection[str],
    ) -> None:
        self._graph, self._modules, self._seen, self._ways, self._reasons = graph, modules, seen, ways, known
        self._absorbers = absorbers
        self._found: dict[int, str] = {}

    def stays(self, gone: Tensor, skipped: frozenset[str]) -> list[Stay]:
        """Return the zero filters and channels that stay, by weight and reason; none of layers that are skipped."""
        found: list[Stay] = []
        for node in self._graph.by_path.values():
            if node.label not in self._graph.weights or node.label in skipped:
                continue
            dead = (self._by_outputs(node) == 0).flatten(1).all(1).cpu()
            if len(dead) != len(node.out):
                continue
            stays = dead & ((node.out < 0) | ~gone[node.out.clamp(min=0)])
            reasons = Counter(self._reason(int(cell)) for cell in node.out[stays])
            found += [Stay(self._graph.weights[node.label], count, why) for why, count in reasons.items()]
        return [*found, *self._channels(gone, skipped), *self._others(gone)]

    def _channels(self, gone: Tensor, skipped: frozenset[str]) -> Iterator[Stay]:
        """Yield the zero channels that stay, of layers that have others: those without any are their zero filters."""
        for path, name in self._graph.weights.items():
            module = self._modules.get(path)
            cells = self._graph.channels.cells.get((name, 1))
            if module is None or cells is None or path in skipped:
                continue
            read = _is_nonzero_for(module)
            if len(read) != len(cells) or not bool(read.any()):
                continue
            unread = set(cells[~read].tolist()) - set(cells[read].tolist()) - {-1}  # a flattened map has several
            reasons = Counter(self._channel_reason(cell, name) for cell in sorted(unread) if not bool(gone[cell]))
            for why, count in reasons.items():
                yield Stay(name, count, why, "channel")

    def _channel_reason(self, cell: int, name: str) -> str:
        if cell in self._reasons:
            return self._reasons[cell]
        if "unread" not in self._ways:
            return "only channels that are 0 are removed here (StructureRemover also removes those that no layer reads)"
        others = [other for other in self._readers.get(cell, ()) if other != name]
        if not others:
            return self._reason(cell)
        return read_by(others)

    @cached_property
    def _readers(self) -> dict[int, list[str]]:
        """Return the weights that are not zero for a channel, by cell."""
        found: dict[int, dict[str, None]] = {}
        for node in self._graph.nodes:
            if node.kind != "producer" or node.into is None:
                continue
            mine, module = node.into >= 0, self._modules.get(node.label)
            if node.label in self._graph.weights and getattr(module, "groups", 1) == 1:
                mine = mine & _is_nonzero_along(module, node.dims[1])
            for cell in set(node.into[mine].tolist()):
                found.setdefault(cell, {})[node.weight or node.label] = None
        return {cell: list(names) for cell, names in found.items()}

    def _others(self, gone: Tensor) -> Iterator[Stay]:
        """Yield the zero filters that stay of weights that no layer of the trace has as its own."""
        used = {node.weight: node for node in self._graph.nodes}
        for path, module in self._modules.items():
            weight = module._parameters.get("weight") if isinstance(module, PRUNABLE) else None
            if path in self._graph.weights or weight is None or weight.is_meta:
                continue
            name = f"{path}.weight" if path else "weight"
            zero = (outputs_first(weight.detach(), module) == 0).flatten(1).all(1).cpu()
            reasons = Counter({"the layer is not in the trace of the forward pass": int(zero.sum())})
            if name in used and len(used[name].out) == len(zero):
                cells = used[name].out[zero & ((used[name].out < 0) | ~gone[used[name].out.clamp(min=0)])]
                reasons = Counter(map(self._reason, cells.tolist()))
            for why, count in reasons.items():
                if count:
                    yield Stay(name, count, why)

    def _reason(self, cell: int) -> str:
        if cell not in self._found:  # several layers share it
            self._found[cell] = self._find_reason(cell)
        return self._found[cell]

    def _find_reason(self, cell: int) -> str:
        if cell < 0:
            return "no layer that follows it could be traced"
        if cell in self._reasons:
            return self._reasons[cell]
        if "zero" not in self._ways:
            return "only channels that no layer reads are removed here (StructureRemover also removes those that are 0)"
        nodes = self._graph.nodes_with(cell)
        alive = [n for n in nodes if n.kind in ("producer", "depthwise") and n.owned and self._is_nonzero(n, cell)]
        joins = [n.label for n in nodes if n.kind == "operation" and len(n.inputs) > 1]
        if alive and cell in self._graph.ties:
            return f"{self._graph.ties[cell]}, and others of them are not zero"
        if alive and joins:
            names = list(dict.fromkeys(node.weight for node in alive))
            return f"{made_by(names, joins)}, and {'is' if len(names) == 1 else 'are'} not zero there"
        reading = self._graph.readers_with(cell)
        for node in reading:
            constant = self._constant(node, cell)
            if len(constant) and bool((torch.isfinite(constant) & (constant != 0)).any()):
                made = self._shifted(nodes, cell)
                by = f" after {listed(made)}" if made else ""
                if "constant" not in self._ways:
                    return f"they are constant, not 0{by}, where {node.label} reads them: not absorbed in training"
                if node.label not in self._absorbers:
                    return f"they are constant, not 0{by}, and {node.label} cannot absorb that (padding or no bias)"
        norms = [n.label for n in nodes if n.kind == "norm" and n.owned and self._norm_is_nonzero(n, cell)]
        if norms:
            return f"{norms[0]} after them is not zero there"
        readers = [n.label for n in reading if self._is_given_more(n, cell)]
        behind = ", ".join(dict.fromkeys(n.label for n in nodes if n.kind == "operation")) or "nothing"
        readers = list(dict.fromkeys(readers))
        verb = "reads" if len(readers) == 1 else "read"
        return f"{listed(readers)} {verb} them after {behind} and not as 0" if readers else f"{behind} mixes them"

    def _shifted(self, nodes: Sequence[Node], cell: int) -> list[str]:
        """Return the operations and norms that a channel passes and that are not 0 where it is."""
        found = [
            node.label
            for node in nodes
            if (node.kind == "operation" and node.zero == "never")
            or (node.kind == "norm" and (not node.companions or (node.owned and self._norm_is_nonzero(node, cell))))
        ]
        return list(dict.fromkeys(found))

    def _constant(self, node: Node, cell: int) -> Tensor:
        """Return the constants that a layer reads at a cell; NaN: no constant."""
        seen = self._seen.get(node.weight)
        if seen is None or node.into is None or node.kind != "producer" or len(seen.constant) != len(node.into):
            return torch.empty(0)
        return seen.constant[node.into == cell]

    def _is_given_more(self, node: Node, cell: int) -> bool:
        """Return whether a layer is given more than 0, or than a constant that it absorbs, at some inputs of a cell."""
        if node.into is None:
            return False
        here, seen = node.into == cell, self._seen.get(node.weight)
        if seen is None or len(seen.zero) != len(here):
            return True
        harmless = seen.zero[here]
        if "constant" in self._ways and node.label in self._absorbers:
            harmless = harmless | torch.isfinite(seen.constant[here])
        return not bool(harmless.all())

    def _norm_is_nonzero(self, node: Node, cell: int) -> bool:
        norm = self._modules[node.label]
        places = (node.out == cell).nonzero().flatten()
        return norm.weight is None or bool(((norm.weight != 0) | (norm.bias != 0)).cpu()[places].any())

    def _is_nonzero(self, node: Node, cell: int) -> bool:
        places = (node.out == cell).nonzero().flatten()
        weight = self._by_outputs(node)
        return (
            bool(len(places)) and len(weight) == len(node.out) and bool((weight[places.to(weight.device)] != 0).any())
        )

    def _by_outputs(self, node: Node) -> Tensor:
        """Return the weight of a layer with its outputs first."""
        weight: Tensor = self._modules[node.label].weight.detach()
        if node.groups == 1 or not node.transposed:
            return weight.movedim(node.dims[0], 0)
        return outputs_first(weight, self._modules[node.label])


def _is_nonzero_for(module: Any) -> Tensor:
    """Return [inputs]: whether a layer's weight is not zero for an input channel."""
    weight = outputs_first(module.weight.detach() != 0, module)
    return weight.transpose(0, 1).flatten(1).any(1).cpu()


def _is_nonzero_along(module: Any, dim: int) -> Tensor:
    weight: Tensor = module.weight.detach() != 0
    return weight.movedim(dim, 0).flatten(1).any(1).cpu()
