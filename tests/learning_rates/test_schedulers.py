"""Every schedule at time t is torch's own stepped t times; ours by formula."""

import inspect
import warnings
from typing import Any

import pytest
import torch
from torch.optim import SGD, Adam, Optimizer
from torch.optim import lr_scheduler as torch_lr

from compressor.learning_rates.schedulers import PureScheduler, Simulation
from compressor.schedule.registry import components

CASES = [
    ("StepLR", {"step_size": 3, "gamma": 0.5}),
    ("MultiStepLR", {"milestones": [2, 2, 7], "gamma": 0.2}),
    ("ConstantLR", {"factor": 0.25, "total_iters": 4}),
    ("LinearLR", {"start_factor": 0.1, "end_factor": 0.9, "total_iters": 6}),
    ("ExponentialLR", {"gamma": 0.9}),
    ("CosineAnnealingLR", {"T_max": 5, "eta_min": 0.01}),
    ("CosineAnnealingWarmRestarts", {"T_0": 3, "T_mult": 2, "eta_min": 0.02}),
    ("CyclicLR", {"base_lr": 0.1, "max_lr": 0.9, "step_size_up": 3, "step_size_down": 2}),
    ("CyclicLR", {"base_lr": 0.1, "max_lr": 0.9, "step_size_up": 2, "mode": "exp_range", "gamma": 0.9}),
    ("CyclicLR", {"base_lr": 0.1, "max_lr": 0.9, "step_size_up": 2, "mode": "triangular2", "cycle_momentum": False}),
    ("OneCycleLR", {"max_lr": 2.0, "total_steps": 17}),
    (
        "OneCycleLR",
        {"max_lr": 2.0, "epochs": 4, "steps_per_epoch": 4, "three_phase": True, "anneal_strategy": "linear"},
    ),
]
IDS = [f"{name}-{index}" for index, (name, _) in enumerate(CASES)]


def sgd(**more: Any) -> Optimizer:
    groups = [{"params": [torch.zeros(1)], "lr": 1.0}, {"params": [torch.zeros(1)], "lr": 2.0}]
    return SGD(groups, lr=1.0, momentum=0.9, **more)


def adam() -> Optimizer:
    return Adam([{"params": [torch.zeros(1)], "lr": 0.5}], betas=(0.9, 0.99))


def stepped(optimizer: Optimizer, name: str, arguments: dict[str, Any], times: int) -> list[list[dict[str, Any]]]:
    """What torch's class, stepped, makes of the optimizer's groups at times 0, 1, ..."""
    scheduler = getattr(torch_lr, name)(optimizer, **arguments)
    found = []
    for time in range(times):
        if time:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                scheduler.step()
        found.append([{k: v for k, v in g.items() if k in ("lr", "momentum", "betas")} for g in optimizer.param_groups])
    return found


def ours(name: str, arguments: dict[str, Any]) -> PureScheduler:
    component = components("lr_schedulers")[name].model_validate(arguments)
    assert isinstance(component, PureScheduler)
    return component


@pytest.mark.parametrize("make", [sgd, adam], ids=["sgd", "adam"])
@pytest.mark.parametrize(("name", "arguments"), CASES, ids=IDS)
def test_the_value_at_t_is_that_of_torch_stepped_t_times(make: Any, name: str, arguments: dict[str, Any]) -> None:
    # Of several groups torch's first one counts; the others keep their factor to it, also where the schedule names
    # the rates itself (CyclicLR, OneCycleLR) or a least one (eta_min).
    base = [group["lr"] for group in make().param_groups]
    expected = [
        [{**groups[0], "lr": groups[0]["lr"] * (own / base[0])} for own in base]
        for groups in stepped(make(), name, arguments, 16)
    ]
    assert len({groups[0]["lr"] for groups in expected}) > 1
    simulation = Simulation(ours(name, arguments), make().param_groups)
    for time in [*range(16), 3, 15, 0, 7, 7, 2]:  # also backwards: a pure function
        for group, want in zip(simulation.at(time), expected[time], strict=True):
            assert group["lr"] == want["lr"], time
            for key in group:
                assert group[key] == want[key], (key, time)


@pytest.mark.parametrize(("make", "key"), [(sgd, "momentum"), (adam, "betas")])
@pytest.mark.parametrize(("name", "arguments"), [CASES[7], CASES[10]], ids=["CyclicLR", "OneCycleLR"])
def test_what_is_cycled_against_the_rate_is_decided_too(
    make: Any, key: str, name: str, arguments: dict[str, Any]
) -> None:
    expected = stepped(make(), name, arguments, 6)
    assert len({str(groups[0][key]) for groups in expected}) > 2
    simulation = Simulation(ours(name, arguments), make().param_groups)
    assert [simulation.at(time)[0][key] for time in range(6)] == [groups[0][key] for groups in expected]


