"""From a pruner to the masks of a network: what the policies that prune share, and what depends on a run's parts."""

from compressor.masking.budgets import left_of
from compressor.masking.checking import check_classes, check_logits, check_pruner, check_removable
from compressor.masking.masks import (
    companions,
    complete_targets,
    masks_of,
    pruned_weights,
    require_batch_norms,
    running_criterion,
)
from compressor.masking.merging import merge_batch_norms
from compressor.masking.predicting import AFTER_REMOVALS, predict_outputs, predict_zeros, zeros_of_goals
from compressor.masking.statistics import RunningMeans
from compressor.masking.survivors import Scaling, survivor_factors

__all__ = [
    "AFTER_REMOVALS",
    "RunningMeans",
    "Scaling",
    "check_classes",
    "check_logits",
    "check_pruner",
    "check_removable",
    "companions",
    "complete_targets",
    "left_of",
    "masks_of",
    "merge_batch_norms",
    "predict_outputs",
    "predict_zeros",
    "pruned_weights",
    "require_batch_norms",
    "running_criterion",
    "survivor_factors",
    "zeros_of_goals",
]
