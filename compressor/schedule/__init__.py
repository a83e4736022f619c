"""From a YAML file to policies that are bound to a model, with line and column of every fault."""

from compressor.schedule.arguments import Argument, arguments, example
from compressor.schedule.claim import KEY as EXPECT
from compressor.schedule.claim import Claim
from compressor.schedule.document import Document, difference, other_values, parse, parse_value
from compressor.schedule.faults import Faults, Message
from compressor.schedule.opening import open_config, open_schedule, read_schedule
from compressor.schedule.plan import Plan, make_plan
from compressor.schedule.plan_table import as_table
from compressor.schedule.registry import AXES, SECTIONS, components
from compressor.schedule.schedule import BoundSchedule, Schedule, view_of

__all__ = [
    "AXES",
    "EXPECT",
    "SECTIONS",
    "Argument",
    "BoundSchedule",
    "Claim",
    "Document",
    "Faults",
    "Message",
    "Plan",
    "Schedule",
    "arguments",
    "as_table",
    "components",
    "difference",
    "example",
    "make_plan",
    "open_config",
    "open_schedule",
    "other_values",
    "parse",
    "parse_value",
    "read_schedule",
    "view_of",
]
