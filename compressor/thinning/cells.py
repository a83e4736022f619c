"""From labels to cells: the channel graph of a network whose forms were followed."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from compressor.importing import late
from compressor.sparsity import computed
from compressor.thinning.following import Followed
from compressor.thinning.forms import Forms
from compressor.thinning.graph import ChannelGraph, Node


def graph_of(
    network: Forms, forms: Sequence[Followed], refused: Sequence[tuple[Tensor, str]]
) -> tuple[ChannelGraph, Tensor]:
    """Return the graph, and [labels]: the cell of each label; -1 for those that no layer makes."""
    sparse, graphs = late("scipy.sparse"), late("scipy.sparse.csgraph")
    joins = [join for form in forms for join in form.joins]
    count = 1 + max([network.count, *(int(one.max()) for form in forms for node in form.nodes
                                    for one in (node.out, node.into) if one is not None and len(one))])  # fmt: skip
    first = torch.cat([join.first for join in joins] or [torch.empty(0, dtype=torch.long)])
    second = torch.cat([join.second for join in joins] or [torch.empty(0, dtype=torch.long)])
    edges = sparse.coo_matrix((torch.ones(len(first)).numpy(), (first.numpy(), second.numpy())), (count, count))
    component = torch.from_numpy(graphs.connected_components(edges, directed=False)[1]).long()
    made = torch.zeros(int(component.max()) + 1, dtype=torch.bool)
    order = []
    for form in forms:
        for node in form.nodes:
            if node.kind in ("producer", "depthwise"):
                own = component[node.out[node.out >= 0]]
                made[own] = True
                order.append(own)
    numbers = torch.full((len(made),), -1)
    line = torch.cat(order) if order else torch.empty(0, dtype=torch.long)
    unique, back = torch.unique(line, return_inverse=True)
    places = torch.full((len(unique),), len(line)).scatter_reduce(0, back, torch.arange(len(line)), "amin")
    numbers[unique[places.argsort()]] = torch.arange(len(unique))
    cell_of = numbers[component]

    def cells(labels: Tensor) -> Tensor:
        return cells_at(cell_of, labels)

    keeps: dict[int, str] = {}
    for labels, reason in (*_computed(network, forms), *refused, *_kept(forms)):
        for cell in torch.unique(cells(labels)).tolist():
            if cell >= 0:
                keeps.setdefault(cell, reason)
    for form in forms:
        for reads in form.hard_coded:
            said = f"{reads.place} reads hard-coded positions: without it another channel would stand there"
            for cell in reads.fixed(cells(reads.line)):
                keeps.setdefault(cell, said)
    ties: dict[int, str] = {}
    for form in forms:
        for tie in form.ties:
            ties.update(dict.fromkeys(torch.unique(cells(tie.labels)).tolist(), tie.reason))
    nodes: list[Node] = []
    weights: dict[str, str] = {}
    modules = dict(network.model.named_modules())
    layers: dict[str, nn.Module] = {}
    for number, form in enumerate(forms):
        start = len(nodes)
        for node in form.nodes:
            out = cells(node.out)
            if node.kind not in ("producer", "depthwise", "norm"):
                out = torch.unique(out[out >= 0])
            into = None if node.into is None or node.kind == "depthwise" else cells(node.into)
            inputs = tuple(start + one for one in node.inputs)
            nodes.append(node.replaced(out=out, into=into, inputs=inputs, training=number > 0))
            if node.owned and node.label in modules and node.kind in ("producer", "depthwise", "norm"):
                layers.setdefault(node.label, modules[node.label])
                if node.weight:
                    weights.setdefault(node.label, node.weight)
    slices = {}
    for name, lines in network.slices.items():
        found = tuple(cells(line) for line in lines)
        if any(bool((one >= 0).any()) for one in found):
            slices[name] = tuple(one if bool((one >= 0).any()) else None for one in found)
    return ChannelGraph(tuple(nodes), len(unique), weights, layers, slices, keeps, ties), cell_of


def _kept(forms: Sequence[Followed]) -> Iterator[tuple[Tensor, str]]:
    for form in forms:
        for keep in form.keeps:
            yield keep.labels, keep.reason
        for node in form.nodes:
            if node.kind == "depthwise" and node.into is not None and bool((node.into < 0).all()):
                yield node.out, f"{node.label} reads the image's own channels"


def _computed(network: Forms, forms: Sequence[Followed]) -> Iterator[tuple[Tensor, str]]:
    """Yield the channels of layers that compute their weights: a cut of what they are made of changes them."""
    by_name = {one.name: one for one in computed(network.model) if one.by != "torch.nn.utils.prune"}
    for known in by_name.values():  # where the computation cannot be followed, no layer is known to use the weight
        for labels in (labels for source in known.sources for labels in network.slices.get(source, ())):
            if bool((labels >= 0).any()):
                yield labels[labels >= 0], f"{known.by} computes {known.name}"
    for form in forms:
        for node in form.nodes:
            one = by_name.get(node.weight)
            if one is not None:
                for line in (node.out, node.into):
                    if line is not None and bool((line >= 0).any()):
                        yield line[line >= 0], f"{one.by} computes {one.name}"


def cells_at(cell_of: Tensor, labels: Tensor) -> Tensor:
    """Return the cells of labels; -1 where there is none."""
    known = (labels >= 0) & (labels < len(cell_of))
    return torch.where(known, cell_of[labels.clamp(0, len(cell_of) - 1)], -1)
