"""What a policy sees of a run: the network, the optimizer, the data, and what it leaves for the report."""

from compressor.context.context import Context, NoAverages, Records
from compressor.context.data import Batches, Data, Part
from compressor.context.network import Network
from compressor.context.optimizer import Groups, OptimizerView, steps_by_entry
from compressor.context.view import GATED, Budgeted, Finding, Prediction, View, Widths

__all__ = [
    "GATED",
    "Batches",
    "Budgeted",
    "Context",
    "Data",
    "Finding",
    "Groups",
    "Network",
    "NoAverages",
    "OptimizerView",
    "Part",
    "Prediction",
    "Records",
    "View",
    "Widths",
    "steps_by_entry",
]
