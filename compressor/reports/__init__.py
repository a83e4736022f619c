"""The report of a network, and its forms: table, CSV and JSON."""

from compressor.reports.report import EarlierTest, Report, Thinning, compared, measure, overall_sparsity

__all__ = ["EarlierTest", "Report", "Thinning", "compared", "measure", "overall_sparsity"]
