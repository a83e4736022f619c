"""Zeros: which weights there are, which are kept, how many are zero."""

from compressor.sparsity.channels import Channels, Slices
from compressor.sparsity.computed import Computed, computed, in_use
from compressor.sparsity.counting import count_nonzero
from compressor.sparsity.cutter import Cutter
from compressor.sparsity.entries import (
    any_nonzero,
    any_of_rows,
    compare,
    magnitudes,
    nonzero,
    selected,
    set_small_to_zero,
    set_to_zero,
    squares,
    words,
)
from compressor.sparsity.masks import Masks, Mode
from compressor.sparsity.normal import expected_relu
from compressor.sparsity.outputs_first import outputs_first, shape_outputs_first, turned_layers
from compressor.sparsity.pieces import PIECE, copied, joined, map_pieces, new, new_like, pieces
from compressor.sparsity.substitution import Substitution, Substitutions
from compressor.sparsity.summary import WeightSummary, summarize
from compressor.sparsity.topk import Rounding, pruned_count, smallest, structures_to_prune
from compressor.sparsity.weights import PRUNABLE, bias_of, biases_of, is_bias, prunable, weight_count

__all__ = [
    "PIECE",
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
    "any_nonzero",
    "any_of_rows",
    "bias_of",
    "biases_of",
    "compare",
    "computed",
    "copied",
    "count_nonzero",
    "expected_relu",
    "in_use",
    "is_bias",
    "joined",
    "magnitudes",
    "map_pieces",
    "new",
    "new_like",
    "nonzero",
    "outputs_first",
    "pieces",
    "prunable",
    "pruned_count",
    "selected",
    "set_small_to_zero",
    "set_to_zero",
    "shape_outputs_first",
    "smallest",
    "squares",
    "structures_to_prune",
    "summarize",
    "turned_layers",
    "weight_count",
    "words",
]
