"""The channel groups of a network, before any weight is zero: which layers share channels, what joins them, and why
some can never be removed.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from compressor.thinning.graph import ChannelGraph, Node


@dataclass(frozen=True)
class Member:
    """A layer (or a parameter without one) that has channels of a group. `entries`: how many filters or inputs of it
    belong to them; several for each channel behind a flattened map.
    """

    name: str
    entries: int


@dataclass(frozen=True)
class Join:
    """An operation that brings layers together (add, cat, ...), and how often it does."""

    operation: str
    times: int


@dataclass(frozen=True)
class Group:
    """Channels that the same layers share. `cells`: their numbers in the graph; each is removed in all layers together.

    A layer whose output is concatenated, or split, with that of others belongs to several groups.
    """

    number: int
    cells: tuple[int, ...]
    makers: tuple[Member, ...]
    """The layers whose filters they are: a channel is unused only if all of them are pruned there."""
    readers: tuple[Member, ...]
    """The layers whose inputs they are."""
    companions: tuple[Member, ...]
    """The batch norms, depthwise convolutions and parameters of other kinds that lose the same channels."""
    joins: tuple[Join, ...]
    """The operations with several inputs that have its channels: they are added, multiplied, or put side by side."""
    limits: tuple[str, ...]
    """What restricts a removal without preventing it, in words."""
    reason: str | None
    """Why no channel of it can be removed, in words; None where they can."""

    @property
    def channels(self) -> int:
        """Return how many channels it has: the fewest filters or inputs that a layer has of it."""
        return min((member.entries for member in (*self.makers, *self.readers)), default=len(self.cells))

    @property
    def together(self) -> int:
        """Return how many of its channels can only be removed together."""
        return self.channels // len(self.cells)

    @property
    def verdict(self) -> str:
        """Return whether its channels can be removed, in words."""
        if self.reason is not None:
            return f"no: {self.reason}"
        return "; ".join([f"yes, {self.together} at a time" if self.together > 1 else "yes", *self.limits])

    def data(self) -> dict[str, Any]:
        """Return it as plain data for JSON: all fields but the cells, with the numbers of channels."""
        fields = asdict(self)
        del fields["cells"]
        return {"number": fields.pop("number"), "channels": self.channels, "together": self.together, **fields}


def in_short(groups: Sequence[Group]) -> str:
    """Return how many groups and channels there are, in words."""
    total, free = sum(g.channels for g in groups), sum(g.channels for g in groups if g.reason is None)
    return f"{len(groups)} groups; {free:,} of {total:,} channels can be removed"


def groups(graph: ChannelGraph) -> tuple[Group, ...]:
    """Return the channels of a network in groups, in the order of the forward pass.

    Two channels are in one group if the same entries of the same layers share them, and both can be removed with the
    same limits or stay for one reason.
    """
    held: list[dict[_Hold, None]] = [{} for _ in range(graph.cells)]
    first: dict[int, tuple[int, int]] = {}
    for number, node in enumerate(graph.nodes):
        if node.kind in ("producer", "depthwise", "norm"):
            for place, cell in enumerate(node.out.tolist()):
                first.setdefault(cell, (number, place))
            roles: tuple[tuple[_Role, Tensor | None], ...] = ((_role(node), node.out), ("readers", node.into))
            for role, side in roles:
                for cell, entries in _counted(side):
                    held[cell][role, node.label, entries] = None
    for name, lines in _parameters(graph):
        counts = Counter[int]()
        for line in lines:
            counts |= Counter(dict(_counted(line)))
        for cell, entries in counts.items():
            held[cell]["companions", name, entries] = None
    limits = _limits(graph)
    together: dict[tuple[tuple[_Hold, ...], tuple[str, ...], str | None], list[int]] = defaultdict(list)
    for cell, mine in enumerate(held):
        if mine:
            reason = graph.keeps.get(cell)
            together[tuple(mine), () if reason else tuple(limits[cell]), reason].append(cell)
    order = sorted(together, key=lambda key: min(first.get(cell, (len(graph.nodes), cell)) for cell in together[key]))
    found = [
        Group(number, tuple(together[key]), *_members(*key, len(together[key]))) for number, key in enumerate(order, 1)
    ]
    times = Counter((group, node.label) for node, joined in joining(graph, found) for group in sorted(joined))
    joins: dict[int, list[Join]] = defaultdict(list)
    for (number, operation), count in times.items():
        joins[number].append(Join(operation, count))
    return tuple(replace(group, joins=tuple(joins[group.number])) for group in found)


_Role = Literal["makers", "readers", "companions"]
_Hold = tuple[_Role, str, int]
"""What a layer has of a channel: its role, its name, and the number of its entries."""


def _role(node: Node) -> _Role:
    return "makers" if node.kind == "producer" else "companions"


def _members(
    held: Sequence[_Hold], limits: tuple[str, ...], reason: str | None, channels: int
) -> tuple[tuple[Member, ...], tuple[Member, ...], tuple[Member, ...], tuple[Join, ...], tuple[str, ...], str | None]:
    """Return the fields of a group from its makers on; joins come later."""
    of: dict[_Role, list[Member]] = {"makers": [], "readers": [], "companions": []}
    for role, name, entries in held:
        of[role].append(Member(name, entries * channels))
    return tuple(of["makers"]), tuple(of["readers"]), tuple(of["companions"]), (), limits, reason


def _counted(side: Tensor | None) -> Iterator[tuple[int, int]]:
    """Yield each cell of a layer's side with the number of its entries."""
    if side is not None:
        found, counts = torch.unique(side[side >= 0], return_counts=True)
        yield from zip(found.tolist(), counts.tolist(), strict=True)


