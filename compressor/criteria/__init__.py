"""Scores of structures: one criterion in each file, registered; structures of high score stay."""

from compressor.criteria.activations import ActivationCriterion
from compressor.criteria.criterion import PROVIDED, AnyCriterion, BatchNorm, Criterion, Given, unit_length

__all__ = ["PROVIDED", "ActivationCriterion", "AnyCriterion", "BatchNorm", "Criterion", "Given", "unit_length"]
