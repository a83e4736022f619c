"""How much is pruned, by time: one rate a file, registered; and the window in which a policy is active."""

from compressor.rates.rate import AnyRate, Rate, Sparsity, SparsityGoal, State, ThresholdGoal
from compressor.rates.thresholds import ThresholdRate

__all__ = ["AnyRate", "Rate", "Sparsity", "SparsityGoal", "State", "ThresholdGoal", "ThresholdRate"]
