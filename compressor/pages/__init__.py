"""Pages that people look at: the report of a run and the plan of a schedule, each one HTML file.

This room is imported only when a page is drawn: matplotlib and jinja2 take half a second.
"""

from compressor.pages.page import Drawing, Files, Head, Number, Section, Table, render
from compressor.pages.plan import plan_page
from compressor.pages.run import Reference, RunContent, run_page

__all__ = [
    "Drawing",
    "Files",
    "Head",
    "Number",
    "Reference",
    "RunContent",
    "Section",
    "Table",
    "plan_page",
    "render",
    "run_page",
]
