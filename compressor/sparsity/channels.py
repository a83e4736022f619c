"""Which channels of which weights live and die together, as numbers: what a pruner needs of a network's graph."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

Slices = tuple[str, int]
"""A weight's name and the dim whose entries are meant."""


@dataclass(frozen=True)
class Channels:
    """`cells` has, for a weight and one of its dims, the cell of each entry: entries of one cell are one channel.

    -1: of no channel that could be removed. `part` says of each cell which group of a grouped convolution it lies in,
    so that pruning can take as many of each; -1: of none.
    """

    cells: Mapping[Slices, Tensor] = field(default_factory=dict)
    part: Tensor | None = None

    def joined(self, slices: Sequence[Slices]) -> list[list[Slices]]:
        """The given slices, in sets that share channels, in their order."""
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

    def closure(self, names: Sequence[str], dim: int) -> list[str]:
        """The given weights, and after them all others that share channels in that dim with one of them."""
        others = [one for one in self.cells if one[1] == dim and one[0] not in names]
        given = [(name, dim) for name in names]
        sets = self.joined([*given, *others])
        wanted = [one for members in sets if set(members) & set(given) for one in members]
        return list(dict.fromkeys([*names, *(name for name, _ in wanted)]))
