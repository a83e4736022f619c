"""The page of a plan: the timeline of a schedule before a run."""

from collections.abc import Sequence

from compressor.pages import timeline
from compressor.pages.page import Files, Head, render
from compressor.schedule import Plan


def plan_page(
    plan: Plan, name: str, facts: Sequence[tuple[str, str]], said: Sequence[str], schedule: str | None
) -> str:
    """Return the page of a plan as HTML.

    `name`: of the schedule and its configuration; `facts`: pairs about these; `said`: warnings; `schedule`: its text.
    """
    sections = [timeline.section(plan, None, epochs=plan.epochs), timeline.planned(plan)]
    texts = [] if schedule is None else [("schedule.yaml", schedule)]
    head = Head(
        title=name, kind="Plan of a schedule, before a run", facts=[*facts, ("Epochs", f"{plan.epochs}")], warnings=said
    )
    return render(head, sections, Files(texts))
