"""Of every shipped schedule the plan and a smoke run agree, weight by weight; where only the run tells, it says why."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import succeed

from compressor import lookup

CONFIGS = {"resnet20_cifar_agp": "resnet20_cifar10", "resnet20_cifar_filters": "resnet20_cifar10"}
"""Of schedules of version 1, which name none."""

MIXED = "of different sizes are ranked together"
GATE, THRESHOLD, VALUES, TOGETHER, SEARCH = (
    "a gate learns",
    "is a threshold",
    "a threshold or proximal step",
    "ranked together",
    "a search decides",
)
NULLS = {
    "best/lenet300_68x": TOGETHER,
    "lenet5_alternating": THRESHOLD,
    "lenet5_elastic": VALUES,
    "mlp_dropout_ratio": THRESHOLD,
    "papers/dns_lenet300": GATE,
    "papers/dns_lenet5": GATE,
    "papers/han_lenet300": THRESHOLD,
    "papers/han_lenet5": THRESHOLD,
    "papers/iht_control_lenet300": TOGETHER,
    "papers/iht_control_lenet5": TOGETHER,
    "papers/iht_lenet300": TOGETHER,
    "papers/iht_lenet5": TOGETHER,
    "papers/l0_lenet300": GATE,
    "papers/l0sep_lenet300": GATE,
    "papers/l0sep_lenet5": GATE,
    "papers/ssl_lenet5": THRESHOLD,
    "papers/ssl_mlp": THRESHOLD,
    "papers/strided_lenet5": SEARCH,
    "resnet18_l0": GATE,
    "resnet20_depth": MIXED,
}
"""Why the plan does not say how many zeros the weights that a schedule prunes will have."""

BELOW = {
    "lenet5_filters": "thinning removes the inputs of the layers behind, too",
    "papers/filters_resnet20": "thinning removes the inputs of the layers behind, too",
    "papers/dsd_lenet300": "weights of the last dense phase that no gradient reaches stay zero",
}
"""Schedules under which weights have more zeros than the plan says, for another policy makes them, too."""

FAST = ("lenet5_agp", "lenet5_filters", "papers/channel_lenet5", "papers/dsd_lenet300", "papers/iht_lenet300")
"""Those of `make test`; the others are slow."""


def shipped() -> list[Any]:
    found = []
    for name in lookup.shipped_files("schedules"):
        found.append(pytest.param(name, marks=[] if name in FAST else pytest.mark.slow))
    return found


def test_the_lists_name_schedules_that_there_are() -> None:
    names = {param.values[0] for param in shipped()}
    assert len(names) > 30
    assert {*NULLS, *BELOW, *FAST, *CONFIGS} <= names


@pytest.mark.parametrize("schedule", shipped())
def test_a_smoke_run_has_the_zeros_that_the_plan_predicted(schedule: str, work: Path) -> None:
    config = ("-c", CONFIGS[schedule]) if schedule in CONFIGS else ()
    plan = json.loads(succeed("plan", schedule, *config, "--data", "nowhere", "--json"))
    succeed("train", "--smoke", "-s", schedule, *config, "--data", "nowhere", "--out", "run")
    measured = {
        row["name"]: row["nonzero"] for row in json.loads((work / "run" / "sparsity.json").read_text())["tensors"]
    }
    predicted = plan["predicted"]
    assert {row["name"] for row in predicted} == set(measured)
    reasons = {row["reason"] for row in predicted if row["nonzero"] is None}
    assert bool(reasons) == (schedule in NULLS)
    assert all(NULLS[schedule] in reason for reason in reasons)
    known = {row["name"]: row["nonzero"] for row in predicted if row["nonzero"] is not None}
    if schedule in BELOW:
        assert all(measured[name] <= nonzero for name, nonzero in known.items())
        assert any(measured[name] < nonzero for name, nonzero in known.items())
    else:
        assert {name: measured[name] for name in known} == known
    total = plan["total_nonzero"]
    assert (total is None) == (schedule in NULLS and NULLS[schedule] != TOGETHER)
    assert total is None or sum(measured.values()) <= total


def test_a_plan_of_a_method_that_prunes_says_so() -> None:
    # What the plan said before policies answered for themselves: 0.00 %.
    assert json.loads(succeed("plan", "papers/iht_lenet300", "--data", "nowhere", "--json"))["total_sparsity"] == 0.92
    text = succeed("plan", "papers/l0_lenet300", "--data", "nowhere")
    assert "not known before the run: a gate learns which entries are zero" in text
