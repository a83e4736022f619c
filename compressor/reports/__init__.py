"""The report of a network, and its forms: table, CSV and JSON; what a run's folder has recorded for it."""

<<<<<<< HEAD
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
=======
from compressor.reports.latency import Latency, in_turns
from compressor.reports.report import EarlierTest, Report, Thinning, compared, measure, overall_sparsity

__all__ = [
    "EarlierTest",
    "Latency",
    "Report",
    "Thinning",
    "compared",
    "in_turns",
    "measure",
    "overall_sparsity",
>>>>>>> 782bf36 (compress export: a network as ONNX, torch.export, safetensors or state dict, run on real images before it gets its name)
]
