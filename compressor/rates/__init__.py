"""How much is pruned, by time: one rate in each file, registered."""

from compressor.rates.rate import AnyRate, Rate, Sparsity, SparsityGoal, State, ThresholdGoal
from compressor.rates.thresholds import ThresholdRate

__all__ = ["AnyRate", "Rate", "Sparsity", "SparsityGoal", "State", "ThresholdGoal", "ThresholdRate"]
