"""The channel groups of a network, before any weight is zero: which layers share channels, what joins them, and why
some can never be removed.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from compressor.thinning.graph import ChannelGraph

OUTPUT = "they are the network's output"


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
    limits: tuple[str, ...]
    """What restricts a removal without preventing it, in words."""
    reason: str | None
    """Why no channel of it can be removed, in words; None where they can."""

    @property
    def channels(self) -> int:
        """Return how many channels can be removed one by one."""
        return len(self.cells)

    @property
    def verdict(self) -> str:
        """Return whether its channels can be removed, in words."""
        if self.reason is not None:
            return f"no: {self.reason}"
        return "yes" + "".join(f", but {limit}" for limit in self.limits)

    def data(self) -> dict[str, Any]:
        """Return it as plain data for JSON: all fields but the cells, with the number of channels."""
        fields = asdict(self)
        del fields["cells"]
        return {"number": fields.pop("number"), "channels": self.channels, **fields}


def in_short(groups: Sequence[Group]) -> str:
    """Return how many groups and channels there are, in words."""
    total, free = sum(g.channels for g in groups), sum(g.channels for g in groups if g.reason is None)
    return f"{len(groups)} groups; {free:,} of {total:,} channels can be removed"


def groups(graph: ChannelGraph) -> tuple[Group, ...]:
    """Return the channels of a network in groups, in the order of the forward pass.

    Two channels are in one group if the same entries of the same layers share them, and both can be removed or stay for
    one reason.
    """
    cells, kept = graph.cells, graph.keeps
    places: list[list[tuple[int, bool, int]]] = [[] for _ in range(cells)]
    first: dict[int, tuple[int, int]] = {}
    for number, node in enumerate(graph.nodes):
        if node.kind == "operation":
            continue
        for place, cell in enumerate(node.out.tolist()):
            first.setdefault(cell, (number, place))
        for side, reads in ((node.out, False), (node.into, True)):
            for cell, entries in _counted(side):
                places[cell].append((number, reads, entries))
    together: dict[tuple[tuple[tuple[int, bool, int], ...], str | None], list[int]] = defaultdict(list)
    for cell, held_by in enumerate(places):
        if held_by:
            together[tuple(held_by), kept.get(cell)].append(cell)
    order = sorted(together, key=lambda key: min(first.get(cell, (len(graph.nodes), cell)) for cell in together[key]))
    group_of = torch.full((max(cells, 1),), -1, dtype=torch.long)
    for place, key in enumerate(order):
        group_of[together[key]] = place
    joins = _joins(graph, group_of)
    nonzero = set(group_of[_nonzero(graph)].tolist())
    found = []
    for place, (held, reason) in enumerate(order):
        mine = together[held, reason]
        members = _Members(graph, held, len(mine))
        limits = list(members.limits)
        if reason is None and place in nonzero:
            limits.append(NOT_ZERO)
        found.append(
            Group(
                place + 1,
                tuple(mine),
                members.of("makers"),
                members.of("readers"),
                members.of("companions"),
                tuple(Join(*item) for item in joins[place].items()),
                tuple(limits),
                reason,
            )
        )
    return tuple(found)


NOT_ZERO = (
    "an operation after it is not 0 where its input is 0: a pruned channel is removed only where each layer that reads"
    " it can absorb a constant"
)


class _Members:
    """The layers of one group by role."""

    def __init__(self, graph: ChannelGraph, held: tuple[tuple[int, bool, int], ...], channels: int) -> None:
        self._roles: dict[str, dict[str, int]] = {"makers": {}, "readers": {}, "companions": {}}
        self.limits: dict[str, None] = {}
        produced = any(graph.nodes[number].kind == "producer" and not reads for number, reads, _ in held)
        for number, reads, entries in held:
            node = graph.nodes[number]
            role = "readers" if reads else "makers" if node.kind == "producer" else "companions"
            if node.kind == "depthwise" and not produced:  # it reads the image, each of its channels alone
                role = "makers"
            if node.kind == "mixing":  # it is named by the reason
                continue
            count = self._roles[role].get(node.label, 0)
            self._roles[role][node.label] = max(count, entries * channels)
            parts = int(getattr(graph.modules.get(node.label), "groups", 1)) if node.kind == "producer" else 1
            if parts > 1:
                self.limits[f"the {parts} groups of {node.label} must lose the same number of channels"] = None

    def of(self, role: str) -> tuple[Member, ...]:
        return tuple(Member(name, entries) for name, entries in self._roles[role].items())


def _counted(side: Tensor | None) -> Iterator[tuple[int, int]]:
    """Yield each cell of a layer's side with the number of its entries."""
    if side is not None:
        found, counts = torch.unique(side[side >= 0], return_counts=True)
        yield from zip(found.tolist(), counts.tolist(), strict=True)


def _joins(graph: ChannelGraph, group_of: Tensor) -> defaultdict[int, dict[str, int]]:
    """Return the operations with several inputs that bring channels, by group, and how often each occurs."""
    passing = [set(group_of[node.out[node.out >= 0]].tolist()) for node in graph.nodes]
    found: defaultdict[int, dict[str, int]] = defaultdict(dict)
    for node, mine in zip(graph.nodes, passing, strict=True):
        if node.kind == "operation" and sum(bool(passing[source] & mine) for source in node.inputs) > 1:
            for group in mine:
                found[group][node.label] = found[group].get(node.label, 0) + 1
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
