"""The trainer's settings against a bare loop in double precision, written here with the papers' formulas."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from loop import Batch, Loop, is_plus_zero, random_batches, values
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.config import OptimizerConfig
from compressor.errors import CompressError
from compressor.reports.report import measure
from compressor.sparsity.weights import prunable
from compressor.training.initialization import initialize
from compressor.training.optimizers import build

State = dict[str, Tensor]


def net(seed: int = 0) -> nn.Sequential:
    """3 -> 4 -> 3 with a tanh; 0.weight, 0.bias, 2.weight, 2.bias."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))


def loss_of(w: State, images: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """(1 - a) times the cross-entropy plus a times the mean of -log p over the classes, by hand."""
    hidden = torch.tanh(images.double() @ w["0.weight"].T + w["0.bias"])
    logits = hidden @ w["2.weight"].T + w["2.bias"]
    logs = logits - torch.logsumexp(logits, 1, keepdim=True)
    true = logs[torch.arange(len(labels)), labels]
    return ((smoothing - 1) * true - smoothing * logs.mean(1)).mean()


Update = Callable[[str, Tensor, Tensor, State, int], Tensor]
"""(name, weight, gradient, what the optimizer remembers, number of the step from 1) -> the new weight."""

Touch = Callable[[State, State, int], None]
"""Changes weights or gradients in place: (weights, gradients, number of the step from 0)."""


def bare(
    model: nn.Module, batches: list[Batch], update: Update, *, touch: Touch | None = None, smoothing: float = 0.0
) -> list[State]:
    """The weights after each step of a loop without any of our parts."""
    w = {name: value.double() for name, value in values(model).items()}
    memory: State = {}
    after = []
    for step, (images, labels) in enumerate(batches):
        leaves = {name: value.clone().requires_grad_() for name, value in w.items()}
        loss = loss_of(leaves, images, labels, smoothing)
        gradients = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
        if touch:
            touch(w, gradients, step)
        w = {name: update(name, w[name], gradients[name], memory, step + 1) for name in w}
        after.append(w)
    return after


def sgd(
    lr: float | Callable[[int], float] = 0.1,
    momentum: float = 0.0,
    decay: float = 0.0,
    nesterov: bool = False,
    bias: float = 1.0,
) -> Update:
    """Sutskever et al. 2013 as PyTorch has it."""

    def update(name: str, w: Tensor, gradient: Tensor, memory: State, step: int) -> Tensor:
        gradient = gradient + decay * w
        if momentum:
            memory[name] = momentum * memory[name] + gradient if name in memory else gradient
            gradient = gradient + momentum * memory[name] if nesterov else memory[name]
        rate = lr(step - 1) if callable(lr) else lr
        return w - rate * (bias if name.endswith("bias") else 1) * gradient

    return update


def adam(
    lr: float = 0.01,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    decay: float = 0.0,
    decoupled: bool = False,
) -> Update:
    """Kingma and Ba 2015; decoupled: Loshchilov and Hutter 2019."""

    def update(name: str, w: Tensor, gradient: Tensor, memory: State, step: int) -> Tensor:
        if decoupled:
            w = w - lr * decay * w
        else:
            gradient = gradient + decay * w
        first, second = memory.get(f"m {name}", 0 * w), memory.get(f"v {name}", 0 * w)
        memory[f"m {name}"] = first = betas[0] * first + (1 - betas[0]) * gradient
        memory[f"v {name}"] = second = betas[1] * second + (1 - betas[1]) * gradient**2
        return w - lr * (first / (1 - betas[0] ** step)) / ((second / (1 - betas[1] ** step)).sqrt() + eps)

    return update


def same(ours: State, theirs: State) -> bool:
    """Equal to single precision."""
    assert ours.keys() == theirs.keys()
    return all(torch.allclose(ours[name].double(), theirs[name], rtol=1e-5, atol=2e-6) for name in ours)


OPTIMIZERS: dict[str, tuple[dict[str, Any], Update]] = {
    "sgd": ({"name": "sgd", "lr": 0.2}, sgd(0.2)),
    "sgd with momentum and weight decay": (
        {"name": "sgd", "lr": 0.2, "momentum": 0.9, "weight_decay": 0.05},
        sgd(0.2, 0.9, 0.05),
    ),
    "nesterov, biases at twice the rate": (
        {"name": "sgd", "lr": 0.2, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05, "bias_lr_scale": 2.0},
        sgd(0.2, 0.9, 0.05, nesterov=True, bias=2.0),
    ),
    "adam": ({"name": "adam", "lr": 0.02}, adam(0.02)),
    "adam with the penalty's weight decay": (
        {"name": "adam", "lr": 0.02, "betas": [0.8, 0.9], "eps": 1e-3, "weight_decay": 0.5},
        adam(0.02, (0.8, 0.9), 1e-3, 0.5),
    ),
    "adamw with decoupled weight decay": (
        {"name": "adamw", "lr": 0.02, "weight_decay": 0.5},
        adam(0.02, decay=0.5, decoupled=True),
    ),
}


@pytest.mark.parametrize(("config", "update"), OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_an_optimizer_does_what_its_paper_says(config: dict[str, Any], update: Update) -> None:
    model, batches = net(), random_batches([5] * 6)
    expected = bare(model, batches * 2, update)
    run = Loop(model, batches, optimizer=config, epochs=2).run()
    assert len(run.after) == 12
    assert all(same(ours, theirs) for ours, theirs in zip(run.after, expected, strict=True))


@pytest.mark.parametrize("other", OPTIMIZERS)
def test_control_two_optimizers_end_in_other_weights(other: str) -> None:
    model, batches = net(), random_batches([5] * 6)
    ends = {name: bare(model, batches, update)[-1] for name, (_, update) in OPTIMIZERS.items()}
    assert [name for name, end in ends.items() if same(ends[other], end)] == [other]


def test_biases_at_twice_the_rate_are_a_group_of_their_own_that_a_schedule_scales_too() -> None:
    model, batches = net(), random_batches([5] * 3)
    schedule = "policies:\n  - lr_scheduler: {class: StepLR, step_size: 1, gamma: 0.5}\n"
    expected = bare(model, batches * 3, sgd(lambda step: 0.2 * 0.5 ** (step // 3), bias=2.0))
    run = Loop(model, batches, schedule, optimizer={"lr": 0.2, "bias_lr_scale": 2.0}, epochs=3).run()
    groups = run.session.optimizer.groups
    assert [[p.shape for p in group["params"]] for group in groups] == [[(4, 3), (3, 4)], [(4,), (3,)]]
    assert run.rates == [[0.2, 0.4]] * 3 + [[0.1, 0.2]] * 3 + [[0.05, 0.1]] * 3
    assert all(same(ours, theirs) for ours, theirs in zip(run.after, expected, strict=True))


def test_biases_at_rate_0_stay_as_they_are() -> None:
    model = net()
    begin = values(model)
    end = Loop(model, random_batches([5] * 3), optimizer={"lr": 0.2, "bias_lr_scale": 0.0}).run().after[-1]
    assert {name for name in begin if torch.equal(begin[name], end[name])} == {"0.bias", "2.bias"}


def test_the_biases_of_attention_and_recurrent_layers_are_biases_too() -> None:
    model = nn.Sequential(nn.MultiheadAttention(4, 2), nn.LSTM(4, 3, bidirectional=True), nn.Linear(6, 2))
    groups = build(model, OptimizerConfig(lr=0.1, bias_lr_scale=2.0)).param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    assert [names[id(p)] for p in groups[1]["params"]] == [name for name in names.values() if "bias" in name]
    assert len(groups[1]["params"]) == 2 + 4 + 1


def test_without_a_rate_of_their_own_biases_are_in_the_one_group() -> None:
    optimizer = build(net(), OptimizerConfig(lr=0.1))
    assert [len(group["params"]) for group in optimizer.param_groups] == [4]


@pytest.mark.parametrize("parts", [2, 4, 7, 100])
def test_a_batch_in_parts_gives_the_gradient_of_the_whole_batch(parts: int) -> None:
    # 10 in 4 parts: 3 3 3 1; the last batch, 7: 2 2 2 1. In more parts than images: one by one.
    model, batches = net(), random_batches([10, 10, 7])
    config = {"lr": 0.2, "momentum": 0.9, "weight_decay": 0.05}
    expected = bare(model, batches * 2, sgd(0.2, 0.9, 0.05))
    run = Loop(model, batches, optimizer={**config, "accumulate": parts}, epochs=2).run()
    whole = Loop(net(), batches, optimizer=config, epochs=2).run()
    assert len(run.after) == 6
    assert all(same(ours, theirs) for ours, theirs in zip(run.after, expected, strict=True))
    # 2: 5 5 | 5 5 | 4 3; 4: see above; 7: 2 2 2 2 2 | 2 2 2 2 2 | 7 x 1.
    assert len(run.forwards) == 2 * {2: 6, 4: 12, 7: 17, 100: 27}[parts]
    for ours, theirs in zip(run.lines, whole.lines, strict=True):
        assert ours["train"] == pytest.approx(theirs["train"], rel=1e-5)
        assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-5)


def test_all_parts_of_a_batch_see_the_same_weights_and_events_come_once_a_step() -> None:
    schedule = """\
version: 2
policies:
  - regularizer: {class: L1Regularizer, reg_regims: {0.weight: 0.5}}
  - lr_scheduler: {class: StepLR, step_size: 1, gamma: 0.5, args: {interval: step}}
"""

    def touch(w: State, gradients: State, step: int) -> None:
        gradients["0.weight"] += 0.5 * w["0.weight"].sign()

    model, batches = net(), random_batches([6, 6])
    expected = bare(model, batches, sgd(lambda step: 0.1 * 0.5**step), touch=touch)
    run = Loop(model, batches, schedule, optimizer={"lr": 0.1, "accumulate": 3}).run()
    assert run.rates == [[0.1]] * 3 + [[0.05]] * 3
    assert all(torch.equal(run.forwards[0]["0.weight"], w["0.weight"]) for w in run.forwards[1:3])
    assert all(same(ours, theirs) for ours, theirs in zip(run.after, expected, strict=True))


def clip(gradients: State, limit: float) -> float:
    """All gradients times limit / their common L2 norm where that is larger; returns the norm."""
    norm = math.sqrt(sum(float((g**2).sum()) for g in gradients.values()))
    for gradient in gradients.values():
        gradient *= min(1.0, limit / norm)
    return norm


@pytest.mark.parametrize("limit", [0.05, 0.4, 100.0])
def test_the_gradients_norm_over_all_parameters_is_clipped(limit: float) -> None:
    norms: list[float] = []
    model, batches = net(), random_batches([5] * 8)
    expected = bare(model, batches, sgd(), touch=lambda w, g, step: norms.append(clip(g, limit)))
    run = Loop(model, batches, optimizer={"lr": 0.1, "clip_norm": limit}).run()
    assert all(same(ours, theirs) for ours, theirs in zip(run.after, expected, strict=True))
    clipped = sum(norm > limit for norm in norms)
    assert clipped == 8 if limit == 0.05 else clipped == 0 if limit == 100.0 else 0 < clipped < 8


def test_penalties_are_in_the_gradient_that_is_clipped() -> None:
    schedule = "policies:\n  - regularizer: {class: L1Regularizer, reg_regims: {0.weight: 2.0}}\n"

    def touch(w: State, gradients: State, step: int) -> None:
        gradients["0.weight"] += 2.0 * w["0.weight"].sign()
        clip(gradients, 1.0)

    model, batches = net(), random_batches([5] * 3)
    expected = bare(model, batches, sgd(), touch=touch)
    run = Loop(model, batches, schedule, optimizer={"lr": 0.1, "clip_norm": 1.0}).run()
    assert all(same(ours, theirs) for ours, theirs in zip(run.after, expected, strict=True))


def test_the_whole_batchs_gradient_is_clipped_not_each_parts() -> None:
    norms: list[float] = []
    model, batches = net(), random_batches([6] * 3)
    expected = bare(model, batches, sgd(), touch=lambda w, g, step: norms.append(clip(g, 0.1)))
    run = Loop(model, batches, optimizer={"lr": 0.1, "clip_norm": 0.1, "accumulate": 3}).run()
    assert all(same(ours, theirs) for ours, theirs in zip(run.after, expected, strict=True))
    assert min(norms) > 0.1


def test_bf16_trains_float32_weights_to_other_but_near_values() -> None:
    batches = random_batches([32] * 5)
    dtypes: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    model = net()
    model[2].register_forward_hook(lambda layer, _, logits: dtypes[layer.training].add(logits.dtype))
    half = Loop(model, batches, precision="bf16", optimizer={"lr": 0.3, "momentum": 0.9}).run()
    full = Loop(net(), batches, optimizer={"lr": 0.3, "momentum": 0.9}).run()
    assert dtypes == {True: {torch.bfloat16}, False: {torch.bfloat16}}
    saved = half.at((1, 0))
    floats = [t for t in [*saved["model"].values(), *half.after[-1].values()] if t.is_floating_point()]
    assert {tensor.dtype for tensor in floats} == {torch.float32}
    buffers = [state["momentum_buffer"].dtype for state in saved["state"]["optimizer"]["state"].values()]
    assert set(buffers) == {torch.float32}
    for name, weight in half.after[-1].items():
        assert not torch.equal(weight, full.after[-1][name])
        assert torch.allclose(weight, full.after[-1][name], atol=0.03)
    assert half.lines[0]["val"]["loss"] == pytest.approx(full.lines[0]["val"]["loss"], rel=0.02)


def test_bf16_resumes_in_mid_epoch_to_the_same_bits() -> None:
    batches = random_batches([8] * 4)
    whole = Loop(net(), batches, precision="bf16", epochs=2).run()
    again = Loop(net(5), batches, precision="bf16", epochs=2, seed=5).resume(whole.at((0, 2)))
    assert all(torch.equal(again.after[-1][name], w) for name, w in whole.after[-1].items())


def test_label_smoothing_moves_a_share_of_the_label_to_all_classes() -> None:
    model, batches = net(), random_batches([5] * 4)
    first = {name: value.double() for name, value in values(model).items()}
    expected = bare(model, batches, sgd(), smoothing=0.3)
    run = Loop(model, batches, label_smoothing=0.3).run()
    assert all(same(ours, theirs) for ours, theirs in zip(run.after, expected, strict=True))
    before = [first, *expected[:-1]]
    losses = [float(loss_of(w, *batch, 0.3)) for w, batch in zip(before, batches, strict=True)]
    assert run.lines[0]["train"]["loss"] == pytest.approx(sum(losses) / 4, rel=1e-5)


def test_validation_is_measured_without_label_smoothing() -> None:
    model, batches = net(), random_batches([5] * 4)
    expected = bare(model, batches, sgd(), smoothing=0.3)[-1]
    run = Loop(model, batches, label_smoothing=0.3).run()
    plain = sum(float(loss_of(expected, *batch)) for batch in batches) / 4
    assert run.lines[0]["val"]["loss"] == pytest.approx(plain, rel=1e-5)


def figures(w: State, batches: list[Batch]) -> dict[str, float]:
    """Loss and top-1 by hand; with three classes everything is among the five best."""
    pairs = [(loss_of(w, *batch), len(batch[1])) for batch in batches]
    total = sum(size for _, size in pairs)
    hits = 0
    for images, labels in batches:
        logits = torch.tanh(images.double() @ w["0.weight"].T + w["0.bias"]) @ w["2.weight"].T + w["2.bias"]
        hits += int((logits.argmax(1) == labels).sum())
    return {"loss": sum(float(loss) * size for loss, size in pairs) / total, "top1": 100 * hits / total, "top5": 100.0}


def test_test_every_epoch_adds_the_test_figures_to_each_line() -> None:
    model, batches = net(), random_batches([5] * 3)
    validation = random_batches([20, 13], seed=1)
    expected = bare(model, batches * 2, sgd())
    run = Loop(model, batches, epochs=2, test_every_epoch=True, validation=validation).run()
    assert [line["epoch"] for line in run.lines] == [0, 1]
    tests = [(images.flip(0), labels) for images, labels in validation]
    for line, w in zip(run.lines, [expected[2], expected[5]], strict=True):
        assert line["val"] == pytest.approx(figures(w, validation), rel=1e-5)
        assert line["test"] == pytest.approx(figures(w, tests), rel=1e-5)
        assert line["test"] != pytest.approx(line["val"], rel=1e-3)


def test_by_default_the_test_images_are_not_touched_while_training() -> None:
    validation = random_batches([20], seed=1)
    run = Loop(net(), random_batches([5] * 3), epochs=2, validation=validation).run()
    assert all("test" not in line for line in run.lines)
    assert len(run.evaluated) == 2  # one forward pass a validation


WARM_UP = """\
version: 2
policies:
  - lr_scheduler: {class: LinearLR, start_factor: 0.25, total_iters: 3, args: {interval: step}}
    starting_step: 0
    ending_step: 3
  - lr_scheduler: {class: PolynomialLR, T_max: 8, power: 1, args: {interval: step}}
    starting_step: 3
    ending_step: 11
"""


def test_a_warm_up_and_then_a_decay_by_two_policies_that_count_steps() -> None:
    # Up from a quarter: 1/4 1/2 3/4; from step 3 on down from the full rate by eighths, and 0 at the end.
    rates = [0.05, 0.1, 0.15, 0.2, 0.175, 0.15, 0.125, 0.1, 0.075, 0.05, 0.025, 0.0]
    model, batches = net(), random_batches([5] * 4)
    expected = bare(model, batches * 3, sgd(lambda step: rates[step]))
    run = Loop(model, batches, WARM_UP, optimizer={"lr": 0.2}, epochs=3).run()
    assert [rate for (rate,) in run.rates] == pytest.approx(rates, abs=1e-9)
    assert all(same(ours, theirs) for ours, theirs in zip(run.after, expected, strict=True))


@pytest.mark.parametrize("moment", [(0, 2), (0, 3), (1, 0), (1, 3)])
def test_a_warm_up_that_is_interrupted_goes_on_to_the_same_bits(moment: tuple[int, int]) -> None:
    batches = random_batches([5] * 4)
    whole = Loop(net(), batches, WARM_UP, optimizer={"lr": 0.2}, epochs=3).run()
    again = Loop(net(5), batches, WARM_UP, optimizer={"lr": 0.2}, epochs=3, seed=5).resume(whole.at(moment))
    assert again.rates == whole.rates[4 * moment[0] + moment[1] :]
    assert all(torch.equal(again.after[-1][name], w) for name, w in whole.after[-1].items())


@pytest.mark.parametrize("version", [1, 2])
def test_inv_by_steps_is_caffes_closed_form(version: int) -> None:
    schedule = f"""\
version: {version}
policies:
  - lr_scheduler: {{class: InvLR, gamma: 1e-4, power: 0.75, args: {{interval: step}}}}
"""
    model, batches = net(), random_batches([5] * 40)
    run = Loop(model, batches, schedule, optimizer={"lr": 0.01, "bias_lr_scale": 2.0}, epochs=3).run()
    expected = [0.01 * (1 + 1e-4 * t) ** -0.75 for t in range(120)]
    assert len(run.rates) == 120
    assert [weights for weights, _ in run.rates] == pytest.approx(expected, rel=1e-12)
    assert [biases for _, biases in run.rates] == pytest.approx([2 * rate for rate in expected], rel=1e-12)


def test_one_cycle_by_steps_is_torchs_over_a_bare_loop() -> None:
    schedule = """\
policies:
  - lr_scheduler: {class: OneCycleLR, max_lr: 0.5, total_steps: 12, args: {interval: step}}
"""
    batches = random_batches([5] * 4)
    plain = net()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.5, total_steps=12)
    expected = []
    for step, (images, labels) in enumerate(batches * 3):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.zero_grad()
        F.cross_entropy(plain(images), labels).backward()
        optimizer.step()
        if step < 11:
            cycle.step()
    run = Loop(net(), batches, schedule, optimizer={"lr": 0.1, "momentum": 0.9}, epochs=3).run()
    assert [rate for (rate,) in run.rates] == pytest.approx(expected, rel=1e-9)
    assert max(expected) > 20 * expected[0]  # it does cycle
    for name, weight in values(plain).items():  # the momentum is cycled with it
        assert torch.allclose(run.after[-1][name], weight, atol=1e-6)


def zeros(weights: State, name: str = "0.weight") -> int:
    return int((weights[name] == 0).sum())


def wide(seed: int = 0) -> nn.Sequential:
    """0.weight has 1,000 weights."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(10, 100), nn.Tanh(), nn.Linear(100, 3))


def test_agp_in_a_window_of_steps_is_the_cubic_in_steps() -> None:
    schedule = """\
version: 2
policies:
  - pruner: {class: AutomatedGradualPruner, initial_sparsity: 0.25, final_sparsity: 0.75, weights: 0.weight}
    starting_step: 1
    ending_step: 15
    step_frequency: 3
"""
    # It fires at 1 4 7 10 13; span 12: s(1 + 3 k) = 0.75 - 0.5 (1 - k/4)^3: 0.25 0.5390625 0.6875 0.7421875 0.75.
    levels = [0] + [250] * 3 + [539] * 3 + [687] * 3 + [742] * 3 + [750] * 3
    batches = random_batches([5] * 4, features=10)
    run = Loop(wide(), batches, schedule, epochs=4).run()
    assert [zeros(weights) for weights in run.forwards] == levels
    assert [zeros(weights) for weights in run.after] == levels
    expected = [250 / 1300, 687 / 1300, 742 / 1300, 750 / 1300]
    assert [line["sparsity"] for line in run.lines] == pytest.approx(expected, abs=1e-9)


def test_a_regularizer_in_a_window_of_steps_acts_at_its_steps_alone() -> None:
    schedule = """\
version: 2
policies:
  - regularizer: {class: L2Regularizer, reg_regims: {2.weight: 0.5}}
    starting_step: 1
    ending_step: 8
    step_frequency: 3
"""

    def touch(w: State, gradients: State, step: int) -> None:
        if step in (1, 4, 7):
            gradients["2.weight"] += 2 * 0.5 * w["2.weight"]

    model, batches = net(), random_batches([5] * 3)
    expected = bare(model, batches * 4, sgd(), touch=touch)
    run = Loop(model, batches, schedule, epochs=4).run()
    assert all(same(ours, theirs) for ours, theirs in zip(run.after, expected, strict=True))
    names = [set(line["losses"]) - {"data"} for line in run.lines]
    assert [len(found) for found in names] == [1, 1, 1, 0]  # the last epoch is behind the window


def test_a_learning_rate_in_a_window_of_steps_moves_after_its_steps_alone() -> None:
    schedule = """\
version: 2
policies:
  - lr_scheduler: {class: ExponentialLR, gamma: 0.5, args: {interval: step}}
    starting_step: 2
    ending_step: 8
    step_frequency: 2
"""
    # After steps 2, 4 and 6 the rate is that of 1, 3 and 5 steps from the window's begin.
    batches = random_batches([5] * 3)
    run = Loop(net(), batches, schedule, optimizer={"lr": 1.0}, epochs=3).run()
    expected = [1.0] * 3 + [0.5] * 2 + [0.125] * 2 + [0.03125] * 2
    assert [rate for (rate,) in run.rates] == pytest.approx(expected, rel=1e-12)


def poisoned(epoch: int, step: int) -> Callable[[int], list[Batch]]:
    """Four batches of 6 an epoch; the last image of one of them is no number."""

    def batches(at: int) -> list[Batch]:
        found = [(images.clone(), labels) for images, labels in random_batches([6] * 4)]
        if at == epoch:
            found[step][0][5, 0] = math.nan
        return found

    return batches


PENALIZED = """\
regularizers:
  shrink: {class: L1Regularizer, reg_regims: {0.weight: 0.01}}
  decay: {class: L2Regularizer, reg_regims: {2.weight: 0.01}}
policies:
  - regularizer: {instance_name: shrink}
  - regularizer: {instance_name: decay}
"""


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_loss_that_is_not_finite_stops_with_epoch_step_and_components(accumulate: int) -> None:
    run = Loop(net(), poisoned(1, 3), PENALIZED, epochs=3, optimizer={"lr": 0.1, "accumulate": accumulate})
    with pytest.raises(CompressError) as stopped:
        run.run()
    said = str(stopped.value)
    assert stopped.value.exit_code == 1
    assert "epoch 1, step 3" in said
    assert all(name in said for name in ("data nan", "shrink 0.", "decay 0."))
    assert "\n" not in said
    assert len(run.after) == 7  # the bad step is not taken
    assert all(torch.isfinite(tensor).all() for tensor in run.after[-1].values())
    assert max(run.snapshots) == (1, 3)


def test_a_rate_that_is_far_too_high_stops_where_the_loss_overflows() -> None:
    run = Loop(nn.Linear(3, 3), random_batches([6] * 4), optimizer={"lr": 1e38}, epochs=3)
    with pytest.raises(CompressError, match=r"epoch 0, step [123] \(data (nan|inf)\)"):
        run.run()


def test_a_last_step_that_leaves_no_numbers_does_not_end_well() -> None:
    # tanh(inf) = 1: the loss is finite and the gradient is not, which no later step's loss can tell.
    def batches(epoch: int) -> list[Batch]:
        found = [(images.clone(), labels) for images, labels in random_batches([6] * 4)]
        if epoch == 1:
            found[3][0][5, 0] = math.inf
        return found

    with pytest.raises(CompressError, match="not finite"):
        Loop(net(), batches, PENALIZED, epochs=2, validation=random_batches([6])).run()


def test_the_penalties_named_are_those_in_force() -> None:
    schedule = PENALIZED.replace("{instance_name: decay}", "{instance_name: decay}\n    epochs: [0]")
    with pytest.raises(CompressError) as stopped:
        Loop(net(), poisoned(1, 3), schedule, epochs=3).run()
    assert "shrink" in str(stopped.value)
    assert "decay" not in str(stopped.value)


class Tied(nn.Module):
    """Two layers that share their weight, and a third one."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.one, self.two, self.out = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
        self.two.weight = self.one.weight

    def forward(self, images: Tensor) -> Tensor:
        return self.out(torch.tanh(self.two(torch.tanh(self.one(images)))))  # type: ignore[no-any-return]


@pytest.mark.parametrize("selector", ["one.weight", "two.weight", "'*'"])
def test_tied_weights_share_one_mask_and_count_once(selector: str) -> None:
    # floor(0.5 * 9) = 4 zeros; the model has 9 + 9 weights.
    schedule = f"policies:\n  - pruner: {{class: SparsityLevelParameterPruner, levels: {{{selector}: 0.5}}}}\n"
    model = Tied()
    assert list(prunable(model)) == ["one.weight", "out.weight"]
    optimizer = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}
    run = Loop(model, random_batches([5] * 3), schedule, epochs=2, optimizer=optimizer, ema={"decay": 0.5}).run()
    everywhere = selector == "'*'"
    saved = run.at((2, 0))["model"]
    assert torch.equal(saved["one.weight"], saved["two.weight"])
    assert int((saved["one.weight"] == 0).sum()) == 4
    assert is_plus_zero(saved["one.weight"][saved["one.weight"] == 0])
    assert all((w["one.weight"] == 0).sum() == 4 for w in run.forwards)
    assert run.lines[-1]["sparsity"] == pytest.approx((8 if everywhere else 4) / 18)
    owned = [run.masks.owned(key) for key in run.session.events.memory]
    assert [list(masks) for masks in owned] == [["one.weight", "out.weight"] if everywhere else ["one.weight"]]


@pytest.mark.parametrize("selector", ["t*.weight", "re:^two", "re:^one"])
def test_a_pattern_that_matches_either_name_of_a_tied_weight_selects_it(selector: str) -> None:
    schedule = f"policies:\n  - pruner: {{class: SparsityLevelParameterPruner, levels: {{'{selector}': 0.5}}}}\n"
    run = Loop(Tied(), random_batches([5]), schedule).run()
    assert [list(run.masks.owned(key)) for key in run.session.events.memory] == [["one.weight"]]


def test_a_report_counts_a_tied_weight_once() -> None:
    report = measure(Tied(), (1, 1, 3))
    assert [row.name for row in report.tensors] == ["one.weight", "out.weight"]
    assert (report.totals.weights, report.totals.parameters) == (18, 27)


def test_a_tied_run_resumes_in_mid_epoch_to_the_same_bits() -> None:
    schedule = "policies:\n  - pruner: {class: SparsityLevelParameterPruner, levels: {two.weight: 0.5}}\n"
    batches = random_batches([5] * 3)
    settings: dict[str, Any] = {"epochs": 2, "optimizer": {"lr": 0.1, "momentum": 0.9}, "ema": {"decay": 0.5}}
    whole = Loop(Tied(), batches, schedule, **settings).run()
    again = Loop(Tied(5), batches, schedule, seed=5, **settings).resume(whole.at((0, 2)))
    assert all(torch.equal(again.after[-1][name], w) for name, w in whole.after[-1].items())


LAYERS = {
    "linear": (lambda: nn.Linear(300, 40), 300),
    "convolution": (lambda: nn.Conv2d(8, 60, 5), 8 * 25),
    "grouped convolution": (lambda: nn.Conv2d(8, 60, 5, groups=4), 2 * 25),
    "without bias": (lambda: nn.Linear(300, 40, bias=False), 300),
}


@pytest.mark.parametrize(("make", "fan_in"), LAYERS.values(), ids=LAYERS)
def test_xavier_is_caffes_uniform_over_fan_in_with_zero_biases(make: Callable[[], nn.Linear], fan_in: int) -> None:
    torch.manual_seed(0)
    layer = make()
    initialize(nn.Sequential(layer), "xavier")
    bound, weight = math.sqrt(3 / fan_in), layer.weight.detach()
    assert float(weight.abs().max()) <= bound
    assert float(weight.max()) > 0.99 * bound
    assert float(weight.min()) < -0.99 * bound
    assert abs(float(weight.mean())) < 0.05 * bound
    assert float(weight.std()) == pytest.approx(math.sqrt(1 / fan_in), rel=0.05)  # of U(-a, a): a / sqrt 3
    assert layer.bias is None or is_plus_zero(layer.bias)


@pytest.mark.parametrize(("make", "fan_in"), LAYERS.values(), ids=LAYERS)
def test_kaiming_is_normal_of_variance_2_over_fan_in_with_zero_biases(
    make: Callable[[], nn.Linear], fan_in: int
) -> None:
    torch.manual_seed(0)
    layer = make()
    initialize(nn.Sequential(layer), "kaiming")
    weight = layer.weight.detach()
    assert float(weight.std()) == pytest.approx(math.sqrt(2 / fan_in), rel=0.05)
    assert abs(float(weight.mean())) < 0.05 * math.sqrt(2 / fan_in)
    within = float((weight.abs() <= math.sqrt(2 / fan_in)).float().mean())
    assert within == pytest.approx(0.6827, abs=0.02)  # of a normal law
    assert layer.bias is None or is_plus_zero(layer.bias)


def test_the_default_initialization_changes_nothing() -> None:
    model = net()
    before = values(model)
    initialize(model, "default")
    assert all(torch.equal(before[name], tensor) for name, tensor in values(model).items())


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_network_that_is_given_in_evaluation_mode_is_trained_in_training_mode(epochs: int) -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).eval()
    run = Loop(network, random_batches([4, 4]), epochs=epochs).run()
    assert int(network[1].num_batches_tracked) == 2 * epochs
    assert len(run.forwards) == 2 * epochs
