"""How much is pruned, by time: one rate in each file, registered."""

from compressor.rates.agp import AgpRate
from compressor.rates.baidu import BaiduRate
from compressor.rates.bernoulli import BernoulliRate
from compressor.rates.budgets import Budget, least_sparsity
from compressor.rates.random import RandomRate
from compressor.rates.rate import AnyRate, BudgetGoal, Rate, Sparsity, SparsityGoal, State, ThresholdGoal
from compressor.rates.sparsity import ConstantRate
from compressor.rates.std import StdRate
from compressor.rates.threshold import ConstantThreshold
from compressor.rates.thresholds import Positive, ThresholdRate

__all__ = [
    "AgpRate",
    "AnyRate",
    "BaiduRate",
    "BernoulliRate",
    "Budget",
    "BudgetGoal",
    "ConstantRate",
    "ConstantThreshold",
    "Positive",
    "RandomRate",
    "Rate",
    "Sparsity",
    "SparsityGoal",
    "State",
    "StdRate",
    "ThresholdGoal",
    "ThresholdRate",
    "least_sparsity",
]