@pytest.mark.parametrize("case", range(7), ids=IDS[:7])
def test_a_schedule_that_cycles_nothing_decides_the_rate_alone(case: int) -> None:
    name, arguments = CASES[case]
    assert set(Simulation(ours(name, arguments), sgd().param_groups).at(3)[0]) == {"lr"}


def test_the_real_optimizer_is_not_touched() -> None:
    optimizer = sgd(nesterov=True, weight_decay=0.1)
    before = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    Simulation(ours("OneCycleLR", {"max_lr": 2.0, "total_steps": 9}), optimizer.param_groups).at(5)
    assert [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups] == before


def test_the_schedule_starts_from_the_initial_rate_not_from_where_the_optimizer_is() -> None:
    optimizer = sgd()
    for group in optimizer.param_groups:
        group["initial_lr"], group["lr"] = group["lr"], 0.123
    at_2 = Simulation(ours("ExponentialLR", {"gamma": 0.5}), optimizer.param_groups).at(2)
    assert [group["lr"] for group in at_2] == [0.25, 0.5]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"T_max": 4, "power": 1}, [1, 0.75, 0.5, 0.25, 0, 0, 0]),
        ({"T_max": 4, "power": 2.0}, [1, 0.5625, 0.25, 0.0625, 0, 0, 0]),
        ({"total_iters": 2}, [1, 0.5, 0, 0, 0, 0, 0]),
        ({"T_max": 1}, [1, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_row_polynomial_lr_is_clamped_at_t_max(arguments: dict[str, Any], expected: list[float]) -> None:
    simulation = Simulation(ours("PolynomialLR", arguments), sgd().param_groups)
    assert [simulation.at(time)[0]["lr"] for time in range(7)] == pytest.approx(expected)
    assert [simulation.at(time)[1]["lr"] for time in range(7)] == pytest.approx([2 * value for value in expected])


def test_polynomial_lr_is_torchs_of_the_same_total_iters() -> None:
    expected = stepped(sgd(), "PolynomialLR", {"total_iters": 7, "power": 1.5}, 12)
    simulation = Simulation(ours("PolynomialLR", {"T_max": 7, "power": 1.5}), sgd().param_groups)
    for time in range(12):
        assert simulation.at(time)[0]["lr"] == pytest.approx(expected[time][0]["lr"], abs=1e-12)


def test_multi_step_multi_gamma_multiplies_by_each_milestones_own_gamma() -> None:
    simulation = Simulation(
        ours("MultiStepMultiGammaLR", {"milestones": [2, 4], "gammas": [0.1, 0.5]}), sgd().param_groups
    )
    assert [simulation.at(time)[0]["lr"] for time in range(6)] == pytest.approx([1, 1, 0.1, 0.1, 0.05, 0.05])


def test_inv_is_caffes() -> None:
    # base_lr (1 + gamma iter)^-power with LeNet's gamma 1e-4 and power 0.75: at 10,000 steps 2^-0.75 = 0.594604
    simulation = Simulation(ours("InvLR", {"gamma": 1e-4, "power": 0.75}), sgd().param_groups)
    assert simulation.at(0)[0]["lr"] == 1
    assert simulation.at(100)[0]["lr"] == pytest.approx(1.01**-0.75)
    assert simulation.at(10_000)[0]["lr"] == pytest.approx(0.594604, abs=1e-6)


PLAIN = [name for name, cls in vars(torch_lr).items() if inspect.isclass(cls) and name in components("lr_schedulers")]


@pytest.mark.parametrize("name", PLAIN)
def test_every_plain_argument_of_torchs_class_is_an_argument_here(name: str) -> None:
    assert len(PLAIN) >= 11
    plain = set(inspect.signature(getattr(torch_lr, name)).parameters) - {"optimizer", "last_epoch", "scale_fn"}
    fields = components("lr_schedulers")[name].model_fields
    known = {field.alias or key for key, field in fields.items()} | set(fields)
    aliases = {"total_iters"} if name == "PolynomialLR" else set()  # T_max, tested above
    assert plain - aliases <= known


@pytest.mark.parametrize("name", PLAIN)
def test_defaults_are_torchs(name: str) -> None:
    parameters = inspect.signature(getattr(torch_lr, name)).parameters
    decided = {"mode"} if name == "ReduceLROnPlateau" else set()  # by the metric; min for the default one
    for key, field in components("lr_schedulers")[name].model_fields.items():
        if key in parameters and key not in decided and not field.is_required():
            assert field.default == parameters[key].default, key
