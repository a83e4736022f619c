"""The base class of all allocations: how a sparsity is shared over layers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Protocol

from torch import Tensor

from compressor.component import Component, Named


@dataclass(frozen=True)
class Layer:
    """A weight, or several that share channels and are pruned as one; `shape` is the dense shape of the first.

    It has `count` structures of `size` weights each; `removed` of them were thinned away, and `spare` must stay.
    """

    name: str
    shape: tuple[int, ...]
    count: int
    size: int = 1
    removed: int = 0
    spare: int = 0
    type: str = ""
    """The class of the layer's module, where it is known: Conv2d, Linear ..."""


class Goal(Protocol):
    """The goal over all layers together."""

    @property
    def sparsity(self) -> float:
        """Return the fraction of the structures that is pruned."""

    def count(self, total: int) -> int:
        """Return how many of `total` structures are pruned, exactly."""


class Allocation(Component):
    """A way to share a sparsity over layers."""

    section: ClassVar[str] = "allocations"
    needs_scores: ClassVar[bool] = False
    """Whether it uses the scores. They are made comparable then (see `Criterion`), and also rank within a layer."""

    def counts(self, layers: Sequence[Layer], goal: Goal, scores: Sequence[Tensor] | None = None) -> list[int]:
        """Return how many structures of each layer are pruned, including those that were removed.

        Args:
            layers: the layers, in the network's order.
            goal: `goal.count(total)` says how many of all structures together are pruned, exactly.
            scores: for each layer a vector of the structures that are left; the smallest are pruned first, of equal
                ones the first, and -inf means pruned already. None where `needs_scores` is false: then the counts are
                known before a run.

        Returns:
            A number for each layer, at most `layer.count - layer.spare`.
        """
        raise TypeError(f"{type(self).__name__} has no counts: define `counts`")

    def chosen(self, layers: Sequence[Layer], goal: Goal, scores: Sequence[Tensor]) -> list[Tensor] | None:
        """Return which structures are pruned, where `counts` finds them anyway.

        Args:
            layers: the layers, in the network's order.
            goal: the goal over all layers together.
            scores: for each layer a vector of the structures that are left.

        Returns:
            For each layer a vector, true where a structure is pruned; None: they are ranked by their scores.
        """
        return None


AnyAllocation = Annotated[Allocation, Named("allocation", "allocations")]
"""A field that names an allocation."""


def largest_remainders(shares: Sequence[float], total: int) -> list[int]:
    """Return whole numbers with the sum `total`: the shares rounded down, and 1 more for the largest remainders.

    Of equal remainders the first get it. The sum of the shares should be `total`, up to rounding.
    """
    counts = [math.floor(share) for share in shares]
    order = sorted(range(len(shares)), key=lambda place: (counts[place] - shares[place], place))
    for place in order[: max(total - sum(counts), 0)]:
        counts[place] += 1
    return counts
