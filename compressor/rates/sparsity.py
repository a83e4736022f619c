"""A constant sparsity."""

from typing import ClassVar

from pydantic import Field

from compressor.rates.rate import Rate, Sparsity, SparsityGoal
from compressor.timing import Window


class ConstantRate(Rate, name="sparsity"):
    """Prune a constant sparsity."""

    example: ClassVar[str] = "{sparsity: 0.4}"
    main: ClassVar[str] = "sparsity"

    sparsity: Sparsity = Field(description="fraction that is pruned, at every event")

    def foresee(self, window: Window, time: int) -> SparsityGoal:
        return SparsityGoal(self.sparsity)
