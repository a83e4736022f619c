"""Pruning in equal events: Bartoldson et al., "The Generalization-Stability Tradeoff", NeurIPS 2020 (their code)."""

from typing import ClassVar

from pydantic import Field

from compressor.rates.rate import Rate, Sparsity, SparsityGoal
from compressor.sparsity import pruned_count
from compressor.timing import Window


def left_after(sparsity: float, total: int, event: int, events: int) -> int:
    """Return how many of N0 = `total` are left after event i = 1 ... n: ceil(F + (N0 - F)(n - i) / n), F = ceil((1 -
    s) N0).

    F itself is exact after the last one; 512 filters and 90 % in 7 events: 447, 381, 315, 250, 184, 118, 52.
    """
    going = pruned_count(sparsity, total)
    return total - going + -(-going * (events - event) // events)


class EventsRate(Rate, name="events"):
    """Reach a sparsity in equal parts, one at each event of the window; pruned weights stay pruned."""

    example: ClassVar[str] = "{events: 0.6}"
    main: ClassVar[str] = "sparsity"
    final: ClassVar[bool] = True

    sparsity: Sparsity = Field(
        description="fraction that is pruned after the last event; each event prunes an equal part of it"
    )

    def foresee(self, window: Window, time: int) -> SparsityGoal:
        event, events = window.number(time), window.firings
        return SparsityGoal(
            self.sparsity * (event / events), lambda total: total - left_after(self.sparsity, total, event, events)
        )
