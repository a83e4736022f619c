"""The channels that selected weights share with other weights."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.sparsity.structures import FILTERS, Structure
from compressor.thinning.graph import ChannelGraph
from compressor.thinning.stays import made_by, read_by


@dataclass(frozen=True)
class Couplings:
    """The couplings of selected weights. `joint`: those that share channels and are ranked as one.

    `broken`: (weight, reason) where the channels of a selected weight cannot be removed.
    """

    joint: tuple[tuple[str, ...], ...]
    broken: tuple[tuple[str, str], ...]


def couplings(graph: ChannelGraph, names: Sequence[str], structure: Structure) -> Couplings:
    """Return how the named weights, of which whole outputs (or inputs) are pruned, are coupled with the network."""
    dim = structure.dim
    if dim is None:
        return Couplings((), ())
    channels = graph.channels
    listed = [name for name in names if (name, dim) in channels.cells]
    sets = channels.joined([(name, dim) for name in listed])
    joint = tuple(tuple(name for name, _ in members) for members in sets if len(members) > 1)
    final = _final(graph) if dim == 0 else set[str]()
    chosen = frozenset(listed)
    alive = graph.kept | (_alive_without(graph, listed) if dim == 0 else _read_by_others(graph, chosen))
    broken = []
    for name in listed:
        mine = channels.cells[name, dim]
        mine = mine[mine >= 0]
        if name in final or not bool(alive[mine].any()):
            continue
        broken.append((name, _keeper(graph, int(mine[alive[mine]][0]), chosen, dim)))
    return Couplings(joint, tuple(broken))


def _final(graph: ChannelGraph) -> set[str]:
    """Return the weights whose outputs no layer reads: they make the network's outputs."""
    leads = [False] * len(graph.nodes)
    for number in reversed(range(len(graph.nodes))):
        readers = [graph.nodes[reader] for reader in graph.readers_of[number]]
        leads[number] = any(
            one.kind in ("producer", "depthwise", "mixing") or (one.kind == "reader" and one.zero == "any")
            for one in readers
        ) or any(leads[reader] for reader in graph.readers_of[number])
    reading = {node.weight for number, node in enumerate(graph.nodes) if leads[number]}
    return {node.weight for node in graph.nodes if node.kind == "producer"} - reading


def _alive_without(graph: ChannelGraph, names: Sequence[str]) -> Tensor:
    """Return [cells]: outputs of the named weights that a layer still reads as not 0 when all of them are 0."""
    outputs = {name: graph.channels.cells[name, 0] for name in names}
    dead = graph.zeroed({name: torch.ones(len(cells), dtype=torch.bool) for name, cells in outputs.items()})
    alive = torch.zeros(max(graph.cells, 1), dtype=torch.bool)
    for node, read, zero in graph.readers(dead):
        assert node.into is not None
        alive[node.into[read & ~zero]] = True
    return alive


def _read_by_others(graph: ChannelGraph, names: Collection[str]) -> Tensor:
    """Return [cells]: those that a layer reads whose weight is not among the named ones."""
    alive = torch.zeros(max(graph.cells, 1), dtype=torch.bool)
    for node in graph.nodes:
        if node.kind == "producer" and node.into is not None and node.weight not in names:
            alive[node.into[node.into >= 0]] = True
    return alive


def _keeper(graph: ChannelGraph, cell: int, names: Collection[str], dim: int) -> str:
    """Return the reason why a channel cannot be removed, in words."""
    if cell in graph.keeps:
        return graph.keeps[cell]
    through = graph.nodes_with(cell)
    if dim == 1:
        others = list(dict.fromkeys(n.weight for n in graph.readers_with(cell) if n.weight not in names))
        return read_by(others)
    own = {node.weight: node.dims for node in graph.by_path.values()}
    makers = [n for n in through if n.kind == "producer" and (n.weight not in names or n.dims != own.get(n.weight))]
    others = list(dict.fromkeys(n.weight for n in makers))
    joins = [n.label for n in through if n.kind == "operation" and len(n.inputs) > 1]
    if others:
        return made_by(others, joins)
    never = [n.label for n in through if n.kind == "operation" and n.zero == "never"]
    sums = [n.label for n in through if n.kind == "reader" and not n.inputs]
    if sums and not never:
        return f"{sums[0]} adds over weights that are not 0 there"
    what = never[0] if never else "an operation after it"
    return f"{what} is not 0 where its input is 0"


def removable(graph: ChannelGraph, names: Sequence[str], kept: Collection[str] = ()) -> list[str]:
    """Return those of the named weights whose outputs can be removed, where all outputs that share channels with them
    are pruned with them: the largest such set, in the given order.

    `kept`: weights that are not pruned, nor what shares channels with them.
    """
    channels = graph.channels
    sets = channels.joined([slices for slices in channels.cells if slices[1] == 0])
    every, stays = frozenset(names), set(kept)
    chosen = {name for members in sets for name, _ in members if all(one in every for one, _ in members)}
    while True:
        chosen -= {name for members in sets for name, _ in members if any(one in stays for one, _ in members)}
        stays = {name for name, _ in couplings(graph, sorted(chosen), FILTERS).broken}
        if not stays:
            break
    return [name for name in names if name in chosen]
