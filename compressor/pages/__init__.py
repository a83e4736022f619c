"""Pages that people look at: the report of a run, the plan of a schedule, runs compared, a sweep, each one HTML file.

This room is imported only when a page is drawn: matplotlib and jinja2 take half a second.
"""

from compressor.pages.comparison import ComparisonContent, comparison_page
from compressor.pages.page import Drawing, Files, Head, Number, Section, Table, render
from compressor.pages.plan import plan_page
from compressor.pages.run import Reference, RunContent, run_page
from compressor.pages.sweep import SweepContent, sweep_page

__all__ = [
    "ComparisonContent",
    "Drawing",
    "Files",
    "Head",
    "Number",
    "Reference",
    "RunContent",
    "Section",
    "SweepContent",
    "Table",
    "comparison_page",
    "plan_page",
    "render",
    "run_page",
    "sweep_page",
]
