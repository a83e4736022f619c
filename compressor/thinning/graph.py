"""The channels of a network as plain data.

Every channel is a *cell*: all positions (outputs of a layer, inputs of another, entries of a batch norm) that can only
be removed together.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from compressor.errors import CompressError
from compressor.sparsity import Channels, Slices
from compressor.thinning.layers import dims

Kind = Literal["producer", "depthwise", "norm", "reader", "mixing", "operation"]
"""`reader`: an operation that adds over channels, so that one that is 0 may go. `mixing`: it needs all of them."""
Rule = Literal["all", "any", "never"]
"""Where the result of an operation is 0: where all that it is given is 0; where any of it is; nowhere surely."""

Dead = Sequence[Tensor]
"""For each node [its cells]: where its output is 0."""


class Untraceable(CompressError):
    """Raised where the network's channels cannot be traced."""


class NeedsValues(Untraceable):
    """Raised where the network's code asks for values, and the network has none (it is without storage)."""


@dataclass(frozen=True)
class Node:
    """A call of a layer, or an operation, with its module's path or its name in torch.

    `out` has the cell of each output channel (of an operation: the cells that pass through it, once each); `into` that
    of each input channel, for layers with a weight only. -1: none, as for the image's own channels.
    """

    label: str
    kind: Kind
    inputs: tuple[int, ...]
    out: Tensor
    into: Tensor | None = None
    is_output: bool = False
    """Whether its channels are the network's outputs."""
    zero: Rule = "all"
    weight: str = ""
    """The name of its weight."""
    companions: tuple[str, ...] = ()
    """Parameters that must be 0 for its output to be 0 where its inputs are: its bias, gamma and beta."""
    groups: int = 1
    transposed: bool = False
    dims: tuple[int, int] = (0, 1)
    """The dims of its outputs and inputs in its weight."""
    owned: bool = True
    """Whether it is a layer, with a module of its own."""
    training: bool = False
    """Whether it belongs to the forward pass in training mode, where that has other layers or operations."""

    def replaced(self, **changes: Any) -> "Node":
        """Return the node with other values."""
        return replace(self, **changes)


