"""The warm-up of torchvision's reference recipe: two policies against torch's SequentialLR."""

from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler as torch_lr

from compressor.context import Groups
from compressor.learning_rates.schedulers import PureScheduler, rates_at
from compressor.schedule.registry import components

EPOCHS, WARM_UP = 12, 4


def ours(name: str, **arguments: Any) -> PureScheduler:
    component = components("lr_schedulers")[name].model_validate(arguments)
    assert isinstance(component, PureScheduler)
    return component


@pytest.mark.parametrize(
    ("method", "arguments"),
    [("LinearLR", {"start_factor": 0.01}), ("ConstantLR", {"factor": 0.01})],
)
def test_two_windows_are_torchs_sequence(method: str, arguments: dict[str, float]) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.5)
    parts: list[Any] = [
        getattr(torch_lr, method)(optimizer, total_iters=WARM_UP, **arguments),
        torch_lr.CosineAnnealingLR(optimizer, T_max=EPOCHS - WARM_UP, eta_min=0.001),
    ]
    whole = torch_lr.SequentialLR(optimizer, parts, milestones=[WARM_UP])
    expected = []
    for _ in range(EPOCHS):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        whole.step()
    warm_up = ours(method, total_iters=WARM_UP, **arguments)
    decay = ours("CosineAnnealingLR", T_max=EPOCHS - WARM_UP, eta_min=0.001)
    groups: Groups = [{"lr": 0.5}]
    # A policy counts from the beginning of its window, as the test of a warm-up in steps shows.
    rates = [rates_at(warm_up, groups, time) for time in range(WARM_UP)]
    rates += [rates_at(decay, groups, time) for time in range(EPOCHS - WARM_UP)]
    assert [rate["lr"] for (rate,) in rates] == pytest.approx(expected, rel=1e-9)
    assert expected[0] == pytest.approx(0.005)
    assert expected[WARM_UP] == pytest.approx(0.5)
