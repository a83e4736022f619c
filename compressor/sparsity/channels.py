"""Coupled channels of weights, as numbers: what a pruner needs of a network's graph."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

Slices = tuple[str, int]
"""A weight's name, and 0 for its outputs or 1 for its inputs: the dim where its outputs come first."""


@dataclass(frozen=True)
class Channels:
    """The channels of a network. `cells` has, for a weight and one of its sides (0: outputs, 1: inputs), the cell of
    each entry.

    Entries with one cell are one channel and are removed together; -1: not a channel that can be removed. `part` has
    for each cell the group of the grouped convolution in which it lies, so that each group can lose as many; -1: none.
    """

    cells: Mapping[Slices, Tensor] = field(default_factory=dict)
    part: Tensor | None = None

    def joined(self, slices: Sequence[Slices]) -> list[list[Slices]]:
        """Return the given slices in sets that share channels, in the given order."""
        first: dict[int, int] = {}  # of each cell: the first slices with it
        parent = list(range(len(slices)))

        def root(number: int) -> int:
            while parent[number] != number:
                parent[number] = number = parent[parent[number]]
            return number

        for number, one in enumerate(slices):
            cells = self.cells.get(one)
            for cell in () if cells is None else set(cells.tolist()) - {-1}:
                ends = sorted((root(number), root(first.setdefault(cell, number))))
                parent[ends[1]] = ends[0]
        sets: dict[int, list[Slices]] = {}
        for number, one in enumerate(slices):
            sets.setdefault(root(number), []).append(one)
        return list(sets.values())

    def with_coupled(self, names: Sequence[str], dim: int) -> list[str]:
        """Return the given weights, and after them all others that share channels with them in that dim."""
        given = {(name, dim): None for name in names}
        others = [one for one in self.cells if one[1] == dim and one not in given]
        sets = self.joined([*given, *others])
        wanted = [one for members in sets if not given.keys().isdisjoint(members) for one in members]
        return list(dict.fromkeys([*names, *(name for name, _ in wanted)]))
