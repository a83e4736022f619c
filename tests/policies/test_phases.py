"""Dense-sparse-dense training and iterative hard thresholding, in the real loop."""

from collections import OrderedDict
from typing import Any

import pytest
import torch
from helpers import difference
from loop import Loop, is_plus_zero, random_batches, read
from torch import nn

from compressor.schedule.faults import Faults
from compressor.schedule.plan import make_plan
from compressor.schedule.schedule import view_of
from compressor.timing import Clock

MOMENTUM = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05}
ADAM = {"name": "adam", "lr": 0.05, "weight_decay": 0.05}
STEPS = 4
OWNER = "0.dsd"


def policy(name: str, window: str = "", **arguments: Any) -> str:
    given = {"weights": "'*'", "sparsity": 0.3, **arguments}
    fields = ", ".join(f"{key}: {value}" for key, value in given.items())
    return f"version: 2\npolicies:\n  - {{{name}: {{{fields}}}{window}}}\n"


def dsd(dense: int = 2, sparse: int = 2, redense: int = 2, window: str = "", **more: Any) -> str:
    return policy("dsd", window, dense_epochs=dense, sparse_epochs=sparse, redense_epochs=redense, **more)


def iht(sparse: int = 1, dense: int = 1, window: str = "", **more: Any) -> str:
    return policy("iht", window, sparse_epochs=sparse, dense_epochs=dense, **more)


