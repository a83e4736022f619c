"""Scores of structures: one criterion in each file, registered; structures of high score stay."""

from compressor.criteria.activations import ActivationCriterion
from compressor.criteria.apoz import APoZ
from compressor.criteria.criterion import PROVIDED, AnyCriterion, BatchNorm, Criterion, Given, unit_length
from compressor.criteria.gradient import GradientCriterion
from compressor.criteria.l1 import L1Norm
from compressor.criteria.l2 import L2Norm
from compressor.criteria.largest import Largest
from compressor.criteria.mean_abs import MeanAbs
from compressor.criteria.mean_activation import MeanActivation
from compressor.criteria.random import Chance

__all__ = [
    "PROVIDED",
    "APoZ",
    "ActivationCriterion",
    "AnyCriterion",
    "BatchNorm",
    "Chance",
    "Criterion",
    "Given",
    "GradientCriterion",
    "L1Norm",
    "L2Norm",
    "Largest",
    "MeanAbs",
    "MeanActivation",
    "unit_length",
]
