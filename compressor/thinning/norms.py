"""The batch norms that follow a weight's outputs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from compressor.thinning.graph import ChannelGraph


def following_norms(graph: ChannelGraph, name: str) -> list[tuple[str, Tensor, Tensor]]:
    """Return the batch norms that follow a weight's outputs and are followed by no other one before a layer mixes
    channels.

    (parameter, its entries, the output that each belongs to), for gamma and beta of each.
    """
    starts = _starts(graph, name)
    if not starts:  # the forward pass does not use it
        return []
    own = graph.nodes[starts[0]].out
    place_of = {int(cell): place for place, cell in enumerate(own.tolist()) if cell >= 0}
    behind = _behind(graph, starts, graph.cells_of[starts[0]])
    norms = [number for number in behind if graph.nodes[number].kind == "norm"]
    last = [n for n in norms if not any(m != n for m in _behind(graph, [n], graph.cells_of[starts[0]]) if m in norms)]
    found: dict[str, tuple[str, Tensor, Tensor]] = {}
    for number in last:
        node = graph.nodes[number]
        places = torch.tensor([p for p, cell in enumerate(node.out.tolist()) if cell in place_of], dtype=torch.long)
        outputs = torch.tensor([place_of[int(node.out[p])] for p in places], dtype=torch.long)
        if len(node.companions) < 2:
            return []
        for one in node.companions[:2]:
            found.setdefault(one, (one, places, outputs))
    return list(found.values())


def _starts(graph: ChannelGraph, name: str) -> list[int]:
    """Return the calls of layers with a weight."""
    return [number for number in graph.calls_of.get(name, ()) if graph.nodes[number].owned]


def _behind(graph: ChannelGraph, starts: Sequence[int], cells: Tensor) -> list[int]:
    """Return the nodes that some cells reach from some nodes before a layer mixes channels."""
    stack, found = list(starts), dict[int, None]()
    while stack:
        for number in graph.readers_of[stack.pop()]:
            node = graph.nodes[number]
            if number in found or node.kind in ("producer", "mixing", "reader"):
                continue
            if bool(torch.isin(graph.cells_of[number], cells).any()):
                found[number] = None
                stack.append(number)
    return sorted(found)


def read_before_norm(graph: ChannelGraph, name: str) -> str | None:
    """Return which layer reads a weight's outputs before a batch norm where others read them after one; None: no
    layer.
    """
    if not following_norms(graph, name):
        return None
    stack, seen = _starts(graph, name), set[int]()
    for number in stack:
        if graph.nodes[number].is_output:
            return graph.nodes[number].label
    while stack:
        for number in graph.readers_of[stack.pop()]:
            node = graph.nodes[number]
            if node.kind == "producer" or node.is_output:
                return node.label
            if node.kind != "norm" and number not in seen:
                seen.add(number)
                stack.append(number)
    return None
