"""What a window's end and its mode mean for validation, best.pt and the report; masked gradients; rates of biases."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import compress, metrics, saved, succeed, work  # noqa: F401
from loop import Loop, random_batches, reread
from torch import Tensor, nn

from compressor.sparsity.masks import Masks

FORGETTING = ("use_double_copies", "mask_on_forward_only")


def level(mode: str, window: str = "", *more: str) -> str:
    """Half of every weight, in a mode of the pruning policy."""
    args = ", ".join([f"{mode}: true", *more])
    component = f"{{class: SparsityLevelParameterPruner, levels: {{'*': 0.5}}, args: {{{args}}}}}"
    return f"version: 2\nconfig: tiny\npolicies:\n  - pruner: {component}\n" + (f"    {window}\n" if window else "")


def written(text: str) -> None:
    Path("s.yaml").write_text(text)


def zeros(model: dict[str, Tensor], *names: str) -> float:
    """The share of zeros among some weights."""
    together = torch.cat([model[name].flatten() for name in names or ("fc1.weight", "fc2.weight")])
    return (together == 0).float().mean().item()


# --- modes that forget ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", FORGETTING)
def test_a_window_over_the_whole_run_is_validated_saved_and_reported_masked(mode: str) -> None:
    written(level(mode))
    assert "its masks end after" not in succeed("train", "-s", "s", "--out", "run", "--set", "epochs=3")
    assert [line["sparsity"] for line in metrics(Path("run"))] == [0.5] * 3
    best, last = saved(Path("run/best.pt")), saved(Path("run/checkpoint.pt"))
    assert zeros(best["model"]) == zeros(last["model"]) == 0.5
    report = json.loads(Path("run/sparsity.json").read_text())
    assert report == {**json.loads(succeed("report", "run", "--json")), "comparison": None}
    assert [tensor["sparsity"] for tensor in report["tensors"]] == [0.5, 0.5]
    assert "50.00" in succeed("report", "run")
    # What was tested is what is saved.
    again = json.loads(succeed("eval", "run/best.pt", "--json"))
    assert again["top1"] == pytest.approx(best["metrics"]["test"]["top1"])
    plan = json.loads(succeed("plan", "s", "--json"))
    assert plan["total_sparsity"] == pytest.approx(0.5)
    assert "its masks end after" not in compress("validate", "s").err


@pytest.mark.parametrize("mode", FORGETTING)
@pytest.mark.parametrize("window", ["", "ending_step: 6"], ids=["epochs", "steps"])
def test_every_forward_pass_of_such_a_run_is_masked_in_training_and_validation(mode: str, window: str) -> None:
    text = level(mode, window).replace("config: tiny\n", "")
    loop = Loop(nn.Linear(3, 4), random_batches([5, 5, 5]), text, epochs=2).run()
    assert len(loop.evaluated) >= 2
    assert [zeros(weights, "weight") for weights in [*loop.forwards, *loop.evaluated]] == [0.5] * (
        len(loop.forwards) + len(loop.evaluated)
    )
    assert zeros(reread(loop.best)["model"], "weight") == 0.5


@pytest.mark.parametrize("mode", ["mask_on_forward_only", "discard_masks_at_minibatch_end"])
@pytest.mark.parametrize(
    "window", ["ending_epoch: 2", "epochs: [0, 1]", "ending_step: 42"], ids=["window", "list", "steps"]
)
def test_a_window_that_ends_inside_the_run_says_that_its_masks_are_forgotten(mode: str, window: str) -> None:
    written(level(mode, window))
    result = compress("validate", "s")
    assert result.code == 0
    (line,) = [line for line in result.err.splitlines() if "its masks end after" in line]
    assert "s.yaml:4:" in line
    plan = json.loads(succeed("plan", "s", "--json"))
    assert (plan["total_sparsity"], plan["total_nonzero"]) == (0.0, plan["total_weights"])
    assert [row["sparsity"] for row in plan["predicted"]] == [0.0, 0.0]
    assert sum("its masks end after" in line for line in succeed("train", "-s", "s", "--out", "run").splitlines()) == 1
    if mode == "mask_on_forward_only":
        assert metrics(Path("run"))[-1]["sparsity"] == 0.0
        assert zeros(saved(Path("run/checkpoint.pt"))["model"]) == 0.0


@pytest.mark.parametrize(
    ("mode", "more"),
    [
        ("mask_on_forward_only", ["keep_mask: true"]),
        ("use_double_copies", ["keep_mask: true"]),
        ("use_double_copies", []),
    ],
)
def test_a_window_that_ends_inside_the_run_but_keeps_its_mask_says_nothing(mode: str, more: list[str]) -> None:
    written(level(mode, "ending_epoch: 2", *more))
    result = compress("validate", "s")
    assert (result.code, result.err) == (0, "")
    assert json.loads(succeed("plan", "s", "--json"))["total_sparsity"] == pytest.approx(0.5)
    assert "its masks end after" not in succeed("train", "-s", "s", "--out", "run")
    assert zeros(saved(Path("run/checkpoint.pt"))["model"]) == 0.5


def test_a_window_in_steps_that_the_run_never_reaches_is_a_warning_in_train() -> None:
    written(level("mask_gradients", "ending_step: 10000"))
    out = succeed("train", "-s", "s", "--out", "run", "--set", "epochs=1")
    (line,) = [line for line in out.splitlines() if "warning" in line]
    assert "step 9999" in line
    assert "21 steps" in line
    assert line in Path("run/log.txt").read_text()
    written(level("mask_gradients", "ending_step: 21"))
    assert "warning" not in succeed("train", "-s", "s", "--out", "reached", "--set", "epochs=1")


# --- mask_gradients ------------------------------------------------------------------------------------------------


def gradients(run: Any) -> Tensor:
    return torch.cat([p.grad.flatten() for p in run.parameters.values()])


@pytest.mark.parametrize("mode", ["", "mask_on_forward_only: true", "use_double_copies: true"])
@pytest.mark.parametrize("masked", [True, False])
def test_gradients_are_masked_between_active_epochs_and_after_the_window(
    run_of: Callable[..., Any], mode: str, masked: bool
) -> None:
    args = ", ".join(filter(None, [mode, "keep_mask: true" if mode else "", f"mask_gradients: {str(masked).lower()}"]))
    model = nn.Linear(8, 1, bias=False)
    run = run_of(
        "version: 2\npolicies:\n"
        f"  - pruner: {{class: SparsityLevelParameterPruner, levels: {{weight: 0.5}}, args: {{{args}}}}}\n"
        "    epochs: [0, 2]\n",
        model,
        momentum=0.9,
    )
    run.gradient = 0.01
    for epoch in range(4):
        run.epoch(epoch)
        keep = run.masks.keep("weight").flatten()
        assert keep.sum() == 4
        expected = torch.where(keep, 0.01, 0.0 if masked else 0.01)
        assert torch.equal(gradients(run), expected), epoch


def test_gradients_are_free_once_the_mask_is(run_of: Callable[..., Any]) -> None:
    run = run_of(
        level("mask_gradients", "epochs: [0]", "mask_on_forward_only: true").replace("config: tiny\n", ""),
        nn.Linear(8, 1, bias=False),
    )
    run.gradient = 0.01
    run.epoch(0)
    assert (gradients(run) == 0).sum() == 4
    run.epoch(1)
    assert not (gradients(run) == 0).any()


def test_masked_gradients_go_on_after_a_resume() -> None:
    weight = nn.Parameter(torch.ones(4))
    masks = Masks({"w": weight})
    masks.set("one", "w", torch.tensor([True, False, True, True]), mask_gradients=True)
    masks.set("two", "w", torch.tensor([True, True, False, True]))
    again = Masks({"w": weight})
    again.load_state_dict(masks.state_dict())
    weight.grad = torch.ones(4)
    again.zero_gradients()
    assert weight.grad.tolist() == [1.0, 0.0, 1.0, 1.0]


# --- best.pt of a regularizer that keeps its mask ------------------------------------------------------------------


def proximal(keep: bool, strength: float, window: str) -> str:
    args = f"{{keep_mask: {str(keep).lower()}}}"
    l1 = f"{{class: L1Regularizer, reg_regims: {{'*': {strength}}}, proximal: true, args: {args}}}"
    return f"version: 2\nconfig: tiny\npolicies:\n  - regularizer: {l1}\n    {window}\n"


@pytest.mark.parametrize(("window", "strength", "last"), [("starting_epoch: 1", 0.03, 3), ("epochs: [1, 2]", 0.05, 2)])
def test_best_of_a_regularizer_that_keeps_its_zeros_is_not_from_before_its_last_epoch(
    window: str, strength: float, last: int
) -> None:
    best = {}
    for keep in (True, False):
        written(proximal(keep, strength, window))
        succeed("train", "-s", "s", "--set", "best=loss", "--out", f"run-{keep}")
        best[keep] = saved(Path(f"run-{keep}/best.pt"))
    # The penalty is so strong that validation gets worse: without keep_mask the best epoch is an early one.
    assert best[False]["epoch"] <= last
    assert best[True]["epoch"] > last
    assert zeros(best[True]["model"]) > zeros(best[False]["model"])
    final = saved(Path("run-True/checkpoint.pt"))["model"]
    assert zeros(final) > 0
    lines = metrics(Path("run-True"))
    assert best[True]["epoch"] - 1 == min(range(last, 4), key=lambda epoch: lines[epoch]["val"]["loss"])


# --- rates of biases -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interval", ["step", "epoch"])
@pytest.mark.parametrize(
    "component",
    [
        "class: OneCycleLR, max_lr: 0.4, total_steps: 12",
        "class: CyclicLR, base_lr: 0.01, max_lr: 0.1, step_size_up: 3",
        "class: CosineAnnealingLR, T_max: 6, eta_min: 0.01",
    ],
    ids=lambda text: text.split()[1].strip(","),
)
def test_schedules_that_name_their_rates_keep_bias_lr_scale(component: str, interval: str) -> None:
    text = f"version: 2\npolicies:\n  - lr_scheduler: {{{component}, args: {{interval: {interval}}}}}\n"
    batches = random_batches([4, 4, 4])
    optimizer = {"name": "sgd", "lr": 0.1, "momentum": 0.9}
    scaled = Loop(nn.Linear(3, 3), batches, text, epochs=4, optimizer={**optimizer, "bias_lr_scale": 2.0}).run()
    plain = Loop(nn.Linear(3, 3), batches, text, epochs=4, optimizer=optimizer).run()
    assert len({rates[0] for rates in plain.rates}) > 2
    assert len(scaled.rates) == 12
    for ours, theirs in zip(scaled.rates, plain.rates, strict=True):
        assert sorted(set(ours)) == pytest.approx([theirs[0], 2 * theirs[0]])
