"""Coupled channels of weights, as numbers: what a pruner needs of a network's graph."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

Slices = tuple[str, int]
"""A weight's name and the dim whose entries are meant."""


@dataclass(frozen=True)
class Channels:
    """The channels of a network. `cells` has, for a weight and one of its dims, the cell of each entry.

    Entries with one cell are one channel and are removed together; -1: not a channel that can be removed. `part` has
    for each cell the group of the grouped convolution in which it lies, so that each group can lose as many; -1: none.
    """

    cells: Mapping[Slices, Tensor] = field(default_factory=dict)
    part: Tensor | None = None

    def joined(self, slices: Sequence[Slices]) -> list[list[Slices]]:
        """Return the given slices in sets that share channels, in the given order."""
        sets: list[tuple[set[int], list[Slices]]] = []
        for one in slices:
            cells = self.cells.get(one)
            mine = set() if cells is None else set(cells.tolist()) - {-1}
            touched = [entry for entry in sets if entry[0] & mine]
            for entry in touched:
                sets.remove(entry)
            merged = [s for entry in touched for s in entry[1]]
            sets.append((mine.union(*(entry[0] for entry in touched)), [*merged, one]))
        order = {one: number for number, one in enumerate(slices)}
        return sorted((sorted(members, key=order.__getitem__) for _, members in sets), key=lambda m: order[m[0]])

    def with_coupled(self, names: Sequence[str], dim: int) -> list[str]:
        """Return the given weights, and after them all others that share channels with them in that dim."""
        others = [one for one in self.cells if one[1] == dim and one[0] not in names]
        given = [(name, dim) for name in names]
        sets = self.joined([*given, *others])
        wanted = [one for members in sets if set(members) & set(given) for one in members]
        return list(dict.fromkeys([*names, *(name for name, _ in wanted)]))
