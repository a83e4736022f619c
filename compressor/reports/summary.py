"""The layers of a network in the order of its forward pass: their outputs, parameters and MACs, and what reads what."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from compressor.copying import without_storage
from compressor.sparsity import count_nonzero, prunable
from compressor.tables import Column, table, wrapped
from compressor.tracing import OnMeta, Trace, macs_by_module, trace

IMAGE, LOGITS = "image", "logits"
_PASSES = frozenset(
    "view reshape flatten __getitem__ size dim contiguous transpose permute unsqueeze squeeze to detach chunk split"
    " expand expand_as __get__ unflatten float type_as clone narrow".split()
)
"""Operations that only pass values on: the picture leaves them out."""
_PARAMETRIZED = "parametrizations"

Shape = tuple[int, int, int]


class LayerSummary(BaseModel):
    """A layer: a module with parameters or MACs of its own, or one without modules inside.

    `output`: the shape of its first result for one image; null where a forward pass does not call it. `parameters`:
    its own, without those of layers inside. `weights`, `nonzero`: of its weights with two or more dims; `nonzero` is
    null where the network has no trained weights.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    type: str
    output: list[int] | None
    calls: int
    parameters: int
    weights: int
    nonzero: int | None
    macs: int


class Node(BaseModel):
    """A call of a layer, or an operation between layers; the first is the image, the last the logits."""

    model_config = ConfigDict(frozen=True)

    name: str
    type: str
    output: list[int]
    layer: int | None = None
    """The number of its layer."""
    reads: list[int] = []
    """The numbers of the nodes whose results it reads."""


class Summary(BaseModel):
    """A network on one image of a shape (C, H, W).

    As JSON it carries `schema`: the number rises when a key goes, or changes its name or its meaning.
    """

    model_config = ConfigDict(frozen=True)

    layout: Literal[1] = Field(default=1, alias="schema")
    model: str
    image: list[int]
    layers: list[LayerSummary]
    nodes: list[Node]
    parameters: int
    trainable: int
    weights: int
    nonzero: int | None
    macs: int

    @property
    def sparsity(self) -> float | None:
        """Return the fraction of zeros of the weights of convolutions and linear layers."""
        return None if self.nonzero is None or not self.weights else 1 - self.nonzero / self.weights


@torch.no_grad()
def summarize(network: nn.Module, shape: Shape, model: str, *, trained: bool) -> Summary:
    """Return the summary of a network, which may be without storage, on images of `shape`.

    `trained`: its weights are those of a checkpoint, of which the zeros are counted. Raises whatever its forward pass
    raises.
    """
    meta = any(parameter.is_meta for parameter in network.parameters())
    if meta:
        with OnMeta():  # type: ignore[no-untyped-call]
            found = trace(without_storage(network), torch.zeros(2, *shape, device="meta"))
    else:
        where = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
        found = trace(network, torch.zeros(2, *shape, device=where))
    costs = macs_by_module(network, shape)
    layers = _layers(network, found, costs, trained=trained)
    counted = prunable(network)
    return Summary(
        model=model,
        image=list(shape),
        layers=layers,
        nodes=_nodes(found, layers, shape),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        trainable=sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad),
        weights=sum(weight.numel() for weight in counted.values()),
        nonzero=sum(map(count_nonzero, counted.values())) if trained else None,
        macs=costs[""],
    )


def _layers(network: nn.Module, found: Trace, costs: dict[str, int], *, trained: bool) -> list[LayerSummary]:
    """Return the layers in the order of their first calls; those that are not called last."""
    modules = dict(network.named_modules())
    own: dict[str, list[nn.Parameter]] = defaultdict(list)
    for name, parameter in network.named_parameters():
        own[_owner(name.rpartition(".")[0])].append(parameter)
    outputs: dict[str, list[int]] = {}
    calls: Counter[str] = Counter()
    for call in found.modules:
        calls[call.path] += 1
        outputs.setdefault(call.path, list(call.shapes[0][1:]) if call.shapes else [])
    rows = []
    for path in dict.fromkeys([*outputs, *modules]):
        module = modules[path]
        inside = [child for name, child in module.named_children() if name != _PARAMETRIZED]
        below = sum(costs.get(f"{path}.{name}".lstrip("."), 0) for name, _ in module.named_children())
        macs = max(costs.get(path, 0) - below, 0)
        if _owner(path) != path or not (own[path] or macs or (not inside and path in outputs)):
            continue
        weights = [parameter for parameter in own[path] if parameter.dim() > 1]
        rows.append(
            LayerSummary(
                name=path,
                type=type(module).__name__.removeprefix("Parametrized"),
                output=outputs.get(path),
                calls=calls[path],
                parameters=sum(parameter.numel() for parameter in own[path]),
                weights=sum(weight.numel() for weight in weights),
                nonzero=sum(map(count_nonzero, weights)) if trained else None,
                macs=macs,
            )
        )
    return rows


