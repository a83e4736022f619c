"""The page of a run: what was trained, what came out, and everything that was recorded on the way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from compressor.pages import churn, classes, costs, curves, heat, histograms, left, timeline
from compressor.pages.numbers import date, duration, fraction, milliseconds, percent, signed, size
from compressor.pages.page import Files, Head, Number, Section, render
from compressor.pages.provenance import provenance
from compressor.reports import Recorded, Report, recorded
from compressor.schedule import Plan

_UNTESTED = "run does not use the test images (test: false)"


@dataclass(frozen=True)
class Reference:
    """The run, or the checkpoint, with which a run is compared: its name, and how it does on the test images."""

    name: str
    evaluation: recorded.Evaluation


@dataclass(frozen=True)
class RunContent:
    """What the page of a run shows. `report` has the stages of the network and their latency.

    `dense`: the number of entries of each prunable weight of the dense network; `macs` and `shipped_macs`: the MACs of
    each, dense and as shipped. `no_plan` and `no_reference` say in one line why there is none.
    """

    recorded: Recorded
    report: Report
    finished: bool
    plan: Plan | None
    no_plan: str | None
    reference: Reference | None
    no_reference: str
    dense: Mapping[str, int]
    macs: Mapping[str, int]
    shipped_macs: Mapping[str, int]
    claims: Sequence[str] = ()
    images: str = ""
    """The data set and the shape of its images, in words."""


def run_page(run: RunContent) -> str:
    """Return the page of a run as HTML."""
    recorded, plan = run.recorded, run.plan
    epochs, steps = recorded.config.epochs, plan.steps_per_epoch if plan else 1
    windows = timeline.windows(plan) if plan else []
    changes = churn.events(recorded.layers, steps)
    figures = recorded.figures
    reference = run.reference.evaluation if run.reference else None
    weights, macs = left.amounts(run.report, run.dense, run.macs, run.shipped_macs)
    sections: list[Section | None] = [
        timeline.section(plan, run.no_plan, epochs=epochs, events=[(one.at, one.policy) for one in changes]),
        curves.section(recorded.epochs, windows, epochs),
        heat.section(recorded.layers, run.dense, epochs),
        left.section(weights, macs),
        churn.section(changes, epochs, bool(recorded.layers)),
        histograms.section(figures.histograms if figures else {}),
        classes.section(figures.evaluation if figures else None, reference, run.no_reference, _no_classes(recorded)),
        costs.section(run.report, figures.activations if figures else None),
        costs.instability(recorded.epochs, epochs),
        provenance(recorded, run.report),
    ]
    texts = [("config.yaml", _yaml(recorded.config.model_dump(mode="json")))]
    if recorded.schedule is not None:
        texts.insert(0, ("schedule.yaml", recorded.schedule))
    return render(_head(run), [one for one in sections if one is not None], Files(texts))


def _yaml(data: Any) -> str:
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def _head(run: RunContent) -> Head:
    recorded = run.recorded
    config, done = recorded.config, len(recorded.epochs)
    if run.finished:
        state = f"{done} epochs"
    else:
        state = f"not finished: {done} of {config.epochs} epochs"
    seconds = [line.seconds for line in recorded.epochs if line.seconds is not None]
    totals, starts = run.report.totals, _starts(recorded.environment)
    nonzero = totals.macs_nonzero
    facts = [
        ("Model", f"{config.model.name}, {totals.parameters:,} parameters"),
        ("Data", run.images or config.data.name),
        ("Training", f"{state}, seed {config.seed}" + (f", {duration(sum(seconds))}" if seconds else "")),
        ("Started", date(starts[0].get("started")) if starts else "not recorded"),
        ("Sparsity of the weights", _sparsity(run.report)),
        ("MACs", f"{totals.macs:,}" + (f", with non-zero weights {nonzero:,}" if nonzero < totals.macs else "")),
    ]
    if totals.top5 is not None:
        facts.append(("Test top-5", percent(totals.top5)))
    best = _best(recorded.epochs)
    if best is not None:
        facts.append(("Best validation top-1", best))
    at_the_end = () if run.finished else ("figures.json", "sparsity.json")  # not missed before
    missed = [line for line in recorded.not_recorded if not line.startswith(at_the_end)]
    warnings = [f"{line}: what is drawn from it is not complete" for line in missed]
    if not run.finished:
        warnings.insert(0, f"The run is not finished: {done} of {config.epochs} epochs.")
    if run.report.lost_classes:
        warnings.append(f"Lost classes, whose logits do not depend on the image: {', '.join(run.report.lost_classes)}")
    return Head(
        title=recorded.path.resolve().name,
        kind="Report of a training run",
        said=[*run.claims],
        numbers=[_accuracy(run), _size(run.report), _latency(run.report)],
        facts=facts,
        warnings=warnings,
    )


def _starts(environment: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = environment.get("starts")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _sparsity(report: Report) -> str:
    totals = report.totals
    dense = totals.dense_weights
    reached = 1 - totals.nonzero / (dense or totals.weights or 1)
    return fraction(reached) + (" (removed channels count as zero)" if dense else "")


def _best(lines: Sequence[recorded.EpochLine]) -> str | None:
    known = [(line.val["top1"] or 0.0, line.epoch) for line in lines if line.val.get("top1") is not None]
    if not known:
        return None
    best = max(known, key=lambda pair: (pair[0], -pair[1]))
    count = best[1] + 1
    return f"{percent(best[0])} after {count} epoch{'' if count == 1 else 's'}"


def _no_classes(found: Recorded) -> str:
    """Return why there are no figures by class."""
    if not found.config.test:
        return f"The {_UNTESTED}."
    return "figures.json is not recorded: the run was not tested by class"


def _accuracy(run: RunContent) -> Number:
    top1, label = run.report.totals.top1, "Test top-1 accuracy"
    if top1 is None:
        validation = [line.val.get("top1") for line in run.recorded.epochs if line.val.get("top1") is not None]
        if not validation:
            return Number(label, "–", ["not tested yet" if run.recorded.config.test else f"the {_UNTESTED}"])
        said = (
            "the last epoch so far; not tested yet" if run.recorded.config.test else f"the last epoch; the {_UNTESTED}"
        )
        return Number("Validation top-1 accuracy", percent(validation[-1]), [said])
    if run.reference is None or run.reference.evaluation.top1 is None:
        return Number(label, percent(top1), [run.no_reference])
    before = run.reference.evaluation.top1
    return Number(
        label, percent(top1), [f"{signed(top1 - before)} points against {percent(before)} of {run.reference.name}"]
    )


def _size(report: Report) -> Number:
    bits, rates, label = report.totals.stored_bits, report.totals.rates, "Stored size"
    if bits is None:
        return Number(label, "–", ["not measured"])
    name, count = min(costs.stored_forms(bits), key=lambda form: form[1])
    said = [f"as {name}"] if name != "dense" else ["dense: no format is smaller"]
    if rates is not None and rates.bits is not None:
        dense = rates.bits * bits.relative / 8
        change = 100 * (count / dense - 1)
        said.append(f"{signed(change, 1)} % against {size(dense)} of the dense network")
    return Number(label, size(count), said)


def _latency(report: Report) -> Number:
    label = "Latency of one image"
    if report.latency is None:
        return Number(label, "–", ["not measured"])
    ours = [timing for timing in report.latency.timings if timing.batch == 1]
    stages = [timing for timing in ours if "compacted" not in timing.stage]
    dense, now = stages[0], stages[-1]
    threads = "1 thread" if report.latency.threads == 1 else f"{report.latency.threads} threads"
    said = [f"median ± interquartile range, {threads} of the {report.latency.device}"]
    if now is not dense:
        change = f"{signed(100 * (now.milliseconds / dense.milliseconds - 1), 1)} %"
        noise = now.interquartile_range + dense.interquartile_range
        if noise > abs(now.milliseconds - dense.milliseconds):
            change = "no difference beyond the spread"
        said.append(f"{change} against {milliseconds(dense.milliseconds)} of the dense network")
        if now.stage == "masked":
            said.append("zeros alone save no time")
    return Number(label, f"{_digits(now.milliseconds)} ms", said, f"± {_digits(now.interquartile_range)} ms")


def _digits(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"
