"""The report of a network, and its forms: table, CSV and JSON; what a run's folder has recorded for it."""

from compressor.reports.comparison import (
    ACCURACIES,
    METRICS,
    Change,
    Group,
    Mean,
    RunFigures,
    accuracy,
    group,
    run_figures,
)
from compressor.reports.histogram import histograms
from compressor.reports.latency import Latency, in_turns
from compressor.reports.network_picture import network_as_svg
from compressor.reports.recorded import Evaluation, Recorded, read, reference_run
from compressor.reports.report import EarlierTest, Report, Sparsities, Thinning, compared, measure, sparsities
from compressor.reports.summary import Summary, summarize
from compressor.reports.summary import as_text as summary_as_text
from compressor.reports.sweep import (
    FRONTS,
    LATENCY,
    Setting,
    SweptRun,
    results_as_csv,
    settings_of,
    short_keys,
    times_differ,
)

__all__ = [
    "ACCURACIES",
    "FRONTS",
    "LATENCY",
    "METRICS",
    "Change",
    "EarlierTest",
    "Evaluation",
    "Group",
    "Latency",
    "Mean",
    "Recorded",
    "Report",
    "RunFigures",
    "Setting",
    "Sparsities",
    "Summary",
    "SweptRun",
    "Thinning",
    "accuracy",
    "compared",
    "group",
    "histograms",
    "in_turns",
    "measure",
    "network_as_svg",
    "read",
    "reference_run",
    "results_as_csv",
    "run_figures",
    "settings_of",
    "short_keys",
    "sparsities",
    "summarize",
    "summary_as_text",
    "times_differ",
]
