"""How a sparsity is shared over layers: one allocation in each file, registered."""

from compressor.allocation.allocation import Allocation, AnyAllocation, Goal, Layer, largest_remainders

__all__ = ["Allocation", "AnyAllocation", "Goal", "Layer", "largest_remainders"]
