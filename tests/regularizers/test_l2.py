"""L2: gradient 2 lambda w, and what PyTorch's weight decay is of it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

RunOf = Callable[..., Any]

TEXT = "policies:\n  - regularizer: {{class: L2Regularizer, reg_regims: {regims}}}\n"


def layer(values: list[float]) -> nn.Linear:
    model = nn.Linear(len(values), 1, bias=False)
    model.weight = nn.Parameter(torch.tensor([values]))
    return model


def test_the_gradient_is_twice_lambda_times_the_weight_and_0_at_0(run_of: RunOf) -> None:
    run = run_of(TEXT.format(regims="{weight: 0.25}"), layer([1.0, -2.0, 0.0, 0.5]), lr=1.0)
    run.epoch(0)
    assert run.model.weight.grad.tolist() == [[0.5, -1, 0, 0.25]]
    assert run.model.weight.tolist() == [[0.5, -1, 0, 0.25]]


def test_the_value_is_lambda_times_the_sum_of_squares(run_of: RunOf) -> None:
    run = run_of(TEXT.format(regims="{weight: 0.25}"), layer([1.0, -2.0, 0.0, 0.5]))
    assert run.events.losses() == {"L2Regularizer": pytest.approx(0.25 * 5.25)}


def test_the_gradient_is_that_of_the_value_by_autograd(run_of: RunOf) -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Linear(4, 5))
    run = run_of(TEXT.format(regims="{'*': 0.125, 1.bias: 2}"), model)
    free = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    strengths = {"0.weight": 0.125, "1.weight": 0.125, "1.bias": 2.0}
    penalty = sum(strength * free[name].square().sum() for name, strength in strengths.items())
    penalty.backward()
    assert sum(run.events.losses().values()) == pytest.approx(float(penalty.detach()), rel=1e-6)
    run.begin(0)
    run.step()
    for name, parameter in model.named_parameters():
        expected = free[name].grad if name in strengths else torch.zeros_like(parameter)
        assert torch.allclose(parameter.grad, expected, rtol=1e-6, atol=0), name


def test_half_of_weight_decay_is_lambda(run_of: RunOf) -> None:
    ours, theirs = layer([1.0, -2.0, 3.0]), layer([1.0, -2.0, 3.0])
    run = run_of(TEXT.format(regims="{weight: 0.05}"), ours, momentum=0.9)
    decayed = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for epoch in range(4):
        run.epoch(epoch)
        theirs.weight.grad = torch.zeros(1, 3)
        decayed.step()
    assert torch.allclose(ours.weight, theirs.weight, rtol=1e-6)


def test_l1_and_l2_on_one_weight_are_the_elastic_net(run_of: RunOf) -> None:
    text = TEXT.format(regims="{weight: 0.25}") + "  - regularizer: {class: L1Regularizer, reg_regims: {weight: 0.5}}\n"
    run = run_of(text, layer([1.0, -2.0, 0.0]))
    assert run.events.losses() == {"L2Regularizer": 1.25, "L1Regularizer": 1.5}
    run.epoch(0)
    assert run.model.weight.grad.tolist() == [[1, -1.5, 0]]


def test_two_penalties_of_one_name_add_up(run_of: RunOf) -> None:
    text = TEXT.format(regims="{weight: 0.25}") + TEXT.format(regims="{weight: 0.5}").partition("\n")[2]
    run = run_of(text, layer([2.0]))
    assert run.events.losses() == {"L2Regularizer": 3.0}
    run.epoch(0)
    assert run.model.weight.grad.tolist() == [[3.0]]