def _owner(path: str) -> str:
    """Return the path of the layer to which a module belongs: a parametrization belongs to the layer of its weight."""
    parts = path.split(".")
    return ".".join(parts[: parts.index(_PARAMETRIZED)]) if _PARAMETRIZED in parts else path


def _nodes(found: Trace, layers: Sequence[LayerSummary], shape: Shape) -> list[Node]:
    """Return the graph: calls of layers that have no other layers inside, and the operations between them."""
    numbers = {layer.name: number for number, layer in enumerate(layers)}
    called = [layer.name for layer in layers if layer.output is not None]
    whole = {name for name in called if name and not any(other.startswith(f"{name}.") for other in called)}
    nodes = [Node(name=IMAGE, type="input", output=list(shape))]
    made: list[frozenset[int]] = []
    of_call: dict[int, int] = {}
    for number, operation in enumerate(found.operations):
        reads = {
            node
            for read in operation.reads
            if read.of_images
            for node in (made[read.maker] if read.maker is not None and read.maker < number else frozenset({0}))
        }
        call = _call(found, operation.inside, whole)
        if not operation.of_images or not operation.shapes:
            made.append(frozenset(reads))
            continue
        if call is None and operation.call.function in _PASSES:
            made.append(frozenset(reads))
            continue
        node = of_call.get(call, -1) if call is not None else -1
        if node < 0:
            node = len(nodes)
            output = list(operation.shapes[0][1:])
            if call is None:
                nodes.append(Node(name=operation.call.function.strip("_"), type="operation", output=output))
            else:
                of_call[call], one = node, found.modules[call]
                layer = layers[numbers[one.path]]
                output = list(one.shapes[0][1:]) if one.shapes else output
                nodes.append(Node(name=one.path, type=layer.type, output=output, layer=numbers[one.path]))
        nodes[node] = _reading(nodes[node], reads - {node})
        made.append(frozenset({node}))
    last = {node for read in found.outputs if read.maker is not None for node in made[read.maker]}
    output = list(found.outputs[0].shape[1:]) if found.outputs else []
    return [*nodes, _reading(Node(name=LOGITS, type="output", output=output), last)]


def _call(found: Trace, inside: int | None, whole: set[str]) -> int | None:
    """Return the call of a whole layer in which something happens; None between layers."""
    if inside is None:
        return None
    parts = found.modules[inside].path.split(".")
    owner = next((path for end in range(len(parts), 0, -1) if (path := ".".join(parts[:end])) in whole), None)
    if owner is None:
        return None
    return next(number for number in range(inside, -1, -1) if found.modules[number].path == owner)


def _reading(node: Node, reads: Iterable[int]) -> Node:
    return node.model_copy(update={"reads": sorted({*node.reads, *reads})})


def as_text(summary: Summary, width: int | None) -> str:
    """Return the summary as a table of at most `width` columns; None: any."""
    trained = summary.nonzero is not None
    columns = [
        Column("layer", left=True, shortened="middle"),
        Column("type", left=True, shortened="end", rank=1),
        Column("output"),
        Column("parameters"),
        Column("MACs"),
        *([Column("sparsity")] if trained else []),
    ]
    rows = []
    for layer in summary.layers:
        times = f" ({layer.calls} times)" if layer.calls > 1 else ""
        row = [layer.name or "(the network itself)", layer.type + times, shown(layer.output)]
        row += [f"{layer.parameters:,}" if layer.parameters else "", f"{layer.macs:,}" if layer.macs else ""]
        rows.append(row + ([percent(layer)] if trained else []))
    made = table(columns, rows, width)
    lines = [made.head, *made.rows, *made.note(width), "", *(wrapped(line, width) for line in totals(summary))]
    return "\n".join(lines)


def totals(summary: Summary) -> list[str]:
    """Return a sentence for each figure of the whole network."""
    frozen = summary.parameters - summary.trainable
    image = "x".join(map(str, summary.image))
    lines = [
        f"{summary.model} on images of {image}: {summary.parameters:,} parameters"
        + (f" ({frozen:,} of them frozen)" if frozen else "")
        + f", of them {summary.weights:,} weights of convolutions and linear layers; {summary.macs:,} MACs",
    ]
    if summary.nonzero is not None and summary.sparsity is not None:
        lines.append(f"{summary.nonzero:,} of these weights are not zero: sparsity {100 * summary.sparsity:.2f} %")
    return lines


def shown(output: Sequence[int] | None) -> str:
    """Return a shape in words."""
    return "not called" if output is None else "x".join(map(str, output)) or "1"


def percent(layer: LayerSummary) -> str:
    """Return the sparsity of a layer's weights in percent."""
    if layer.nonzero is None or not layer.weights:
        return ""
    return f"{100 * (1 - layer.nonzero / layer.weights):.2f} %"
