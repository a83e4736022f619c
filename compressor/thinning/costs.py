"""What a network costs after channels are removed: its MACs or its parameters, counted from the widths."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from compressor.importing import random_state_kept
from compressor.sparsity import PRUNABLE
from compressor.thinning.graph import ChannelGraph, Node
from compressor.thinning.removal import spare
from compressor.tracing import macs_by_module

Unit = Literal["macs", "parameters"]
"""What is counted: the multiply-accumulates of one image, or the entries of all parameters."""

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Cost:
    """The cost of a network, as a function of the channels that are removed from it.

    `each` has the cost of one entry of each parameter: the positions at which a weight works, or 1. `rest`: the MACs of
    operations without parameters.
    """

    graph: ChannelGraph
    shapes: Shapes
    """The present shapes of the parameters."""
    each: Mapping[str, int]
    rest: int = 0

    def of(self, shapes: Shapes) -> int:
        """Return the cost with parameters of other shapes, by name; the others have those of now."""
        found = {**self.shapes, **shapes}
        return self.rest + sum(each * math.prod(found[name]) for name, each in self.each.items())

    def without(self, gone: Tensor) -> int:
        """Return the cost when the channels `gone` [cells] are removed."""
        return self.of(self.shapes_without(gone))

    def shapes_without(self, gone: Tensor) -> dict[str, tuple[int, ...]]:
        """Return the shapes that change when the channels `gone` [cells] are removed, by parameter."""
        found: dict[str, tuple[int, ...]] = {}
        for name, lines in self.graph.slices.items():
            if name in self.shapes:
                found[name] = tuple(
                    size if cells is None or len(cells) != size else int(_stays(cells, gone).sum())
                    for size, cells in zip(self.shapes[name], lines, strict=True)
                )
        for node in self.graph.by_path.values():
            if node.kind == "producer" and node.groups > 1 and node.weight in self.shapes and node.into is not None:
                out, into = _stays(node.out, gone), _stays(node.into, gone)
                groups = int((out.reshape(node.groups, -1).any(1) | into.reshape(node.groups, -1).any(1)).sum())
                outs, ins = int(out.sum()), int(into.sum())
                sides = (ins, outs // groups) if node.transposed else (outs, ins // groups)
                found[node.weight] = (*sides, *self.shapes[node.weight][2:])
        return {name: shape for name, shape in found.items() if shape != self.shapes[name]}


def cost_of(unit: Unit, graph: ChannelGraph, model: nn.Module, image: tuple[int, ...]) -> Cost:
    """Return the cost of a model, which may be without storage, on one image (C, H, W)."""
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    if unit == "parameters":
        return Cost(graph, shapes, dict.fromkeys(shapes, 1))
    channels, height, width = image
    with random_state_kept():
        by_module = macs_by_module(model, (channels, height, width))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    each: dict[str, int] = {}
    for path, module in model.named_modules():
        if not isinstance(module, (*PRUNABLE, nn.RNNBase)) or path not in by_module:
            continue
        # Each entry works at the same number of positions, whatever the widths.
        own = _matrices(module)
        positions = by_module[path] // sum(parameter.numel() for parameter in own)
        for parameter in own:
            each[names[id(parameter)]] = each.get(names[id(parameter)], 0) + positions
    return Cost(graph, shapes, each, by_module[""] - sum(each[name] * math.prod(shapes[name]) for name in each))


def _matrices(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters with which a layer multiplies; of a computed weight the one of the weight's shape."""
    every = list(module.parameters())
    if isinstance(module, nn.RNNBase):
        return [parameter for parameter in every if parameter.dim() > 1]
    return [max(every, key=lambda parameter: parameter.numel())]


def removed_with(graph: ChannelGraph, pruned: Mapping[str, Tensor], dim: int) -> Tensor:
    """Return [cells]: the channels that thinning removes when the outputs (dim 0) or inputs (dim 1) `pruned` are 0.

    `pruned`: by weight, true = 0, with all companions of outputs.
    """
    return spare(graph, unused_with(graph, pruned, dim), 1)


def unused_with(graph: ChannelGraph, pruned: Mapping[str, Tensor], dim: int) -> Tensor:
    """Return the same before channels are put back that must stay: one in each layer, as many in each group of a
    convolution.
    """
    read = torch.zeros(max(graph.cells, 1), dtype=torch.bool)
    alive = torch.zeros_like(read)
    for into, reads, zero in _readers(graph, pruned, dim):
        read[into[reads]] = True
        alive[into[reads & ~zero]] = True
    return read & ~alive & ~graph.kept


def _readers(graph: ChannelGraph, pruned: Mapping[str, Tensor], dim: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return for every call that reads channels their cells, with [inputs]: whether it reads one there, and whether it
    can do without.
    """
    if dim == 0:
        return [(_inputs(node), read, zero) for node, read, zero in graph.readers(graph.zeroed(pruned))]
    found = []
    for node in graph.nodes:
        if node.kind == "reader" or (node.kind == "producer" and node.into is not None):
            into, unread = _inputs(node), pruned.get(node.weight)
            if node.kind == "reader" or unread is None or len(unread) != len(into):  # or the inputs of one group
                unread = torch.zeros_like(into, dtype=torch.bool)
            found.append((into, into >= 0, unread.cpu()))
    return found


def _inputs(node: Node) -> Tensor:
    """Return the cells of a call's inputs."""
    return node.out if node.kind == "reader" or node.into is None else node.into


def _stays(cells: Tensor, gone: Tensor) -> Tensor:
    """Return [channels]: whether they stay."""
    return (cells < 0) | ~gone[cells.clamp(min=0)]
