"""Automated gradual pruning: Zhu and Gupta, "To prune, or not to prune", 2017 (arXiv 1710.01878), equation 1."""

from typing import ClassVar

from pydantic import Field

from compressor.rates.rate import Rate, Sparsity, SparsityGoal
from compressor.timing import Window


def agp(initial: float, final: float, window: Window, epoch: int) -> float:
    """Return the sparsity at `epoch`: sf + (si - sf) (1 - (e - e0) / span)^3, with span = floor((e1 - e0 - 1) / f) * f.

    The span ends at the window's last event, where the sparsity is `final` exactly; a span of 0 gives `final`.
    """
    span = window.last - window.first
    if span == 0 or epoch >= window.last:
        return final
    if epoch <= window.first:
        return initial  # exactly; the sum below may be a bit less
    remaining = 1 - (epoch - window.first) / span
    return final + (initial - final) * remaining**3


class AgpRate(Rate, name="agp"):
    """Raise the sparsity along the cubic of Zhu and Gupta, fast at first."""

    example: ClassVar[str] = "{agp: {initial_sparsity: 0.1, final_sparsity: 0.6}}"

    initial_sparsity: Sparsity = Field(
        default=0.0, description="sparsity at the first event of the window, a fraction; default 0: none"
    )
    final_sparsity: Sparsity = Field(
        description="sparsity from the last event of the window on: the fraction that is zero"
    )

    def foresee(self, window: Window, time: int) -> SparsityGoal:
        return SparsityGoal(agp(self.initial_sparsity, self.final_sparsity, window, time))
