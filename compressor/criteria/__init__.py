"""By what structures are ranked: one criterion a file, registered, high = stays."""

from compressor.criteria.activations import ActivationCriterion
from compressor.criteria.criterion import PROVIDED, AnyCriterion, BatchNorm, Criterion, Given, unit_length

__all__ = ["PROVIDED", "ActivationCriterion", "AnyCriterion", "BatchNorm", "Criterion", "Given", "unit_length"]
