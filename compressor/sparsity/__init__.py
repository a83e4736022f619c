"""Zeros: which weights there are, which are kept, how many are zero."""

from compressor.sparsity.channels import Channels, Slices
from compressor.sparsity.computed import Computed, computed, in_use
from compressor.sparsity.counting import count_nonzero
from compressor.sparsity.cutter import Cutter
from compressor.sparsity.masks import Masks, Mode
from compressor.sparsity.normal import expected_relu
from compressor.sparsity.outputs_first import outputs_first, shape_outputs_first, turned_layers
from compressor.sparsity.substitution import Substitution, Substitutions
from compressor.sparsity.summary import WeightSummary, summarize
from compressor.sparsity.topk import Rounding, pruned_count, smallest, structures_to_prune
from compressor.sparsity.weights import PRUNABLE, bias_of, biases_of, is_bias, prunable, weight_count

__all__ = [
    "PRUNABLE",
    "Channels",
    "Computed",
    "Cutter",
    "Masks",
    "Mode",
    "Rounding",
    "Slices",
    "Substitution",
    "Substitutions",
    "WeightSummary",
    "bias_of",
    "biases_of",
    "computed",
    "count_nonzero",
    "expected_relu",
    "in_use",
    "is_bias",
    "outputs_first",
    "prunable",
    "pruned_count",
    "shape_outputs_first",
    "smallest",
    "structures_to_prune",
    "summarize",
    "turned_layers",
    "weight_count",
]
