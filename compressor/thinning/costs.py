"""What a network costs after channels are removed: its MACs or its parameters, counted from the widths."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from compressor.importing import random_state_kept
from compressor.thinning.graph import ChannelGraph, Node
from compressor.thinning.layers import new_widths, shapes_of
from compressor.tracing import macs

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
        for path, node in self.graph.by_path.items():
            if node.kind not in ("producer", "depthwise", "norm", "prelu"):
                continue
            module = self.graph.modules[path]
            out = _stays(node.out, gone)
            into = out if node.into is None else _stays(node.into, gone)
            if bool(out.all()) and bool(into.all()):
                continue
            inputs, outputs = int(into.sum()), int(out.sum())
            groups = outputs
            if node.kind == "producer":
                groups = int(out.reshape(getattr(module, "groups", 1), -1).any(1).sum())
            sizes = new_widths(module, inputs, outputs, groups)
            changed = {f"{path}.{name}" if path else name: shape for name, shape in shapes_of(module, sizes).items()}
            found |= {name: shape for name, shape in changed.items() if name in self.shapes}
        return found


def cost_of(unit: Unit, graph: ChannelGraph, model: nn.Module, image: tuple[int, ...]) -> Cost:
    """Return the cost of a model, which may be without storage, on one image (C, H, W)."""
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    if unit == "parameters":
        return Cost(graph, shapes, dict.fromkeys(shapes, 1))
    channels, height, width = image
    with random_state_kept():
        total, by_weight = macs(model, (channels, height, width))
    # Each entry of a weight works at the same number of positions, whatever the widths.
    each = {name: found // math.prod(shapes[name]) for name, found in by_weight.items() if name in shapes}
    return Cost(graph, shapes, each, total - sum(each[name] * math.prod(shapes[name]) for name in each))


def removed_with(graph: ChannelGraph, pruned: Mapping[str, Tensor], dim: int) -> Tensor:
    """Return [cells]: the channels that thinning removes when the outputs (dim 0) or inputs (dim 1) `pruned` are 0.

    `pruned`: by weight, true = 0, with all companions of outputs.
    """
    return _balanced(graph, unused_with(graph, pruned, dim))


def unused_with(graph: ChannelGraph, pruned: Mapping[str, Tensor], dim: int) -> Tensor:
    """Return the same before channels are put back that must stay: one in each layer, as many in each group of a
    convolution.
    """
    read = torch.zeros(max(graph.cells, 1), dtype=torch.bool)
    alive = torch.zeros_like(read)
    for node, reads, zero in _readers(graph, pruned, dim):
        assert node.into is not None
        read[node.into[reads]] = True
        alive[node.into[reads & ~zero]] = True
    for node in graph.nodes:
        if node.is_output or node.kind == "mixing":
            alive[node.out[node.out >= 0]] = True
    return read & ~alive


def _readers(graph: ChannelGraph, pruned: Mapping[str, Tensor], dim: int) -> list[tuple[Node, Tensor, Tensor]]:
    """Return every producer with [inputs]: whether it reads a cell there, and whether it can do without."""
    if dim == 0:
        return list(graph.readers(graph.zeroed(pruned)))
    found = []
    for node in graph.nodes:
        if node.kind == "producer" and node.into is not None:
            unread = pruned.get(graph.weights[node.label])
            fits = unread is not None and len(unread) == len(node.into)  # not the inputs of one group
            zero = unread.cpu() if unread is not None and fits else torch.zeros_like(node.into, dtype=torch.bool)
            found.append((node, node.into >= 0, zero))
    return found


def _stays(cells: Tensor, gone: Tensor) -> Tensor:
    """Return [channels]: whether they stay."""
    return (cells < 0) | ~gone[cells.clamp(min=0)]


def _balanced(graph: ChannelGraph, gone: Tensor) -> Tensor:
    """Return `gone` without the channels that must stay: no layer is empty, and the groups of a convolution are of
    equal size.
    """
    gone = gone.clone()
    while True:
        before = gone.clone()
        for path, node in graph.by_path.items():
            if node.kind not in ("producer", "depthwise", "norm", "prelu"):
                continue
            groups = int(getattr(graph.modules[path], "groups", 1)) if node.kind == "producer" else 1
            sides = [node.out] if node.into is None else [node.out, node.into]
            if groups > 1:
                _balance([side.reshape(groups, -1) for side in sides], gone)
                continue
            for side in sides:
                if len(side) and not bool(_stays(side, gone).any()):
                    gone[side[0]] = False
        if torch.equal(before, gone):
            return gone


def _balance(parts: Sequence[Tensor], gone: Tensor) -> None:
    """Keep channels so that a convolution loses whole groups, and the same number of channels in each of the others.

    `parts`: the cells of its outputs and of its inputs [groups, channels].
    """
    leaving = [~_stays(part, gone) for part in parts]
    whole = torch.stack([going.all(1) for going in leaving]).all(0)
    if bool(whole.all()):
        whole[0] = False
    for part, going in zip(parts, leaving, strict=True):
        most = min(int(going[~whole].sum(1).min()), part.shape[1] - 1)
        for row in (~whole & (going.sum(1) > most)).nonzero().flatten().tolist():
            gone[part[row, going[row].nonzero().flatten()[most:]]] = False
