"""The channels of a network as plain data.

Every channel is a *cell*: all positions (outputs of a layer, inputs of another, entries of a batch norm) that can only
be removed together.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from compressor.errors import CompressError
from compressor.sparsity import Channels, Slices
from compressor.thinning.layers import dims

Kind = Literal["producer", "depthwise", "norm", "prelu", "mixing", "operation"]

# What is not 0 where its input is 0.
_NOT_ZERO_AT_ZERO = (
    *("sigmoid", "hardsigmoid", "logsigmoid", "softmax", "logsoftmax", "softplus", "exp", "cos", "cosh"),
    *("rsqrt", "reciprocal"),
)


class Untraceable(CompressError):
    """Raised where the network's channels cannot be traced."""


@dataclass(frozen=True)
class Node:
    """A layer or an operation, with its module's path or its name in autograd.

    `out` has the cell of each output channel (of an operation: the cells that pass through it, once each); `into` that
    of each input channel, for producers only. -1: none, as for the image's own channels.
    """

    label: str
    kind: Kind
    inputs: tuple[int, ...]
    out: Tensor
    into: Tensor | None = None
    is_output: bool = False
    """Whether no layer reads it: its channels are the network's logits."""


def _nonzero_at_zero(node: Node) -> bool:
    """Return whether an operation may be non-zero where its inputs are 0, as a sum with something that is not a
    channel.
    """
    name = node.label.lower()
    return name in _NOT_ZERO_AT_ZERO or (name in ("add", "sub", "rsub") and len(node.inputs) < 2)


