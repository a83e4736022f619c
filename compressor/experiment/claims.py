"""A schedule's claim beside what a run of it reached."""

from collections.abc import Iterator

from compressor import data, models
from compressor.errors import UserError
from compressor.experiment.specification import Specification
from compressor.reports import Report
from compressor.schedule import Claim, Faults, difference, open_config

_FREE = ("seed", "init", "checkpoint", "report")
"""The keys of a configuration that a claim leaves open; `init` is judged by itself."""


def lines(spec: Specification, report: Report, top1: float) -> Iterator[str]:
    """Yield a line for each claimed figure with the reached one; one line where the run is not the claimed one.

    `top1`: the test accuracy of the last weights, in percent, by the gates' own inference where they have one.
    Sparsity is that of the dense network: removed weights count as zero.
    """
    schedule = spec.schedule
    if schedule is None or schedule.claim is None:
        return
    claim = schedule.claim
    other = _other(spec, claim)
    if other is not None:
        yield f"the schedule's claim is not compared: {other}"
        return
    totals = report.totals
    if claim.top1 is not None:
        mean = "" if claim.top1.seeds == 1 else f" (mean of {claim.top1.seeds} seeds; this is one)"
        said = f"claimed: test top-1 at least {claim.top1.min:.2f} %{mean}"
        yield f"{said}; reached: {top1:.2f} %{_missed(top1 < claim.top1.min)}"
    if claim.sparsity is not None:
        reached = 1 - totals.nonzero / (totals.dense_weights or totals.weights or 1)
        said = f"claimed: sparsity at least {100 * claim.sparsity:.2f} %; reached: {100 * reached:.2f} %"
        yield said + _missed(reached < claim.sparsity - 1e-9)
    if claim.macs is not None:
        said = f"claimed: at most {claim.macs:,} MACs; reached: {totals.macs_nonzero:,}"
        yield said + _missed(totals.macs_nonzero > claim.macs)


def _missed(missed: bool) -> str:
    return " (missed)" if missed else ""


def _other(spec: Specification, claim: Claim) -> str | None:
    """Return how the run differs from the claimed one, in words; None where it is the claimed one."""
    assert spec.schedule is not None
    if spec.schedule.document.overridden:
        return "--set changed the schedule"
    name = claim.config or spec.schedule.config or ""
    faults = Faults()
    try:
        config, _ = open_config(name, (), claim.set, {"model": models.catalogue, "data": data.catalogue}, faults)
        faults.raise_any()
    except UserError as error:
        return f"its configuration {name!r} cannot be read: {error}"
    assert config is not None
    begins = spec.config.checkpoint_path is not None
    if begins != (claim.init is not None):
        return "it begins with a checkpoint (--init), this run does not" if claim.init else "this run has --init"
    ours, theirs = ({k: v for k, v in each.model_dump().items() if k not in _FREE} for each in (spec.config, config))
    found = difference(ours, theirs)
    return f"it is for the configuration {name}: {found}" if found else None
