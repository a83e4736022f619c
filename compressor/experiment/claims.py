"""A schedule's claim beside what a run of it reached."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from compressor import data, models
from compressor.errors import UserError
from compressor.experiment.identity import UNTRAINED
from compressor.experiment.specification import Specification
from compressor.reports import Report
from compressor.schedule import Claim, Faults, difference, open_config

_FREE = ("seed", "init", "checkpoint", *UNTRAINED)
"""The keys of a configuration that a claim leaves open; `init` is judged by itself."""

_LIMITS = {"top1": "test top-1 at least", "sparsity": "sparsity at least", "macs": "at most"}
_ROUNDING = 1e-9
"""How much a figure that is a quotient or a mean may be below the claimed one."""


@dataclass(frozen=True)
class Reached:
    """What a run reached, in the units of a claim.

    `top1`: the test accuracy of the last weights in percent, by the gates' own inference where they have one.
    `sparsity`: a fraction of the dense network's weights; removed ones count as zero. `macs`: multiply-adds of one
    image by the weights that are not zero.
    """

    top1: float
    sparsity: float
    macs: int


def reached(report: Report, top1: float) -> Reached:
    """Return what a run reached, by its report and its test accuracy in percent."""
    totals = report.totals
    return Reached(top1, 1 - totals.nonzero / (totals.dense_weights or totals.weights or 1), totals.macs_nonzero)


class Judged(BaseModel):
    """A claimed figure beside the reached one: percent, a fraction, a number of multiply-adds."""

    model_config = ConfigDict(frozen=True)

    figure: Literal["top1", "sparsity", "macs"]
    claimed: float
    reached: float
    holds: bool


def judge(claim: Claim, runs: Sequence[Reached]) -> list[Judged]:
    """Return each claimed figure with the reached one: the mean top-1 of the runs, lowest sparsity, most MACs."""
    judged = []
    if claim.top1 is not None:
        mean = statistics.fmean(run.top1 for run in runs)
        held = mean >= claim.top1.min - _ROUNDING
        judged.append(Judged(figure="top1", claimed=claim.top1.min, reached=mean, holds=held))
    if claim.sparsity is not None:
        lowest = min(run.sparsity for run in runs)
        held = lowest >= claim.sparsity - _ROUNDING
        judged.append(Judged(figure="sparsity", claimed=claim.sparsity, reached=lowest, holds=held))
    if claim.macs is not None:
        most = max(run.macs for run in runs)
        judged.append(Judged(figure="macs", claimed=claim.macs, reached=most, holds=most <= claim.macs))
    return judged


def in_words(figure: str, value: float) -> str:
    """Return a figure with its unit."""
    if figure == "macs":
        return f"{int(value):,} MACs"
    return f"{value:.2f} %" if figure == "top1" else f"{100 * value:.2f} %"


def lines(spec: Specification, report: Report, top1: float | None) -> Iterator[str]:
    """Yield a line for each claimed figure with the reached one; one line where the run is not the claimed one.

    `top1`: the test accuracy of the last weights, in percent, by the gates' own inference where they have one; None:
    the run was not tested.
    """
    schedule = spec.schedule
    if schedule is None or schedule.claim is None:
        return
    claim = schedule.claim
    if top1 is None:
        yield "the schedule's claim is not compared: it is of test images, and this run has test: false"
        return
    other = _other(spec, claim)
    if other is not None:
        yield f"the schedule's claim is not compared: {other}"
        return
    for one in judge(claim, [reached(report, top1)]):
        wanted = in_words(one.figure, one.claimed)
        if one.figure == "top1" and claim.top1 is not None and claim.top1.seeds > 1:
            wanted += f" (mean of {claim.top1.seeds} seeds; this is one)"
        got = in_words(one.figure, one.reached).removesuffix(" MACs")
        yield f"claimed: {_LIMITS[one.figure]} {wanted}; reached: {got}{'' if one.holds else ' (missed)'}"


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
