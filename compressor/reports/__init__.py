"""The report of a network, and its forms: table, CSV and JSON."""

from compressor.reports.report import Report, Thinning, compared, measure, overall_sparsity

__all__ = ["Report", "Thinning", "compared", "measure", "overall_sparsity"]
