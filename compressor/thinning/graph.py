"""The channels of a network: torch-pruning's dependency graph (Fang et al. 2023, arXiv 2301.12900) as plain data.

torch-pruning follows autograd from the logits back to the weights, and knows how indices of channels map through
concatenation, splitting and flattening. Here every channel becomes a *cell*: all places (outputs of a layer, inputs of
another, entries of a batch norm) that can only be removed together.
"""

import copy
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from compressor.errors import CompressError
from compressor.sparsity.channels import Channels, Slices
from compressor.thinning.layers import BATCHNORMS, CONVOLUTIONS, dims, is_depthwise

Kind = Literal["producer", "depthwise", "norm", "prelu", "mixing", "operation"]

# What is not 0 where its input is 0.
_NOT_ZERO_AT_ZERO = (
    *("sigmoid", "hardsigmoid", "logsigmoid", "softmax", "logsoftmax", "softplus", "exp", "cos", "cosh"),
    *("rsqrt", "reciprocal"),
)


class Untraceable(CompressError):
    """The network's channels cannot be followed."""


class _Index(NamedTuple):
    """What torch-pruning's index mappings take: a place, and the place of the walk's start that it came from."""

    idx: int
    root_idx: int


@dataclass(frozen=True)
class Node:
    """A layer or an operation, by its module's path or by its name in autograd.

    `out` has the cell of each output channel (of an operation: the cells that pass through it, once each); `into` that
    of each input channel, of producers alone; -1: none, as the image's own channels.
    """

    label: str
    kind: Kind
    inputs: tuple[int, ...]
    out: Tensor
    into: Tensor | None = None
    is_output: bool = False
    """Whether nothing reads it: its channels are the network's logits."""


def _speaks_at_zero(node: Node) -> bool:
    """Whether an operation may give something else than 0 where its inputs are 0, as a sum with what is no channel."""
    name = node.label.lower()
    return name in _NOT_ZERO_AT_ZERO or (name in ("add", "sub", "rsub") and len(node.inputs) < 2)


