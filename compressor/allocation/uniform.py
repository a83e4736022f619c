"""The same sparsity in each layer."""

from collections.abc import Sequence

from torch import Tensor

from compressor.allocation.allocation import Allocation, Goal, Layer


class Uniform(Allocation, name="uniform"):
    """Give each layer the same sparsity."""

    def counts(self, layers: Sequence[Layer], goal: Goal, scores: Sequence[Tensor] | None = None) -> list[int]:
        return [goal.count(layer.count) for layer in layers]
