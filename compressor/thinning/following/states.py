"""What is known while a network is followed, and the result."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from compressor.thinning.graph import Node
from compressor.thinning.labels import (
    Labels,
)

Fix = int | Literal["keep", "positions"]


@dataclass
class State:
    """What is known of a tensor.

    `sources`: the nodes that made it. `weight`: the parameter or buffer that it is, or was made from alone. `sites`:
    the operations since the last layer that may have put its channels into other places. `zero`: it is 0 everywhere.
    `pairs`: the product, in words, of which each entry belongs to two channels.
    """

    labels: Labels = ()
    sources: tuple[int, ...] = ()
    weight: str | None = None
    sites: frozenset[int] = frozenset()
    zero: bool = False
    pairs: str = ""


@dataclass(frozen=True)
class Join:
    """Labels that belong together, and the operations that may be at fault where they do not: `sites`, last `at`."""

    first: Tensor
    second: Tensor
    sites: frozenset[int]
    at: int


@dataclass(frozen=True)
class Keep:
    """Labels of channels that cannot be removed, and the reason."""

    labels: Tensor
    reason: str


@dataclass(frozen=True)
class Reads:
    """An operation that reads channels at positions along a dim.

    `line` [size of dim]: their labels, of which `take` makes those of its results. `numbers`: its arguments. `place`:
    where it stands in the model's code.
    """

    line: Tensor
    numbers: tuple[Any, ...]
    take: Callable[[Tensor], Sequence[Tensor]]
    place: str = ""

    def fixed(self, cells: Tensor) -> list[int]:
        """Return the cells without which the operation would read others; `cells`: those of `line`."""
        return [cell for cell in torch.unique(cells).tolist() if cell >= 0 and self._moves(cells, cell)]

    def _moves(self, cells: Tensor, cell: int) -> bool:
        places = torch.arange(len(cells))
        stay = cells != cell
        try:
            found = [one.reshape(-1) for one in self.take(places[stay])]
        except (IndexError, RuntimeError):
            return True
        wanted = [one[stay[one]] for one in (each.reshape(-1) for each in self.take(places))]
        return len(found) != len(wanted) or not all(map(torch.equal, found, wanted))


@dataclass
class Followed:
    """The result: nodes whose cells are still labels, the labels that are joined, and those that are kept."""

    nodes: list[Node] = field(default_factory=list)
    joins: list[Join] = field(default_factory=list)
    keeps: list[Keep] = field(default_factory=list)
    ties: list[Keep] = field(default_factory=list)
    """Labels of channels that can only be removed together with others, and the reason."""
    slices: dict[str, Labels] = field(default_factory=dict)
    """By parameter and buffer: the labels of each dim [its size]."""
    drew: bool = False
    """Whether it drew a single number, by which it may choose what it runs."""
    operations: int = 0
    """The number of the operation that raised, if any did."""
    last: int = 0
    """The number of the last operation."""
    places: dict[int, str] = field(default_factory=dict)
    """Where in the model's code each operation stands that may have put channels into other places."""
    numbers: dict[int, tuple[float, ...]] = field(default_factory=dict)
    """The numbers with which each operation combines its tensors, entry by entry."""
    given: dict[int, State] = field(default_factory=dict)
    """What is known of the tensors that it combines with a number."""
    results: dict[int, tuple[Tensor, ...]] = field(default_factory=dict)
    """The labels of the results of those operations."""
    lineage: dict[int, frozenset[int]] = field(default_factory=dict)
    """Those that came before each of them since the last layer, and itself."""
    reads: dict[int, Reads] = field(default_factory=dict)
    """Those that read channels at positions of which some may be hard-coded."""
    hard_coded: list[Reads] = field(default_factory=list)
    """Those of which this is known."""
    equal: dict[int, int] = field(default_factory=dict)
    """Those that make parts of equal size, which can lose the same channels; of a view the dim in which these are."""
    failed: BaseException | None = None
    """What the forward pass raised."""
    failed_in: frozenset[int] = frozenset()
    """The operations that may be at fault then, and the one that raised."""
    failed_labels: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    """The labels that it was given."""