@dataclass(frozen=True)
class ChannelGraph:
    """All nodes, each after its inputs, and the number of cells."""

    nodes: tuple[Node, ...]
    cells: int
    weights: Mapping[str, str]
    """The name of each producer's (and depthwise convolution's) weight, by the path of its module."""
    modules: Mapping[str, nn.Module]
    """The layers by path, without storage; their weights' shapes and attributes are the network's."""

    @cached_property
    def by_path(self) -> dict[str, Node]:
        """Return the nodes that are layers, by path."""
        return {node.label: node for node in self.nodes if node.label in self.modules}

    @cached_property
    def has_cell(self) -> Tensor:
        """Return [nodes, cells]: whether a node's output has a cell."""
        table = torch.zeros(len(self.nodes), max(self.cells, 1), dtype=torch.bool)
        for number, node in enumerate(self.nodes):
            table[number, node.out[node.out >= 0]] = True
        return table

    @cached_property
    def channels(self) -> Channels:
        """Return the cells by weight and dim, and the groups of grouped convolutions."""
        cells: dict[Slices, Tensor] = {}
        part = torch.full((max(self.cells, 1),), -1, dtype=torch.long)
        for path, name in self.weights.items():
            node, module = self.by_path.get(path), self.modules[path]
            if node is None:
                continue
            out_dim, in_dim = dims(module)
            groups = getattr(module, "groups", 1)
            if groups == 1 or node.kind == "depthwise":
                cells[name, out_dim] = node.out
                if node.into is not None:
                    cells[name, in_dim] = node.into
                continue
            # The weight's other dim runs over the channels of one group: its entries are no channels of the network.
            if out_dim == 0:
                cells[name, 0] = node.out
            assert node.into is not None
            for side in (node.out, node.into):
                size = len(side) // groups
                for group in range(groups):
                    mine = side[group * size : (group + 1) * size]
                    mine = mine[mine >= 0]
                    part[mine] = torch.where(part[mine] < 0, group, part[mine])
        return Channels(cells, part)

    def zeroed(self, pruned: Mapping[str, Tensor]) -> Tensor:
        """Return [nodes, cells]: where a node's output is 0 when the entries `pruned` are, with their companions
        (biases, batch norms).

        `pruned`: by weight [outputs], true = 0.
        """
        paths = {name: path for path, name in self.weights.items()}
        gone = {paths[name]: mask for name, mask in pruned.items() if name in paths}
        gone = {path: mask for path, mask in gone.items() if dims(self.modules[path])[0] == 0}
        dead = torch.zeros_like(self.has_cell)
        for number, node in enumerate(self.nodes):
            row = dead[number]
            if node.kind in ("producer", "depthwise") and node.label in gone:
                row[node.out[gone[node.label].cpu() & (node.out >= 0)]] = True
            if node.kind in ("producer", "mixing") or (node.kind == "operation" and _nonzero_at_zero(node)):
                continue
            row |= self.zero_input(number, dead)
        return dead

    def zero_input(self, number: int, dead: Tensor) -> Tensor:
        """Return [cells]: the cells of a node that are 0 in every input (of a product: in any input)."""
        node = self.nodes[number]
        own = self.has_cell[number].clone()
        sources = [source for source in node.inputs if bool((self.has_cell[source] & own).any())]
        if not sources:
            return torch.zeros_like(own)
        brought, zero = self.has_cell[sources], dead[sources]
        if node.kind == "operation" and node.label.startswith("Mul"):
            return own & (zero & brought).any(0)
        return own & brought.any(0) & (zero | ~brought).all(0)

    def companions(self, pruned: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the companion parameters that must be 0 for pruned outputs to be 0 after batch norms, too; true =
        prune.

        Biases, gamma and beta of every batch norm that reads nothing else, and depthwise filters that follow.
        """
        dead = self.zeroed(pruned)
        found: dict[str, Tensor] = {}
        for number, node in enumerate(self.nodes):
            if node.label not in self.modules or node.kind not in ("producer", "depthwise", "norm"):
                continue
            places = node.out.clamp(min=0)
            zero = dead[number][places] & (node.out >= 0)
            if not bool(zero.any()):
                continue
            module = self.modules[node.label]
            own = ["bias"] if node.kind == "producer" else ["weight", "bias"]
            for name in own:
                if getattr(module, name, None) is not None:
                    found[f"{node.label}.{name}" if node.label else name] = zero
        return found

    def following_norms(self, name: str) -> list[tuple[str, Tensor, Tensor]]:
        """Return the batch norms that follow a weight's outputs and are followed by no other one before a layer mixes
        channels.

        (parameter, its entries, the output that each belongs to), for gamma and beta of each.
        """
        path = next((path for path, weight in self.weights.items() if weight == name), None)
        if path is None:  # the forward pass does not use it
            return []
        own = self.by_path[path].out
        place_of = {int(cell): place for place, cell in enumerate(own.tolist()) if cell >= 0}
        behind: dict[int, bool] = {}
        norms: list[int] = []
        for number, node in enumerate(self.nodes):
            mine = node.label == path or any(
                behind.get(source, False) and bool((self.has_cell[source][own]).any()) for source in node.inputs
            )
            behind[number] = mine and (node.label == path or node.kind not in ("producer", "mixing"))
            if behind[number] and node.kind == "norm":
                norms.append(number)
        last = [n for n in norms if not any(self._follows(other, n, behind) for other in norms if other != n)]
        found = []
        for number in last:
            node = self.nodes[number]
            places = torch.tensor([p for p, cell in enumerate(node.out.tolist()) if cell in place_of], dtype=torch.long)
            outputs = torch.tensor([place_of[int(node.out[p])] for p in places], dtype=torch.long)
            module = self.modules[node.label]
            if module.weight is None:
                return []
            found += [(f"{node.label}.{own_name}", places, outputs) for own_name in ("weight", "bias")]
        return found

    def read_before_norm(self, name: str) -> str | None:
        """Return which layer reads a weight's outputs before a batch norm where others read them after one; None: no
        layer.
        """
        if not self.following_norms(name):
            return None
        path = next(path for path, weight in self.weights.items() if weight == name)
        raw = {number for number, node in enumerate(self.nodes) if node.label == path}
        for number, node in enumerate(self.nodes):
            if raw & set(node.inputs):
                if node.kind == "producer" or node.is_output:
                    return node.label
                if node.kind != "norm":
                    raw.add(number)
        return None

    def _follows(self, later: int, earlier: int, among: Mapping[int, bool]) -> bool:
        """Return whether a node comes after another one on a path through marked nodes."""
        stack, seen = [later], set[int]()
        while stack:
            number = stack.pop()
            for source in self.nodes[number].inputs:
                if source == earlier:
                    return True
                if among.get(source) and source not in seen:
                    seen.add(source)
                    stack.append(source)
        return False

    def readers(self, dead: Tensor) -> Iterator[tuple[Node, Tensor, Tensor]]:
        """Yield every producer that has inputs, with [inputs]: whether it reads a cell there, and whether it reads it
        as 0.
        """
        for node in self.nodes:
            if node.kind != "producer" or node.into is None:
                continue
            places = node.into.clamp(min=0)
            read = node.into >= 0
            sources = [source for source in node.inputs if bool(self.has_cell[source].any())]
            zero = torch.zeros_like(read)
            if sources:
                brought = self.has_cell[sources]
                zero = (brought.any(0) & (dead[sources] | ~brought).all(0))[places] & read
            yield node, read, zero

    def nodes_with(self, cell: int) -> list[Node]:
        """Return the nodes that a channel passes through."""
        return [self.nodes[number] for number in self.has_cell[:, cell].nonzero().flatten().tolist()]