@dataclass(frozen=True)
class ChannelGraph:
    """All nodes, inputs before what reads them, and the number of cells. Raises `Untraceable` while it is made."""

    nodes: tuple[Node, ...]
    cells: int
    weights: Mapping[str, str]
    """The name of each producer's (and depthwise convolution's) weight, by the path of its module."""
    modules: Mapping[str, nn.Module]
    """The layers by path, without storage; their weights' shapes and attributes are the network's."""

    @cached_property
    def by_path(self) -> dict[str, Node]:
        """The layers among the nodes."""
        return {node.label: node for node in self.nodes if node.label in self.modules}

    @cached_property
    def carries(self) -> Tensor:
        """[nodes, cells]: whether a node's output has a cell."""
        table = torch.zeros(len(self.nodes), max(self.cells, 1), dtype=torch.bool)
        for number, node in enumerate(self.nodes):
            table[number, node.out[node.out >= 0]] = True
        return table

    @cached_property
    def channels(self) -> Channels:
        """The cells by weight and dim, and the parts of grouped convolutions."""
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
        """[nodes, cells]: where a node's output is 0 if the entries `pruned` (by weight and its outputs, true = 0) are,
        with all that speaks for them (biases, batch norms)."""
        paths = {name: path for path, name in self.weights.items()}
        gone = {paths[name]: mask for name, mask in pruned.items() if name in paths}
        gone = {path: mask for path, mask in gone.items() if dims(self.modules[path])[0] == 0}
        dead = torch.zeros_like(self.carries)
        for number, node in enumerate(self.nodes):
            row = dead[number]
            if node.kind in ("producer", "depthwise") and node.label in gone:
                row[node.out[gone[node.label].cpu() & (node.out >= 0)]] = True
            if node.kind == "producer" or (node.kind == "operation" and _speaks_at_zero(node)):
                continue
            row |= self._dead_input(number, dead)
        return dead

    def _dead_input(self, number: int, dead: Tensor) -> Tensor:
        """[cells]: of the cells a node has, those that every input (of a product: any input) brings as 0."""
        node = self.nodes[number]
        carried = self.carries[number].clone()
        sources = [source for source in node.inputs if bool((self.carries[source] & carried).any())]
        if not sources:
            return torch.zeros_like(carried)
        brought, zero = self.carries[sources], dead[sources]
        if node.kind == "operation" and node.label.startswith("Mul"):
            return carried & (zero & brought).any(0)
        return carried & brought.any(0) & (zero | ~brought).all(0)

    def speakers(self, pruned: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What else must be 0 for pruned outputs to be 0 behind the batch norms, too: by parameter, true = prune.

        Their biases, gamma and beta of every batch norm that sees nothing else, and depthwise filters on the way.
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

    def last_norms(self, name: str) -> list[tuple[str, Tensor, Tensor]]:
        """The batch norms behind a weight's outputs that no other batch norm follows before a layer mixes channels.

        (parameter, its entries, the output that each belongs to), for gamma and beta of each.
        """
        path = next(path for path, weight in self.weights.items() if weight == name)
        own = self.by_path[path].out
        place_of = {int(cell): place for place, cell in enumerate(own.tolist()) if cell >= 0}
        behind: dict[int, bool] = {}
        norms: list[int] = []
        for number, node in enumerate(self.nodes):
            mine = node.label == path or any(
                behind.get(source, False) and bool((self.carries[source][own]).any()) for source in node.inputs
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

    def _follows(self, later: int, earlier: int, among: Mapping[int, bool]) -> bool:
        """Whether a node comes after another on a path through marked nodes."""
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
        """Every producer that has inputs, with [inputs] booleans: whether it reads a cell there, and reads it as 0."""
        for node in self.nodes:
            if node.kind != "producer" or node.into is None:
                continue
            places = node.into.clamp(min=0)
            read = node.into >= 0
            sources = [source for source in node.inputs if bool(self.carries[source].any())]
            zero = torch.zeros_like(read)
            if sources:
                brought = self.carries[sources]
                zero = (brought.any(0) & (dead[sources] | ~brought).all(0))[places] & read
            yield node, read, zero

    def who_carries(self, cell: int) -> list[Node]:
        """The nodes a channel passes through."""
        return [self.nodes[number] for number in self.carries[:, cell].nonzero().flatten().tolist()]


def trace(model: nn.Module, shape: tuple[int, ...]) -> ChannelGraph:
    """The graph of a network on images of `shape` (C, H, W). Only shapes are computed: a copy without storage runs.

    Raises `Untraceable` where the network cannot be run so, or torch-pruning cannot follow it.
    """
    import torch_pruning  # half a second, which most commands need not wait for

    skeleton = _without_storage(model)
    graph = torch_pruning.DependencyGraph()
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            graph.build_dependency(skeleton, torch.zeros(1, *shape, device="meta"), verbose=False)
        return _Reader(graph, skeleton).read()
    except Untraceable:
        raise
    except Exception as error:  # whatever a network's forward or torch-pruning raises
        reason = (str(error).splitlines() or [""])[0]
        raise Untraceable(f"torch-pruning cannot follow its channels ({type(error).__name__}: {reason})") from error


def _without_storage(model: nn.Module) -> nn.Module:
    """A copy of the network on the meta device, every parameter of it trainable, in eval mode."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta", dtype=torch.float32))
    for buffer in model.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(model, memo).eval()


class _Reader:
    """From torch-pruning's nodes to ours."""

    def __init__(self, graph: Any, skeleton: nn.Module) -> None:
        self._graph = graph
        self._paths = {module: path for path, module in skeleton.named_modules()}
        self._modules = dict(skeleton.named_modules())
        self._skeleton = skeleton
        self._nodes: list[Any] = list(graph.module2node.values())
        self._number = {id(node): number for number, node in enumerate(self._nodes)}
        self._parent: list[int] = []
        self._places: dict[tuple[int, str, int], int] = {}
        layers = [m for m in skeleton.modules() if isinstance(m, (CONVOLUTIONS, nn.Linear))]
        # A concatenation has at most what all layers make together.
        self._most = max(sum(_sizes(m)[0] for m in layers), *(_sizes(m)[1] for m in layers), 0) + 1

    def read(self) -> ChannelGraph:
        for node in self._nodes:
            if type(node.module).__name__ == "_ConcatOp" and len(node.inputs) < len(node.grad_fn.next_functions):
                raise Untraceable("it concatenates channels with what depends on no weight (the image itself?)")
        for number, node in enumerate(self._nodes):
            if self._kind(node) == "producer":
                self._walk(number)
        for number, node in enumerate(self._nodes):  # what no producer reaches is its own beginning
            if self._kind(node) == "depthwise":
                self._walk(number)
        numbered: dict[int, int] = {}
        cell_of = {key: numbered.setdefault(self._find(p), len(numbered)) for key, p in self._places.items()}
        by_port: dict[tuple[int, str], dict[int, int]] = defaultdict(dict)
        for (number, port, index), cell in cell_of.items():
            by_port[number, port][index] = cell
        order = self._order()
        position = {number: place for place, number in enumerate(order)}
        nodes = tuple(self._node(number, by_port, position) for number in order)
        names = {id(p): name for name, p in self._skeleton.named_parameters()}
        weights = {
            self._path(node): names[id(node.module.weight)]
            for node in self._nodes
            if self._kind(node) in ("producer", "depthwise")
        }
        tied = [path for path in weights if list(weights.values()).count(weights[path]) > 1]
        if tied:
            raise Untraceable(f"{tied[0]} and {tied[1]} share one weight")
        modules = {self._path(node): node.module for node in self._nodes if node.module in self._paths}
        return ChannelGraph(nodes, len(numbered), weights, modules)

    def _path(self, node: Any) -> str:
        return str(self._paths[node.module])

    def _kind(self, node: Any) -> Kind:
        module = node.module
        if is_depthwise(module):
            return "depthwise"
        if isinstance(module, (CONVOLUTIONS, nn.Linear)):
            return "producer"
        if isinstance(module, BATCHNORMS):
            return "norm"
        if isinstance(module, nn.PReLU):
            return "prelu" if module.num_parameters > 1 else "operation"
        if isinstance(module, nn.Parameter) or module in self._paths:
            return "mixing"
        return "operation"

    def _label(self, node: Any) -> str:
        module = node.module
        if isinstance(module, nn.Parameter):
            names = {id(p): name for name, p in self._skeleton.named_parameters()}
            return f"the bare parameter {names.get(id(module), '?')}"
        if module in self._paths:
            return self._path(node)
        name = str(getattr(module, "_grad_fn", type(module).__name__))
        return name.partition("Backward")[0].strip("_").removesuffix("Op") or name

    def _order(self) -> list[int]:
        """The nodes' numbers, inputs first."""
        order: list[int] = []
        state: dict[int, int] = {}
        for first in range(len(self._nodes)):
            stack = [first]
            while stack:
                number = stack[-1]
                waiting = [] if state.get(number) else self._inputs(number)
                if state.get(number, 0) == 0:
                    state[number] = 1
                    stack += [source for source in waiting if not state.get(source)]
                    continue
                stack.pop()
                if state[number] == 1:
                    state[number] = 2
                    order.append(number)
        return order

    def _inputs(self, number: int) -> list[int]:
        """The numbers of a node's inputs, without the transposed weights that autograd shows as such."""
        sources = [
            source for source in self._nodes[number].inputs if source.inputs or self._kind(source) != "operation"
        ]
        return [self._number[id(source)] for source in sources]

    def _node(
        self, number: int, by_port: Mapping[tuple[int, str], dict[int, int]], position: Mapping[int, int]
    ) -> Node:
        node, kind = self._nodes[number], self._kind(self._nodes[number])
        module = node.module
        places = by_port.get((number, "out"), {})
        into = None
        if kind in ("producer", "depthwise", "norm", "prelu"):
            outputs, inputs = _sizes(module)
            if any(not 0 <= index < outputs for index in places):
                raise Untraceable(f"more channels than {self._path(node)} has reach it")
            out = torch.tensor([places.get(index, -1) for index in range(outputs)], dtype=torch.long)
            if kind == "producer":
                read = by_port.get((number, "in"), {})
                if any(not 0 <= index < inputs for index in read):
                    raise Untraceable(f"more channels than {self._path(node)} has reach it")
                into = torch.tensor([read.get(index, -1) for index in range(inputs)], dtype=torch.long)
        else:
            out = torch.tensor(sorted(set(places.values())), dtype=torch.long)
        inputs_ = tuple(position[source] for source in self._inputs(number))
        return Node(self._label(node), kind, inputs_, out, into, is_output=not node.outputs)

    def _walk(self, start: int) -> None:
        """Join every place that one producer's output channels reach, up and down the graph."""
        node = self._nodes[start]
        pruner = self._graph.get_pruner_of_module(node.module)
        outputs, _ = _sizes(node.module)
        indices = [_Index(index, index) for index in range(outputs)]
        if all((start, "out", index.idx) in self._places for index in indices):
            return
        seen: set[tuple[int, str, int, int]] = set()
        stack = [(node, pruner.prune_out_channels, self._new(start, "out", indices, start, seen))]
        while stack:
            node, function, indices = stack.pop()
            for dependency in node.dependencies:
                if not dependency.is_triggered_by(function):
                    continue
                mapped: Any = indices
                for mapping in dependency.index_mapping:
                    if mapping is not None:
                        mapped = mapping(mapped)
                target = dependency.target
                theirs = self._graph.get_pruner_of_module(target.module)
                port = "out" if dependency.handler == theirs.prune_out_channels else "in"
                fresh = self._new(self._number[id(target)], port, mapped, start, seen)
                if fresh:
                    stack.append((target, dependency.handler, fresh))

    def _new(
        self, number: int, port: str, indices: Any, start: int, seen: set[tuple[int, str, int, int]]
    ) -> list[_Index]:
        """Those of the places that this walk sees for the first time; they are joined to where they came from."""
        fresh = []
        for index in indices:
            key = (number, port, index.idx, index.root_idx)
            if key in seen:
                continue
            seen.add(key)
            if not 0 <= index.idx < self._most:
                raise Untraceable("torch-pruning maps its channels to more than any layer has")
            fresh.append(_Index(index.idx, index.root_idx))
            mine = self._place((number, port, index.idx))
            self._parent[self._find(mine)] = self._find(self._place((start, "out", index.root_idx)))
        return fresh

    def _place(self, key: tuple[int, str, int]) -> int:
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = len(self._parent)
            self._parent.append(place)
        return place

    def _find(self, place: int) -> int:
        while self._parent[place] != place:
            self._parent[place] = self._parent[self._parent[place]]
            place = self._parent[place]
        return place


def _sizes(module: Any) -> tuple[int, int]:
    """The numbers of output and input channels of a layer."""
    if isinstance(module, CONVOLUTIONS):
        return int(module.out_channels), int(module.in_channels)
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    count = module.num_parameters if isinstance(module, nn.PReLU) else module.num_features
    return int(count), int(count)