@dataclass(frozen=True)
class ChannelGraph:
    """All nodes, each after its inputs, and the number of cells. A layer that is called twice has two nodes."""

    nodes: tuple[Node, ...]
    cells: int
    weights: Mapping[str, str]
    """The name of each layer's weight, by the path of its module."""
    modules: Mapping[str, nn.Module]
    """The layers by path, without storage; their weights' shapes and attributes are the network's."""
    slices: Mapping[str, tuple[Tensor | None, ...]] = field(default_factory=dict)
    """By parameter and buffer, for each dim: the cell of each of its entries; None: that dim is never cut."""
    keeps: Mapping[int, str] = field(default_factory=dict)
    """The reasons why cells can never be removed, by cell."""
    ties: Mapping[int, str] = field(default_factory=dict)
    """The reasons why several channels of one layer are one cell, by cell."""

    @cached_property
    def by_path(self) -> dict[str, Node]:
        """Return the nodes that are layers, by path; of a layer that is called more than once the first call that uses
        its weight as the layer itself does, not turned.
        """
        found: dict[str, Node] = {}
        for node in self.nodes:
            if node.owned and node.label in self.modules:
                first = found.setdefault(node.label, node)
                own = dims(self.modules[node.label])
                if first.dims != own and node.dims == own:
                    found[node.label] = node
        return found

    @cached_property
    def cells_of(self) -> list[Tensor]:
        """Return for each node the cells of its output, once each and sorted."""
        return [torch.unique(node.out[node.out >= 0]) for node in self.nodes]

    @cached_property
    def kept(self) -> Tensor:
        """Return [cells]: those that can never be removed."""
        table = torch.zeros(max(self.cells, 1), dtype=torch.bool)
        table[torch.tensor(list(self.keeps), dtype=torch.long)] = True
        return table

    @cached_property
    def readers_of(self) -> list[list[int]]:
        """Return for each node the numbers of those that read it."""
        found: list[list[int]] = [[] for _ in self.nodes]
        for number, node in enumerate(self.nodes):
            for source in dict.fromkeys(node.inputs):
                found[source].append(number)
        return found

    @cached_property
    def _through(self) -> Mapping[int, list[int]]:
        """Return by cell the numbers of the nodes that it passes through."""
        found: dict[int, list[int]] = defaultdict(list)
        for number, cells in enumerate(self.cells_of):
            for cell in cells.tolist():
                found[cell].append(number)
        return found

    @cached_property
    def _reading(self) -> Mapping[int, list[int]]:
        """Return by cell the numbers of the layers that read it."""
        found: dict[int, list[int]] = defaultdict(list)
        for number, node in enumerate(self.nodes):
            for cell in () if node.into is None else set(node.into.tolist()) - {-1}:
                found[cell].append(number)
        return found

    @cached_property
    def channels(self) -> Channels:
        """Return the cells of the outputs and inputs of each weight, and the groups of grouped convolutions."""
        cells: dict[Slices, Tensor] = {}
        part = torch.full((max(self.cells, 1),), -1, dtype=torch.long)
        for path, name in self.weights.items():
            node, module = self.by_path.get(path), self.modules[path]
            if node is None or (name, 0) in cells or module._parameters.get("weight") is None:  # it is computed
                continue
            groups = getattr(module, "groups", 1)
            cells[name, 0] = node.out
            if groups == 1 or node.kind == "depthwise":
                if node.into is not None:
                    cells[name, 1] = node.into
                continue
            # The weight has the inputs of one group: they are no channels of the network.
            assert node.into is not None
            for side in (node.out, node.into):
                size = len(side) // groups
                for group in range(groups):
                    mine = side[group * size : (group + 1) * size]
                    mine = mine[mine >= 0]
                    part[mine] = torch.where((part[mine] < 0) | (part[mine] == group), group, groups)
                several = (part == groups).nonzero().flatten()  # they lie in several groups, which lose the same ones
                part[several] = -1
        return Channels(cells, part)

    def zeroed(self, pruned: Mapping[str, Tensor], parameters: Mapping[str, Tensor] | None = None) -> Dead:
        """Return by node where its output is 0 when the entries `pruned` are, with their companions (biases, batch
        norms).

        `pruned`: by weight [outputs], true = 0. `parameters`: their values, where only those companions count as 0 that
        are.
        """
        alive = None if parameters is None else self._alive(parameters)
        dead: list[Tensor] = []
        for number, node in enumerate(self.nodes):
            cells = self.cells_of[number]
            own = torch.zeros(len(cells), dtype=torch.bool)
            mask = pruned.get(node.weight) if self.makes_outputs(node) else None
            if mask is not None and len(mask) == len(node.out):
                live = node.out[~mask.cpu() & (node.out >= 0)]
                own = ~torch.isin(cells, live)
            if node.kind in ("depthwise", "norm") or (node.kind == "operation" and node.zero != "never"):
                own = own | self.zero_input(node, cells, dead)
            if alive is not None:
                missing = node.kind == "norm" and not node.companions  # statistics that are not looked at
                for name in node.companions:
                    own = own & ~torch.isin(cells, alive.get(name, cells))
                own = own & (not missing)
            dead.append(own)
        return dead

    def makes_outputs(self, node: Node) -> bool:
        """Return whether a node is a layer whose outputs are those of its weight: another one may use it turned."""
        return node.kind in ("producer", "depthwise") and node.dims == self._dims.get(node.weight, (0, 1))

    @cached_property
    def _dims(self) -> Mapping[str, tuple[int, int]]:
        """Return the dims of the outputs and inputs in each weight, as its own layer uses it."""
        return {name: dims(self.modules[path]) for path, name in reversed(list(self.weights.items()))}

    def _alive(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return for each companion the cells of its entries that are not 0."""
        found: dict[str, Tensor] = {}
        for name in {name for node in self.nodes for name in node.companions} & parameters.keys():
            nonzero = parameters[name].detach().cpu() != 0
            lines = [
                line[nonzero.movedim(dim, 0).flatten(1).any(1) if nonzero.dim() > 1 else nonzero]
                for dim, line in enumerate(self.slices.get(name, ()))
                if line is not None and len(line) == nonzero.shape[dim]
            ]
            found[name] = torch.cat(lines) if lines else torch.empty(0, dtype=torch.long)
        return found

    def zero_input(self, node: Node, cells: Tensor, dead: Sequence[Tensor]) -> Tensor:
        """Return [cells]: those that are 0 in every input that has them (of a product: in any input)."""
        brought = torch.zeros(len(cells), dtype=torch.bool)
        zero, live = brought.clone(), brought.clone()
        for source in dict.fromkeys(node.inputs):
            there, gone = self._in(source, cells, dead)
            brought |= there
            zero |= gone
            live |= there & ~gone
        return zero if node.zero == "any" else brought & ~live

    def _in(self, source: int, cells: Tensor, dead: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return [cells]: whether a node has them, and whether they are 0 there."""
        theirs = self.cells_of[source]
        if not len(theirs):
            none = torch.zeros(len(cells), dtype=torch.bool)
            return none, none
        place = torch.searchsorted(theirs, cells).clamp(max=len(theirs) - 1)
        there = theirs[place] == cells
        return there, there & dead[source][place]

    def companions(self, pruned: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the companion parameters that must be 0 for pruned outputs to be 0 after batch norms, too; true =
        prune.

        Biases, gamma and beta of every batch norm that reads nothing else, depthwise filters that follow, and bare
        parameters that are added. [entries] of the first dim, or the parameter's own shape.
        """
        dead = self.zeroed(pruned)
        found: dict[str, Tensor] = {}
        flags = torch.zeros(max(self.cells, 1), dtype=torch.bool)
        for number, node in enumerate(self.nodes):
            if not node.companions:
                continue
            cells = self.cells_of[number][dead[number]]
            flags[cells] = True
            for name in node.companions:
                mask = self._entries(name, flags)
                if mask is not None:
                    found[name] = found[name] & mask if name in found else mask
            flags[cells] = False
        return {name: mask for name, mask in found.items() if bool(mask.any())}

    def _entries(self, name: str, cells: Tensor) -> Tensor | None:
        """Return the entries of a parameter that belong to the cells that are true."""
        lines = self.slices.get(name, ())
        whole: Tensor | None = None
        for dim, line in enumerate(lines):
            if line is None:
                continue
            mask = (line >= 0) & cells[line.clamp(min=0)]
            if dim == 0 and all(one is None for one in lines[1:]):
                return mask
            side = [1] * len(lines)
            side[dim] = len(line)
            mask = mask.reshape(side)
            whole = mask if whole is None else whole | mask
        if whole is None:
            return None
        return whole.expand([1 if line is None else len(line) for line in lines])

    @cached_property
    def calls_of(self) -> Mapping[str, list[int]]:
        """Return by weight the numbers of the nodes that use it."""
        found: dict[str, list[int]] = defaultdict(list)
        for number, node in enumerate(self.nodes):
            if node.weight:
                found[node.weight].append(number)
        return found

    def readers(self, dead: Dead) -> Iterator[tuple[Node, Tensor, Tensor]]:
        """Yield every call of a layer that has inputs, with [inputs]: whether it reads a cell there, and whether it
        reads it as 0.
        """
        for node in self.nodes:
            into = node.out if node.kind == "reader" else node.into
            if node.kind not in ("producer", "reader") or into is None:
                continue
            read = into >= 0
            cells = torch.unique(into[read])
            zero = torch.zeros_like(read)
            if len(cells):
                gone = self.zero_input(node, cells, dead)
                zero = read & gone[torch.searchsorted(cells, into).clamp(max=len(cells) - 1)]
            yield node.replaced(into=into), read, zero

    def nodes_with(self, cell: int) -> list[Node]:
        """Return the nodes that a channel passes through."""
        return [self.nodes[number] for number in self._through.get(cell, ())]

    def readers_with(self, cell: int) -> list[Node]:
        """Return the layers that read a channel."""
        return [self.nodes[number] for number in self._reading.get(cell, ())]
