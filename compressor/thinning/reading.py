"""From a network to its channels, by torch-pruning's dependency graph (Fang et al. 2023, arXiv 2301.12900).

torch-pruning follows autograd from the logits back to the weights, and knows how indices of channels change in
concatenation, splitting and flattening.
"""

import warnings
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from compressor.copying import without_storage
from compressor.errors import UserError
from compressor.importing import late
from compressor.sparsity import computed
from compressor.thinning.graph import ChannelGraph, Kind, Node, Untraceable
from compressor.thinning.layers import BATCHNORMS, CONVOLUTIONS, is_depthwise
from compressor.tracing import OnMeta

_PLACES = 5_000_000
"""The largest number of positions of one walk; the widest network tested, RegNetY-128GF, needs less than a tenth."""


class _Index(NamedTuple):
    """The argument of torch-pruning's index mappings: a position, and the position at the start of the walk."""

    idx: int
    root_idx: int


def channel_graph(model: nn.Module, shape: tuple[int, ...]) -> ChannelGraph:
    """Return the channel graph of a network on images of `shape` (C, H, W).

    Only shapes are computed: a copy without storage runs.

    Raises `Untraceable` where the copy cannot be run, or torch-pruning cannot trace it.
    """
    for one in computed(model):
        raise Untraceable(f"its channels cannot be traced: {one.reason}")
    torch_pruning = late("torch_pruning")  # half a second, which most commands need not wait for

    try:
        skeleton = without_storage(model).eval()
    except UserError as error:
        raise Untraceable(f"its channels cannot be traced: {error}") from error
    graph = torch_pruning.DependencyGraph()
    given: list[Any] = []  # all outputs: a layer whose output is not the logits reads channels, too
    skeleton.register_forward_hook(lambda module, images, result: given.append(result), prepend=True)
    try:
        with warnings.catch_warnings(), torch.enable_grad(), OnMeta():  # type: ignore[no-untyped-call]
            warnings.simplefilter("ignore")
            graph.build_dependency(
                skeleton,
                torch.zeros(1, *shape, device="meta"),
                output_transform=lambda logits: _tensors((logits, given[-1])),
                verbose=False,
            )
        return _Reader(graph, skeleton).read()
    except Untraceable:
        raise
    except Exception as error:  # whatever a network's forward or torch-pruning raises
        reason = (str(error).splitlines() or [""])[0]
        said = f"torch-pruning cannot trace its channels: a reshape, split or join ({type(error).__name__}: {reason})"
        raise Untraceable(said) from error


def _tensors(given: Any) -> list[Tensor]:
    """Return the tensors among a network's outputs that depend on weights."""
    found = {id(leaf): leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor) and leaf.grad_fn is not None}
    return list(found.values())


class _Reader:
    """Translate the nodes of torch-pruning to ours."""

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
                raise Untraceable(
                    "it concatenates channels with a tensor that depends on no weight (the image itself?)"
                )
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
        """Return the numbers of the nodes, inputs first."""
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
        """Return the numbers of a node's inputs, without the transposed weights that autograd has as inputs."""
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
                raise Untraceable(f"{self._path(node)} is reached by more channels than it has")
            out = torch.tensor([places.get(index, -1) for index in range(outputs)], dtype=torch.long)
            if kind == "producer":
                read = by_port.get((number, "in"), {})
                if any(not 0 <= index < inputs for index in read):
                    raise Untraceable(f"{self._path(node)} is reached by more channels than it has")
                into = torch.tensor([read.get(index, -1) for index in range(inputs)], dtype=torch.long)
        else:
            out = torch.tensor(sorted(set(places.values())), dtype=torch.long)
        inputs_ = tuple(position[source] for source in self._inputs(number))
        return Node(self._label(node), kind, inputs_, out, into, is_output=not node.outputs)

    def _walk(self, start: int) -> None:
        """Join all positions that the output channels of one producer reach, in both directions of the graph."""
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
        """Return the positions that this walk reaches for the first time, joined to those that they came from."""
        fresh = []
        for index in indices:
            key = (number, port, index.idx, index.root_idx)
            if key in seen:
                continue
            seen.add(key)
            if len(seen) > _PLACES:
                raise Untraceable("torch-pruning maps one layer's channels to positions without end")
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
    """Return the numbers of output and input channels of a layer."""
    if isinstance(module, CONVOLUTIONS):
        return int(module.out_channels), int(module.in_channels)
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    count = module.num_parameters if isinstance(module, nn.PReLU) else module.num_features
    return int(count), int(count)
