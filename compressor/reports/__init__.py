"""The report of a network, and its forms: table, CSV and JSON; what a run's folder has recorded for it."""

from compressor.reports.histogram import histograms
from compressor.reports.latency import Latency, in_turns
from compressor.reports.recorded import Evaluation, Recorded, read, reference_run
from compressor.reports.report import EarlierTest, Report, Sparsities, Thinning, compared, measure, sparsities

__all__ = [
    "EarlierTest",
    "Evaluation",
    "Latency",
    "Recorded",
    "Report",
    "Sparsities",
    "Thinning",
    "compared",
    "histograms",
    "in_turns",
    "measure",
    "read",
    "reference_run",
    "sparsities",
]