def _parameters(graph: ChannelGraph) -> Iterator[tuple[str, list[Tensor]]]:
    """Yield the parameters and buffers that belong to no layer, with the cells of each of their dims."""
    of_layers = {name for node in graph.nodes if not node.owned for name in (node.weight, node.label)}
    for name, lines in graph.slices.items():
        if name not in of_layers and name.rpartition(".")[0] not in graph.modules:
            yield name, [line for line in lines if line is not None]


def _limits(graph: ChannelGraph) -> defaultdict[int, dict[str, None]]:
    """Return what restricts the removal of channels, in words, by cell."""
    found: defaultdict[int, dict[str, None]] = defaultdict(dict)
    for cell, reason in graph.ties.items():
        found[cell][reason] = None
    for node in graph.nodes:
        if node.kind == "producer" and node.groups > 1:
            said = f"the {node.groups} groups of {node.label} must lose the same number of channels"
            for side in (node.out, node.into):
                for cell, _ in _counted(side):
                    found[cell][said] = None
    never: dict[int, str] = {}
    for number, node in enumerate(graph.nodes):
        if node.kind == "operation" and node.zero == "never":
            for cell in graph.cells_of[number].tolist():
                never.setdefault(cell, node.label)
    for cell in _nonzero(graph).nonzero().flatten().tolist():
        what = never.get(cell, "an operation after it")
        said = f"{what} is not 0 where its input is 0: it goes where each layer that reads it can absorb a constant"
        found[cell][said] = None
    return found


def _nonzero(graph: ChannelGraph) -> Tensor:
    """Return [cells]: those that a layer reads as not 0 where all filters of the network are 0."""
    channels = graph.channels.cells
    pruned = {name: torch.ones(len(cells), dtype=torch.bool) for (name, dim), cells in channels.items() if dim == 0}
    alive = torch.zeros(max(graph.cells, 1), dtype=torch.bool)
    for node, read, zero in graph.readers(graph.zeroed(pruned)):
        assert node.into is not None
        alive[node.into[read & ~zero]] = True
    return alive


def joining(graph: ChannelGraph, groups: Sequence[Group]) -> Iterator[tuple[Node, Mapping[int, int]]]:
    """Yield the operations that bring layers together, in the order of the forward pass, with the numbers of their
    groups, and how many inputs have each; once where the forms of evaluation and of training have the same.
    """
    group_of = torch.zeros(max(graph.cells, 1), dtype=torch.long)
    for group in groups:
        group_of[list(group.cells)] = group.number
    passing = [set(torch.unique(group_of[cells]).tolist()) - {0} for cells in graph.cells_of]
    known: dict[tuple[str, tuple[int, ...]], int] = {}
    alike: list[int] = []
    for number, node in enumerate(graph.nodes):
        inputs = tuple(dict.fromkeys(alike[source] for source in node.inputs if alike[source] >= 0))
        seen = known.get((node.label, inputs), number)
        if seen == number and node.kind == "operation" and len(inputs) < 2:  # as dropout, which only training has
            alike.append(inputs[0] if inputs else -1)
            continue
        known[node.label, inputs] = seen
        alike.append(seen)
        if seen == number and node.kind == "operation":
            brings = [passing[source] & passing[number] for source in dict.fromkeys(node.inputs)]
            if sum(map(bool, brings)) > 1:
                yield node, Counter(group for own in brings for group in sorted(own))
