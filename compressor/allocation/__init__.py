"""How a sparsity is shared over layers: one allocation in each file, registered."""

from compressor.allocation.allocation import Allocation, AnyAllocation, Goal, Layer, largest_remainders
from compressor.allocation.global_ranking import Global
from compressor.allocation.uniform import Uniform

__all__ = ["Allocation", "AnyAllocation", "Global", "Goal", "Layer", "Uniform", "largest_remainders"]
