"""The report of a network, and its forms: table, CSV and JSON; what a run's folder has recorded for it."""

from compressor.reports.recorded import Recorded, read, reference_run
from compressor.reports.report import EarlierTest, Report, Thinning, compared, measure, overall_sparsity

__all__ = [
    "EarlierTest",
    "Recorded",
    "Report",
    "Thinning",
    "compared",
    "measure",
    "overall_sparsity",
    "read",
    "reference_run",
]
