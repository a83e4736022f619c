"""The units that are pruned, one a file: each is registered, and may be named in a schedule.

The constants are those without arguments.
"""

from compressor.sparsity.structures.blocks import Blocks
from compressor.sparsity.structures.channels import ChannelSlices
from compressor.sparsity.structures.columns import Columns
from compressor.sparsity.structures.elements import Elements
from compressor.sparsity.structures.filters import Filters
from compressor.sparsity.structures.groups import Group, Groups, Pair, groups
from compressor.sparsity.structures.kernels import Kernels
from compressor.sparsity.structures.layer import WholeWeight
from compressor.sparsity.structures.rows import Rows
from compressor.sparsity.structures.runs import Runs, largest_of_runs
from compressor.sparsity.structures.shapes import Shapes
from compressor.sparsity.structures.structure import AnyStructure, Norm, Shape, Structure, plain_structures
from compressor.sparsity.structures.taps import Taps

ELEMENTS = Elements()
KERNELS = Kernels()
FILTERS = Filters()
CHANNELS = ChannelSlices()
ROWS = Rows()
COLS = Columns()
LAYER = WholeWeight()
SHAPES = Shapes()

__all__ = [
    "CHANNELS",
    "COLS",
    "ELEMENTS",
    "FILTERS",
    "KERNELS",
    "LAYER",
    "ROWS",
    "SHAPES",
    "AnyStructure",
    "Blocks",
    "Group",
    "Groups",
    "Norm",
    "Pair",
    "Runs",
    "Shape",
    "Structure",
    "Taps",
    "groups",
    "largest_of_runs",
    "plain_structures",
]
