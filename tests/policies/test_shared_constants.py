"""What a pruner takes once belongs to its instance: policies that name it share it, inline components do not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import interrupted, run_difference, saved, succeed, work  # noqa: F401
from torch import nn

SENSITIVITY = "class: SensitivityPruner, sensitivities: {weight: 1.0}"
SPLICING = "class: SplicingPruner, sensitivities: {weight: 0.0}, low_thresh_mult: 1.0, hi_thresh_mult: 1.0"
ARGS = {SENSITIVITY: "", SPLICING: "args: {use_double_copies: true}"}
WINDOWS = ("epochs: [0]", "epochs: [1]")

BEFORE = torch.tensor([[-4.0, -2.0, 2.0, 4.0]])
"""std sqrt(40 / 3) = 3.65, mean of the magnitudes 3: both pruners keep the fours."""


def named(component: str) -> str:
    args = f", {ARGS[component]}" if ARGS[component] else ""
    policies = "".join(f"  - {{pruner: {{instance_name: one{args}}}, {window}}}\n" for window in WINDOWS)
    return f"version: 2\npruners:\n  one: {{{component}}}\npolicies:\n{policies}"


def twice(component: str) -> str:
    """Two instances that are the same but for their names."""
    text = named(component).replace("policies:", f"  two: {{{component}}}\npolicies:")
    return "two".join(text.rsplit("one", 1))


def inline(component: str) -> str:
    args = f", {ARGS[component]}" if ARGS[component] else ""
    policies = "".join(f"  - {{pruner: {{{component}{args}}}, {window}}}\n" for window in WINDOWS)
    return f"version: 2\npolicies:\n{policies}"


def kept_after_shrinking(run_of: Callable[..., Any], text: str) -> tuple[list[bool], Any]:
    """What the second policy alone keeps once every weight is a quarter: 1 is below what 4 was compared with."""
    model = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(BEFORE)
    run = run_of(text, model)
    run.epoch(0)
    with torch.no_grad():
        model.weight.copy_(BEFORE / 4)
    run.begin(1)
    owner = list(run.events.memory)[1]
    return run.masks.owned(owner)["weight"].flatten().tolist(), run


@pytest.mark.parametrize("component", ARGS, ids=lambda text: text.split()[1].strip(","))
def test_policies_that_name_one_instance_share_what_it_took_once(run_of: Callable[..., Any], component: str) -> None:
    kept, run = kept_after_shrinking(run_of, named(component))
    assert kept == [False] * 4  # 1 and 0.5 against the first weights' 3.65 or 3
    assert list(run.session._constants) == ["pruners.one"]
    (constant,) = run.session._constants["pruners.one"].values()
    std = float(BEFORE.std()) if component == SENSITIVITY else float(BEFORE.abs().std())
    assert (constant if component == SENSITIVITY else constant["std"]) == pytest.approx(std)


@pytest.mark.parametrize("make", [inline, twice], ids=["inline", "two instances"])
@pytest.mark.parametrize("component", ARGS, ids=lambda text: text.split()[1].strip(","))
def test_inline_components_and_other_instances_take_their_own(
    run_of: Callable[..., Any], component: str, make: Callable[[str], str]
) -> None:
    kept, run = kept_after_shrinking(run_of, make(component))
    assert kept == [True, False, False, True]
    assert len(run.session._constants) == 2


RUN = """\
version: 2
config: tiny
pruners:
  one: {class: SensitivityPruner, sensitivities: {'*': 0.5}}
policies:
  - {pruner: {instance_name: one}, epochs: [0]}
  - {pruner: {instance_name: one}, epochs: [2, 3]}
"""

SPLICED = """\
version: 2
config: tiny
pruners:
  one: {class: SplicingPruner, sensitivities: {'*': 0.2}, low_thresh_mult: 0.9, hi_thresh_mult: 1.1}
policies:
  - {pruner: {instance_name: one, args: {use_double_copies: true, keep_mask: true}}, ending_epoch: 2}
  - {pruner: {instance_name: one, args: {use_double_copies: true, keep_mask: true}}, epochs: [2, 3]}
"""


@pytest.mark.parametrize("text", [RUN, SPLICED], ids=["SensitivityPruner", "SplicingPruner"])
def test_a_resumed_run_goes_on_with_the_constants_of_the_first_epoch(text: str) -> None:
    Path("s.yaml").write_text(text)
    succeed("train", "-s", "s", "--out", "whole")
    interrupted("-s", "s", "--out", "run", epoch=1, step=3)
    constants = saved(Path("run/checkpoint.pt"))["state"]["constants"]
    assert list(constants) == ["pruners.one"]
    assert set(constants["pruners.one"]) == {"fc1.weight", "fc2.weight"}
    succeed("train", "-s", "s", "--resume", "--out", "run")
    assert saved(Path("run/checkpoint.pt"))["state"]["constants"] == constants
    assert run_difference(Path("run"), Path("whole")) is None


def test_a_run_resumed_without_the_constants_would_differ() -> None:
    Path("s.yaml").write_text(RUN)
    succeed("train", "-s", "s", "--out", "whole")
    interrupted("-s", "s", "--out", "run", epoch=1, step=3)
    checkpoint = saved(Path("run/checkpoint.pt"))
    checkpoint["state"]["constants"] = {}
    torch.save(checkpoint, "run/checkpoint.pt")
    succeed("train", "-s", "s", "--resume", "--out", "run")
    assert run_difference(Path("run"), Path("whole")) is not None
