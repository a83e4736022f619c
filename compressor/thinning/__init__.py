"""Physical removal of channels: which can be removed, and all tensors that change with them."""

from compressor.thinning.architecture import Architecture, describe, resize
from compressor.thinning.channel_use import channels_read, channels_with_inputs, producers_of
from compressor.thinning.compaction import compact_layers, thin_and_compact
from compressor.thinning.costs import Cost, Unit, cost_of, removed_with, unused_with
from compressor.thinning.coupling import couplings, removable
from compressor.thinning.cutting import Cut
from compressor.thinning.equivalence import TOLERANCE, Difference, Thinned, difference, thin
from compressor.thinning.graph import ChannelGraph, NeedsValues, Untraceable
from compressor.thinning.group_picture import groups_as_svg
from compressor.thinning.group_table import groups_as_table, groups_in_short
from compressor.thinning.groups import Group, groups, in_short
from compressor.thinning.layers import CONVOLUTIONS, dims, shapes_of
from compressor.thinning.norms import following_norms, read_before_norm
from compressor.thinning.reading import channel_graph
from compressor.thinning.removers import Remover
from compressor.thinning.stays import NOTHING_REMOVED, nothing_removed, nothing_zero

__all__ = [
    "CONVOLUTIONS",
    "NOTHING_REMOVED",
    "TOLERANCE",
    "Architecture",
    "ChannelGraph",
    "Cost",
    "Cut",
    "Difference",
    "Group",
    "NeedsValues",
    "Remover",
    "Thinned",
    "Unit",
    "Untraceable",
    "channel_graph",
    "channels_read",
    "channels_with_inputs",
    "compact_layers",
    "cost_of",
    "couplings",
    "describe",
    "difference",
    "dims",
    "following_norms",
    "groups",
    "groups_as_svg",
    "groups_as_table",
    "groups_in_short",
    "in_short",
    "nothing_removed",
    "nothing_zero",
    "producers_of",
    "read_before_norm",
    "removable",
    "removed_with",
    "resize",
    "shapes_of",
    "thin",
    "thin_and_compact",
    "unused_with",
]
