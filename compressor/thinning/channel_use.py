"""Which layers read a channel, and which parameters make it."""

from collections.abc import Mapping

import torch
from torch import Tensor

from compressor.thinning.graph import ChannelGraph


def channels_read(graph: ChannelGraph, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return by weight [cells]: the channels for which it has non-zero entries.

    Channels that leave the network, or enter an operation that mixes them with others, are read by that operation,
    under its own name.
    """
    found: dict[str, Tensor] = {}
    for node in graph.nodes:
        read = torch.zeros(max(graph.cells, 1), dtype=torch.bool)
        if node.is_output or node.kind == "mixing":
            read[node.out[node.out >= 0]] = True
            found[f"the output of {node.label}" if node.is_output else node.label] = read
        if node.kind == "producer" and node.into is not None:
            mine = node.into >= 0
            if node.groups == 1 and node.weight in weights:
                weight = weights[node.weight].detach()
                mine = mine & (weight != 0).movedim(node.dims[1], 0).flatten(1).any(1).cpu()
            own = found.setdefault(node.weight or node.label, torch.zeros_like(read))
            own[node.into[mine]] = True
    for cell, reason in graph.keeps.items():
        own = found.setdefault(f"an operation ({reason})", torch.zeros(max(graph.cells, 1), dtype=torch.bool))
        own[cell] = True
    return found


def producers_of(graph: ChannelGraph, cells: Tensor) -> dict[str, Tensor]:
    """Return the filters that make the channels `cells` [cells, true = these], and their companions.

    By parameter, true = of these channels.
    """
    filters: dict[str, Tensor] = {}
    for path, name in graph.weights.items():
        node = graph.by_path.get(path)
        if node is None or node.kind != "producer" or not graph.makes_outputs(node):
            continue
        mine = (node.out >= 0) & cells[node.out.clamp(min=0)]
        if bool(mine.any()):
            filters[name] = mine
    return {**filters, **graph.companions(filters)}


def channels_with_inputs(graph: ChannelGraph) -> dict[str, set[int]]:
    """Return by weight the channels that it has inputs for, whatever its values; the network's output reads its own."""
    found: dict[str, set[int]] = {}
    for node in graph.nodes:
        if node.is_output or node.kind == "mixing":
            found[f"the output of {node.label}"] = set(node.out.tolist()) - {-1}
        if node.kind == "producer" and node.into is not None:
            found.setdefault(node.weight or node.label, set()).update(set(node.into.tolist()) - {-1})
    for cell, reason in graph.keeps.items():
        found.setdefault(f"an operation ({reason})", set()).add(cell)
    return found
