"""The report of a network, and its forms: table, CSV and JSON; what a run's folder has recorded for it."""

from compressor.reports.histogram import histograms
from compressor.reports.recorded import Evaluation, Recorded, read, reference_run
from compressor.reports.report import EarlierTest, Report, Sparsities, Thinning, compared, measure, sparsities

__all__ = [
    "EarlierTest",
    "Evaluation",
    "Recorded",
    "Report",
    "Sparsities",
    "Thinning",
    "compared",
    "histograms",
    "measure",
    "read",
    "reference_run",
    "sparsities",
]
