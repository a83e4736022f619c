"""The pages of a run and of a plan, from what is in a run's folder; importing it imports matplotlib."""

from pathlib import Path

import torch

from compressor import data
from compressor.errors import CompressError, UserError
from compressor.experiment import claims, comparison_text, folder, inspection
from compressor.experiment.comparing import Comparison
from compressor.experiment.loading import Loaded, load
from compressor.experiment.specification import Specification, specification
from compressor.experiment.sweeping import Sweep
from compressor.files import replace_text
from compressor.importing import random_state_kept
from compressor.pages import (
    ComparisonContent,
    Reference,
    RunContent,
    SweepContent,
    Table,
    comparison_page,
    plan_page,
    run_page,
    sweep_page,
)
from compressor.reports import Recorded, read, reference_run
from compressor.schedule import Plan
from compressor.sparsity import prunable
from compressor.tracing import macs

PAGE = "report.html"


def draw_run(run: Path, file: Path | None = None, *, measures: bool = True) -> Path:
    """Write the page of a run to `file`, else to report.html in its folder, and return where it is.

    `measures`: with the time of a forward pass. The data are not needed.
    Raises `UserError` where `run` is not the folder of a run or the file cannot be written.
    """
    if run.is_file():
        raise UserError(f"{run} is a file: --html draws the report of a run, give the run's folder")
    found = read(run)
    with random_state_kept(), torch.no_grad():
        loaded = load(run)
        content = _content(found, loaded, measures=measures)
    return _written(file or run / PAGE, run_page(content))


def draw_plan(plan: Plan, spec: Specification, warnings: list[str], file: Path) -> Path:
    """Write the page of a plan to `file`, and return where it is. Raises `UserError` where it cannot be written."""
    config = spec.config
    facts = [("Model", config.model.name), ("Data", config.data.name), ("Configuration", spec.config_name)]
    facts += [("Optimizer", f"{config.optimizer.name}, learning rate {config.optimizer.lr:g}")]
    return _written(file, plan_page(plan, spec.schedule_name, facts, warnings, spec.schedule_text))


def draw_comparison(found: Comparison, file: Path) -> Path:
    """Write the page of a comparison of runs to `file`, and return where it is. Raises `UserError` where it cannot be
    written.
    """
    figures, differences = comparison_text.figures(found), comparison_text.differences(found)
    content = ComparisonContent(
        groups=found.groups,
        figures=Table(*figures),
        differences=Table(*differences, left=4),
        judged=[one.text for one in found.judged],
        failed=not found.held,
        notes=found.notes,
    )
    return _written(file, comparison_page(content))


def draw_sweep(found: Sweep) -> Path:
    """Write the page of a sweep into its folder, and return where it is."""
    content = SweepContent(found.schedule, found.config, found.settings)
    return _written(found.path / PAGE, sweep_page(content))


def _written(file: Path, page: str) -> Path:
    try:
        replace_text(file, page)
    except CompressError as error:
        raise UserError(str(error)) from None
    return file


def _content(found: Recorded, loaded: Loaded, *, measures: bool) -> RunContent:
    report, dense = inspection.report_of(loaded, measures=measures), loaded.dense()
    saved, channels = loaded.saved, loaded.shape[0]
    spec, plan, why = _plan(found, _steps(loaded))
    reference, missing = _reference(found)
    finished = bool(saved.get("finished"))
    top1 = report.totals.top1
    own = saved["metrics"].get("test_by_own_inference") or {}
    lines = claims.lines(spec, report, own.get("top1", top1)) if spec and finished and top1 is not None else []
    kind = {1: "grey", 3: "colour"}.get(channels, f"{channels}-channel")
    images = f"{found.config.data.name}: {kind} images of {loaded.shape[2]} x {loaded.shape[1]} pixels"
    return RunContent(
        recorded=found,
        report=report,
        finished=finished,
        plan=plan,
        no_plan=why,
        reference=reference,
        no_reference=missing,
        dense={name: weight.numel() for name, weight in prunable(dense).items()},
        macs=macs(dense, loaded.shape)[1],
        shipped_macs=macs(loaded.network, loaded.shape)[1],
        claims=list(lines),
        images=f"{images}, {len(saved['classes'])} classes",
    )


def _steps(loaded: Loaded) -> int | None:
    """Return the number of steps of an epoch, from the number of images that a checkpoint knows; None where it does
    not.
    """
    counts = loaded.saved.get("data", {}).get("counts", {}).get("train")
    return data.steps_of(loaded.config.data, sum(counts)) if counts else None


def _plan(found: Recorded, steps: int | None) -> tuple[Specification | None, Plan | None, str | None]:
    """Return the run's own schedule and configuration, and the plan; or why there is none."""
    if found.schedule is None:
        return None, None, "the run has no schedule"
    try:
        spec = specification(str(found.path / folder.SCHEDULE), str(found.path / folder.CONFIG))
        plan, _ = inspection.plan(spec, None, steps)
    except CompressError as error:
        return None, None, f"the schedule cannot be drawn: {str(error).splitlines()[0]}"
    return spec, plan, None


def _reference(found: Recorded) -> tuple[Reference | None, str]:
    """Return what the run is compared with: the checkpoint that it began with, else the run that the configuration
    names; or why there is nothing.
    """
    config = found.config
    if found.figures is not None and found.figures.reference is not None:
        return Reference(f"the checkpoint it began with ({_name(config.checkpoint_path)})", found.figures.reference), ""
    source = reference_run(config)
    if source is None:
        return None, "No reference: begin with a checkpoint (--init), or set report.reference to a run"
    try:
        other = read(source)
    except CompressError as error:
        return None, f"The reference cannot be read: {str(error).splitlines()[0]}"
    if other.figures is None or other.figures.evaluation is None:
        return None, f"The reference {source} has no test figures"
    return Reference(source.name, other.figures.evaluation), ""


def _name(path: str | None) -> str:
    """Return the last parts of a path: the folder of the run, and the file."""
    return "/".join(Path(path or "").parts[-2:])
