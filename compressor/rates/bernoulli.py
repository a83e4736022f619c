"""Random pruning of each structure: Chen, Niu and Tian, "DropFilter", 2018 (arXiv 1810.09849), as in Distiller."""

from typing import ClassVar

import torch
from pydantic import Field

from compressor.rates.agp import agp
from compressor.rates.rate import Rate, Sparsity, SparsityGoal, State
from compressor.sparsity import PIECE
from compressor.timing import Window


class BernoulliRate(Rate, name="bernoulli"):
    """Prune each structure with a probability, constant or rising along AGP's cubic; the number is random."""

    example: ClassVar[str] = "{bernoulli: 0.4}"
    main: ClassVar[str] = "probability"
    by_itself: ClassVar[bool] = True

    probability: Sparsity = Field(description="probability with which each structure is pruned, at each event")
    initial: Sparsity | None = Field(
        default=None,
        description="probability at the first event, from which it rises along AGP's cubic; default: constant",
    )

    def _now(self, window: Window, time: int) -> float:
        return self.probability if self.initial is None else agp(self.initial, self.probability, window, time)

    def goal(self, window: Window, time: int, state: State) -> SparsityGoal:
        share = self._now(window, time)
        return SparsityGoal(share, lambda total: _draws(total, share, state.stream))

    def unknown(self) -> str:
        return "each is pruned by chance"

    def threshold(self, window: Window, time: int) -> str:
        return f"each with probability {self._now(window, time):g}"

    def scale(self, window: Window, time: int) -> float:
        share = self._now(window, time)
        return 1 / (1 - share) if share < 1 else 1.0


def _draws(total: int, share: float, stream: torch.Generator | None) -> int:
    """Return how many of `total` draws are below `share`."""
    left = [min(PIECE, total - first) for first in range(0, total, PIECE)]  # a draw of all would be new, slow memory
    return sum(int((torch.rand(count, generator=stream) < share).sum()) for count in left)