def mlp(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(OrderedDict(fc1=nn.Linear(3, 7), act=nn.Tanh(), fc2=nn.Linear(7, 3)))


def train(text: str, epochs: int = 6, optimizer: dict[str, Any] | None = None, **settings: Any) -> Loop:
    settings = {"optimizer": optimizer or MOMENTUM, **settings}
    return Loop(mlp(), random_batches([5] * STEPS), text, epochs=epochs, **settings).run()


def zeros(run: Loop, epoch: int, name: str = "fc1.weight") -> list[int]:
    """How many weights are 0 after each step of an epoch."""
    return [int((after[name] == 0).sum()) for after in run.after[STEPS * epoch : STEPS * (epoch + 1)]]


def phases(text: str) -> list[tuple[str, int, int, float]]:
    (entry,) = read(text).entries
    return [(p.kind, p.start, p.end, p.scale) for p in entry.policy.phases()]  # type: ignore[attr-defined]


PLANS = {
    dsd(3, 2, 1): [("dense", 0, 3, 1.0), ("sparse", 3, 5, 0.1), ("dense", 5, 6, 0.1)],
    dsd(0, 1, 2): [("sparse", 0, 1, 0.1), ("dense", 1, 3, 0.1)],
    dsd(1, 1, 1, repeats=2, lr_scales="{sparse: 0.5, redense: 0.25}"): [
        *[("dense", 0, 1, 1.0), ("sparse", 1, 2, 0.5), ("dense", 2, 3, 0.25)],
        *[("sparse", 3, 4, 0.5), ("dense", 4, 5, 0.25)],
    ],
    iht(2, 3): [("sparse", 0, 2, 0.1), ("dense", 2, 5, 1.0), ("sparse", 5, 7, 0.1)],
    iht(2, 3, cycles=2, end="dense"): [
        *[("sparse", 0, 2, 0.1), ("dense", 2, 5, 1.0), ("sparse", 5, 7, 0.1), ("dense", 7, 10, 1.0)]
    ],
    iht(1, 1, cycles=2, end="sparse", lr_scales="{sparse: 0.5, dense: 2}"): [
        *[("sparse", 0, 1, 0.5), ("dense", 1, 2, 2.0), ("sparse", 2, 3, 0.5), ("dense", 3, 4, 2.0)],
        *[("sparse", 4, 5, 0.5)],
    ],
}


@pytest.mark.parametrize("text", PLANS)
def test_the_phases_follow_each_other_as_the_papers_say(text: str) -> None:
    assert phases(text) == PLANS[text]


@pytest.mark.parametrize("optimizer", [MOMENTUM, ADAM], ids=["sgd", "adam"])
def test_the_sparse_phase_has_the_exact_density_and_exact_zeros(
    optimizer: dict[str, Any],
) -> None:
    run = train(dsd(), optimizer=optimizer)
    for epoch in (0, 1):
        assert zeros(run, epoch) == [0] * STEPS
    before = run.after[2 * STEPS - 1]
    for name in ("fc1.weight", "fc2.weight"):  # floor(.3 * 21) = 6 of the smallest
        smallest = before[name].abs().flatten().argsort()[:6]
        for after in run.after[2 * STEPS : 4 * STEPS]:
            assert int((after[name] == 0).sum()) == 6
            assert is_plus_zero(after[name].flatten()[smallest])
    assert zeros(run, 5) == [0] * STEPS
    assert all((after["fc1.bias"] != 0).all() for after in run.after)
    assert [line["sparsity"] for line in run.lines] == pytest.approx([0, 0, 12 / 42, 12 / 42, 0, 0])


def test_the_last_phase_begins_with_the_pruned_at_0_and_with_the_loss_of_the_sparse_ones_end() -> None:
    batch = random_batches([20])
    run = Loop(mlp(), batch, dsd(), epochs=6, optimizer=MOMENTUM).run()
    end = run.after[3]  # one step an epoch; the sparse phase is epochs 2 and 3
    assert difference(run.forwards[4], end) is None
    assert is_plus_zero(run.forwards[4]["fc1.weight"][end["fc1.weight"] == 0])
    # Training's loss of epoch 4 is that of its first step, the loss on the same images right before it.
    assert run.lines[4]["train"]["loss"] == pytest.approx(run.lines[3]["val"]["loss"], rel=1e-6)
    assert (run.after[4]["fc1.weight"] != 0).all()


def test_the_optimizers_state_is_cleared_at_every_switch() -> None:
    # After a switch the first step of momentum is the plain gradient's: the same as of a fresh optimizer.
    batch = random_batches([20])
    run = Loop(mlp(), batch, dsd(2, 2, 2, lr_scales="{sparse: 1, redense: 1}"), epochs=6, optimizer=MOMENTUM).run()
    for step in range(1, 6):
        begin, fresh = run.forwards[step], mlp()
        fresh.load_state_dict(begin)
        nn.functional.cross_entropy(fresh(batch[0][0]), batch[0][1]).backward()
        weight = fresh.fc1.weight
        plain = begin["fc1.weight"] - 0.1 * (weight.grad + 0.05 * begin["fc1.weight"])
        kept = run.after[step]["fc1.weight"] != 0
        same = torch.allclose(run.after[step]["fc1.weight"][kept], plain.detach()[kept], rtol=1e-4, atol=1e-6)
        assert same == (step in (2, 4)), step


def test_adams_moments_begin_anew_at_every_switch() -> None:
    run = train(dsd(), optimizer=ADAM)
    steps = [int(run.at((epoch, 1))["state"]["optimizer"]["state"][0]["step"]) for epoch in range(6)]
    assert steps == [1, 1 + STEPS, 1, 1 + STEPS, 1, 1 + STEPS]


def test_rounds_can_be_repeated() -> None:
    run = train(dsd(1, 1, 1, repeats=2), epochs=5)
    assert [zeros(run, epoch)[-1] for epoch in range(5)] == [0, 6, 0, 6, 0]


def test_phases_count_from_the_windows_first_epoch() -> None:
    run = train(dsd(1, 1, 1, window=", starting_epoch: 2"), epochs=6)
    assert [zeros(run, epoch)[-1] for epoch in range(6)] == [0, 0, 0, 6, 0, 0]


def test_globally_the_smallest_of_all_layers_go() -> None:
    model = mlp()
    model.get_parameter("fc2.weight").data.mul_(2)
    run = Loop(model, random_batches([5]), dsd(1, 1, 1, scope="global"), epochs=2, optimizer=MOMENTUM).run()
    before, after = run.after
    names = ["fc1.weight", "fc2.weight"]
    cut = torch.cat([before[name].abs().flatten() for name in names]).sort().values[12]  # floor(.3 * 42) = 12 go
    assert all(torch.equal(after[name] == 0, before[name].abs() < cut) for name in names)
    one, two = (int((after[name] == 0).sum()) for name in names)
    assert one + two == 12
    assert one > two


SCALED = {
    dsd(1, 2, 1, lr_scales="{sparse: 0.1, redense: 0.25}"): [0.1, 0.005, 0.0025, 0.003125, 0.00625],
    iht(1, 1, cycles=1, window=", starting_epoch: 1", lr_scales="{sparse: 0.5, dense: 2}"): [
        0.1,
        0.025,
        0.05,
        0.00625,
        0.00625,
    ],
}
"""The rates 0.1, 0.05, 0.025, 0.0125, 0.00625 of an exponential schedule, times the factor of each phase."""


@pytest.mark.parametrize("text", SCALED)
def test_the_rates_of_phases_stand_in_the_records_and_in_the_plan(text: str) -> None:
    expected = pytest.approx(SCALED[text])
    text += "  - lr_scheduler: {class: ExponentialLR, gamma: 0.5}\n"
    assert [line["lr"] for line in train(text, epochs=5).lines] == expected
    with torch.device("meta"):
        network = mlp()
    bound = read(text).bind(network, 5, Faults())
    plan = make_plan(bound.policies, view_of(network, groups=[{"lr": 0.1}]), Clock(5, STEPS))
    assert plan.lr == expected


NOTHING = [(torch.zeros(4, 3), torch.tensor([0, 1, 2, 0]))]
"""Images of nothing but 0: the first layer's weights have no gradient, weight decay alone moves them."""
LR = "  - {lr_scheduler: {class: ExponentialLR, gamma: 0.5}}\n"


def shrinkage(run: Loop) -> list[float]:
    """The share that each step took of a weight."""
    steps = zip(run.forwards, run.after, strict=True)
    return [1 - float(after["fc1.weight"][0, 0] / before["fc1.weight"][0, 0]) for before, after in steps]


def test_scales_multiply_what_the_lr_policies_give() -> None:
    text = dsd(1, 1, 1, sparsity=0, lr_scales="{sparse: 0.2, redense: 0.3}") + LR
    run = Loop(mlp(), NOTHING * 2, text, epochs=4, optimizer={"lr": 0.1, "weight_decay": 1.0}).run()
    rates = [0.1 * 1, 0.05 * 0.2, 0.025 * 0.3, 0.0125 * 1]
    assert shrinkage(run) == pytest.approx([r for r in rates for _ in range(2)], rel=1e-3)
    assert [line["lr"] for line in run.lines] == pytest.approx(rates)


def test_scales_multiply_rates_that_move_with_every_step() -> None:
    text = iht(1, 1, sparsity=0, lr_scales="{sparse: 0.2, dense: 0.5}")
    text += "  - {lr_scheduler: {class: ExponentialLR, gamma: 0.5, args: {interval: step}}}\n"
    run = Loop(mlp(), NOTHING * 2, text, epochs=3, optimizer={"lr": 0.1, "weight_decay": 1.0}).run()
    scales = [0.2, 0.2, 0.5, 0.5, 0.2, 0.2]
    expected = [0.1 * 0.5**step * scale for step, scale in enumerate(scales)]
    assert shrinkage(run) == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("text", [dsd(1, 1, 1, sparsity=0, lr_scales="{sparse: 0.2, redense: 0.5}")])
def test_scales_reach_the_proximal_step_of_l1(text: str) -> None:
    penalty = "  - {regularizer: {class: L1Regularizer, reg_regims: {fc1.weight: 0.01}, proximal: true}}\n"
    run = Loop(mlp(), NOTHING * 2, text + penalty, epochs=3, optimizer={"lr": 0.1}).run()
    place = int(run.forwards[0]["fc1.weight"].abs().argmax())
    steps = zip(run.forwards, run.after, strict=True)
    moved = [abs(float((b["fc1.weight"] - a["fc1.weight"]).flatten()[place])) for b, a in steps]
    # lr x scale x lambda
    assert moved == pytest.approx([1e-3, 1e-3, 2e-4, 2e-4, 5e-4, 5e-4], rel=1e-2)


@pytest.mark.parametrize("moment", [(0, 2), (2, 0), (2, 1), (3, 4), (4, 0), (4, 1), (5, 3)])
@pytest.mark.parametrize("text", [dsd(), iht(2, 2)], ids=["dsd", "iht"])
def test_a_run_resumed_with_averages_and_adam_ends_in_the_same_bits(text: str, moment: tuple[int, int]) -> None:
    settings: dict[str, Any] = {"epochs": 6, "optimizer": ADAM, "ema": {"decay": 0.8}}
    whole = Loop(mlp(), random_batches([5] * STEPS), text, **settings).run()
    again = Loop(mlp(5), random_batches([5] * STEPS), text, seed=5, **settings).resume(whole.at(moment))
    assert difference(again.at((6, 0)), whole.at((6, 0))) is None
    assert again.lines == whole.lines[moment[0] :]
