"""From a YAML file to policies that are bound to a model, with line and column of every fault."""

from compressor.schedule.arguments import Argument, arguments, example
from compressor.schedule.claim import KEY as EXPECT
from compressor.schedule.claim import Claim
from compressor.schedule.converting import converted
from compressor.schedule.document import Choice, Document, difference, differing, other_values, parse, parse_value
from compressor.schedule.faults import Faults, Message
from compressor.schedule.grammar import read as schedule_in
from compressor.schedule.meaning import Difference, differences, stated
from compressor.schedule.opening import open_config, open_schedule, read_schedule
from compressor.schedule.plan import Plan, PlannedPolicy, make_plan, times
from compressor.schedule.plan_table import as_table
from compressor.schedule.registry import AXES, SECTIONS, components
from compressor.schedule.schedule import BoundSchedule, Schedule, view_of
from compressor.schedule.stated import Stated
from compressor.schedule.targets import targets

__all__ = [
    "AXES",
    "EXPECT",
    "SECTIONS",
    "Argument",
    "BoundSchedule",
    "Choice",
    "Claim",
    "Difference",
    "Document",
    "Faults",
    "Message",
    "Plan",
    "PlannedPolicy",
    "Schedule",
    "Stated",
    "arguments",
    "as_table",
    "components",
    "converted",
    "difference",
    "differences",
    "differing",
    "example",
    "make_plan",
    "open_config",
    "open_schedule",
    "other_values",
    "parse",
    "parse_value",
    "read_schedule",
    "schedule_in",
    "stated",
    "targets",
    "times",
    "view_of",
]
