"""A run that was never trained, small enough for a pencil: what its page is drawn from."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from compressor.pages import Reference, RunContent
from compressor.reports import read
from compressor.reports.latency import Latency, Timing
from compressor.reports.recorded import Evaluation
from compressor.reports.report import Comparison, Others, Rates, Report, Stage, Totals
from compressor.schedule import Plan
from compressor.sparsity import WeightSummary
from compressor.storage import StoredBits

CONFIG = """\
model: {name: lenet_5}
data: {name: digits}
optimizer: {name: sgd, lr: 0.1}
epochs: 4
seed: 7
"""
SCHEDULE = "version: 2\npolicies: []\n"
EPOCHS = [
    {
        "epoch": epoch,
        "train": {"loss": loss, "top1": top1, "top5": 99.0},
        "val": {"loss": loss / 2, "top1": top1 - 2, "top5": 99.0},
        "losses": {"data": loss, "l1": loss / 10},
        "lr": lr,
        "sparsity": sparsity,
        "sparsity_all": sparsity,
        "seconds": 2.0,
        "figures": {"3.watch": {"instability": 0.125, "before": 80.0, "after": 70.0}} if epoch == 2 else {},
    }
    for epoch, (loss, top1, lr, sparsity) in enumerate(
        [(1.5, 50.0, 0.1, 0.0), (1.0, 70.0, 0.1, 0.25), (0.5, 80.0, 0.01, 0.5), (0.25, 90.0, 0.01, 0.5)]
    )
]
SPARSITIES = {"conv.weight": (0.0, 0.5, 0.5, 0.5), "fc.weight": (0.0, 0.25, 0.25, 0.75)}
TARGETS = {"conv.weight": (None, 0.5, 0.5, 0.5), "fc.weight": (None, 0.25, 0.5, 0.75)}
EVENTS = {
    1: [{"step": 0, "policy": "0.fine", "pruned": 30, "revived": 0}],
    2: [{"step": 0, "policy": "2.thinner", "pruned": 10, "revived": 0}],
    3: [{"step": 9, "policy": "0.fine", "pruned": 40, "revived": 5}],
}


def evaluation(top1: float, correct: dict[str, int]) -> dict[str, Any]:
    """An evaluation on 40 images of each class; the probabilities are 0.9 for all, and 0.8 of them are right."""
    bins = [{"confidence": None, "accuracy": None, "images": 0}] * 13
    bins += [{"confidence": 0.9, "accuracy": 0.8, "images": 80}, {"confidence": None, "accuracy": None, "images": 0}]
    classes = [{"name": name, "images": 40, "correct": count} for name, count in correct.items()]
    error = {"error": 0.1, "bins": bins}
    return {"images": 120, "loss": 0.3, "top1": top1, "top5": 100.0, "classes": classes, "calibration": error}


def histogram(counts: list[int], zeros: int) -> dict[str, Any]:
    return {"low": -1.0, "high": 1.0, "counts": counts, "zeros": zeros}


FIGURES = {
    "schema": 1,
    "evaluation": evaluation(85.0, {"cat": 36, "dog": 38, "owl": 28}),
    "reference": evaluation(87.5, {"cat": 38, "dog": 38, "owl": 27}),
    "histograms": {
        "conv.weight": {"before": histogram([20, 20], 0), "after": histogram([10, 10], 20)},
        "fc.weight": {"before": histogram([30, 30], 0), "after": histogram([5, 10], 45)},
    },
    "activations": {"before": 8_000, "after": 4_000},
}
ENVIRONMENT = {
    "schema": 1,
    "starts": [
        {
            "started": "2026-01-01T01:30:00+0200",
            "command": ["compress", "train", "--out", "a b"],
            "working_directory": "/home/me",
            "versions": {"torch": "2.14"},
            "platform": "Linux",
            "device": {"type": "cpu"},
            "threads": 1,
            "git_commit": None,
            "sha256": {"config": "c0ffee"},
        },
        {"started": "2026-01-02T10:00:00+0000", "command": ["compress", "train", "--resume"]},
    ],
}


def write(folder: Path, *, figures: Any = FIGURES, environment: Any = ENVIRONMENT) -> Path:
    """The files of the run."""
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "schedule.yaml").write_text(SCHEDULE)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in EPOCHS))
    lines = [
        {
            "epoch": epoch,
            "layers": {
                name: {"sparsity": SPARSITIES[name][epoch], "target": TARGETS[name][epoch]} for name in SPARSITIES
            },
            "events": EVENTS.get(epoch, []),
        }
        for epoch in range(4)
    ]
    (folder / "layers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "figures.json").write_text(json.dumps(figures))
    (folder / "environment.json").write_text(json.dumps(environment))
    return folder


def weight(name: str, shape: list[int], weights: int, nonzero: int) -> WeightSummary:
    rates = dict.fromkeys(("filters", "channels", "kernels", "rows", "cols"))
    moments = {"mean": 0.0, "std": 1.0, "mean_abs": 0.5}
    sparsity = 1 - nonzero / weights
    return WeightSummary(
        name=name, shape=shape, weights=weights, nonzero=nonzero, sparsity=sparsity, **rates, **moments
    )


BITS = StoredBits(dense=8_000, relative=3_000, widths=(3, 4), relative_han=3_500, csr=4_000, bitmask=3_200)
REPORT = Report(
    tensors=[weight("conv.weight", [4, 1, 2, 5], 40, 20), weight("fc.weight", [3, 20], 60, 15)],
    others=Others(parameters=7, nonzero=7, sparsity=0.0),
    totals=Totals(
        weights=100,
        nonzero=35,
        sparsity=0.65,
        parameters=107,
        macs=1_000,
        macs_nonzero=450,
        stored_bits=BITS,
        rates=Rates(weights=100 / 35, parameters=2.5, bits=8_000 / 3_000),
        top1=85.0,
        top5=100.0,
    ),
    comparison=Comparison(stages=[Stage(name=name, parameters=107, macs=1_000) for name in ("dense", "masked")]),
    latency=Latency(
        device="cpu",
        threads=1,
        rounds={1: 9, 16: 9},
        timings=[
            Timing(stage="dense", batch=1, milliseconds=2.0, interquartile_range=0.1, times_as_fast=1.0),
            Timing(stage="masked", batch=1, milliseconds=1.9, interquartile_range=0.2, times_as_fast=None),
            Timing(stage="dense", batch=16, milliseconds=20.0, interquartile_range=1.0, times_as_fast=1.0),
            Timing(stage="masked", batch=16, milliseconds=20.5, interquartile_range=1.5, times_as_fast=None),
        ],
        warnings=[],
    ),
)


def policy(key: str, kind: str, fires: list[int], unit: str = "epoch", **more: Any) -> dict[str, Any]:
    empty = {"weights": [], "sparsity": {}, "threshold": {}}
    return {"key": key, "kind": kind, "component": kind.title(), "unit": unit, "fires": fires, **empty, **more}


UNKNOWN = {"nonzero": None, "sparsity": None, "reason": "drawn"}
PLAN = Plan.model_validate(
    {
        "schema": 1,
        "epochs": 4,
        "steps_per_epoch": 10,
        "policies": [
            policy("0.fine", "pruner", [1, 2, 3], sparsity={1: 0.25, 2: 0.5, 3: 0.75}),
            policy("1.shrink", "regularizer", list(range(5, 25)), "step"),
            policy("2.thinner", "extension", [0, 2]),
            policy("3.watch", "instability", [0, 1, 2, 3]),
            policy("4.later", "pruner", []),
        ],
        "lr": [0.1, 0.1, 0.01, None],
        "predicted": [
            {"name": "fc.weight", "shape": [3, 20], "weights": 60, "nonzero": 15, "sparsity": 0.75},
            {"name": "conv.weight", "shape": [4, 1, 2, 5], "weights": 40, **UNKNOWN},
        ],
        "total_weights": 100,
        "total_nonzero": None,
        "total_sparsity": None,
        "conflicts": [],
    }
)


def content(folder: Path, **more: Any) -> RunContent:
    """What the page of the run in `folder` is drawn from; `more` replaces parts of it."""
    found = read(folder)
    compared = found.figures.reference if found.figures else None
    made = RunContent(
        recorded=found,
        report=REPORT,
        finished=True,
        plan=PLAN,
        no_plan=None,
        reference=Reference("dense-1", compared) if isinstance(compared, Evaluation) else None,
        no_reference="No reference.",
        dense={"conv.weight": 40, "fc.weight": 60},
        macs={"conv.weight": 940, "fc.weight": 60},
        shipped_macs={"conv.weight": 940, "fc.weight": 60},
        images="digits: grey images of 28 x 28 pixels, 3 classes",
    )
    return replace(made, **more)
