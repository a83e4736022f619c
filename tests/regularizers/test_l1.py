"""L1: the gradient in closed form, its value, the proximal step, the threshold."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import UserError

RunOf = Callable[..., Any]

TEXT = "version: 2\npolicies:\n  - regularizer: {{class: L1Regularizer, reg_regims: {regims}{more}}}\n    {window}\n"


def text(regims: str = "{weight: 0.5}", more: str = "", window: str = "starting_epoch: 0") -> str:
    return TEXT.format(regims=regims, more=more, window=window)


def layer(values: Tensor) -> nn.Linear:
    model = nn.Linear(values.shape[1], values.shape[0], bias=False)
    model.weight = nn.Parameter(values.clone())
    return model


VALUES = torch.tensor([[1.0, -2.0, 0.0, 0.25], [-0.125, 3.0, -0.0, 4.0]])


def test_the_gradient_is_lambda_times_the_sign_and_0_at_0(run_of: RunOf) -> None:
    run = run_of(text(), layer(VALUES), lr=1.0)
    run.epoch(0)
    assert run.model.weight.grad.tolist() == [[0.5, -0.5, 0, 0.5], [-0.5, 0.5, 0, 0.5]]
    assert run.model.weight.tolist() == [[0.5, -1.5, 0, -0.25], [0.375, 2.5, 0, 3.5]]


def test_the_gradient_is_added_to_that_of_the_data(run_of: RunOf) -> None:
    run = run_of(text(), layer(VALUES))
    run.gradient = 10.0
    run.epoch(0)
    assert run.model.weight.grad.tolist() == [[10.5, 9.5, 10, 10.5], [9.5, 10.5, 10, 10.5]]


def test_the_gradient_is_that_of_the_value_by_autograd(run_of: RunOf) -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Linear(4, 5))
    run = run_of(text("{0.weight: 0.25, 'type:Linear': 3e-3, 1.bias: 2}"), model)
    free = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    penalty = 0.25 * free["0.weight"].abs().sum() + 3e-3 * free["1.weight"].abs().sum() + 2 * free["1.bias"].abs().sum()
    penalty.backward()
    assert sum(run.events.losses().values()) == pytest.approx(float(penalty.detach()), rel=1e-6)
    run.begin(0)
    run.step()
    for name, parameter in model.named_parameters():
        expected = free[name].grad
        assert torch.equal(parameter.grad, torch.zeros_like(parameter) if expected is None else expected), name


def test_the_value_by_hand(run_of: RunOf) -> None:
    run = run_of(text(), layer(VALUES))
    run.clock.epoch = 0
    assert run.events.losses() == {"L1Regularizer": pytest.approx(0.5 * 10.375)}


def test_a_weight_without_a_gradient_is_left_alone(run_of: RunOf) -> None:
    run = run_of(text(), layer(VALUES))
    run.events.fire("penalty_gradients")
    assert run.model.weight.grad is None


def test_a_proximal_step_is_soft_thresholding_by_lr_times_lambda(run_of: RunOf) -> None:
    # w <- sign(w) max(|w| - lr lambda, 0) with lr lambda = 0.5 * 0.5
    run = run_of(text(more=", proximal: true"), layer(VALUES), lr=0.5)
    run.epoch(0)
    assert run.model.weight.tolist() == [[0.75, -1.75, 0, 0], [0, 2.75, 0, 3.75]]
    assert not torch.signbit(run.model.weight[run.model.weight == 0]).any()
    assert not run.model.weight.grad.any()  # instead of the subgradient, not on top of it


def test_a_proximal_step_comes_after_the_optimizers(run_of: RunOf) -> None:
    run = run_of(text(more=", proximal: true"), layer(torch.tensor([[1.0, 0.5]])), lr=0.5)
    run.gradient = 1.0
    run.epoch(0)
    assert run.model.weight.tolist() == [[0.25, 0]]


def test_a_proximal_step_goes_by_the_rate_of_the_weights_own_group(run_of: RunOf) -> None:
    model = nn.Sequential(layer(torch.ones(1, 2)), layer(torch.ones(1, 2)))
    groups = [{"params": [model[0].weight], "lr": 0.5}, {"params": [model[1].weight], "lr": 0.25}]
    run = run_of(text("{'*': 1}", ", proximal: true"), model, optimizer=torch.optim.SGD(groups, lr=1.0))
    run.epoch(0)
    assert model[0].weight.tolist() == [[0.5, 0.5]]
    assert model[1].weight.tolist() == [[0.75, 0.75]]
    for group in run.optimizer.param_groups:
        group["lr"] /= 2  # a learning-rate policy has moved it
    run.epoch(1)
    assert model[0].weight.tolist() == [[0.25, 0.25]]
    assert model[1].weight.tolist() == [[0.625, 0.625]]


def test_row_the_threshold_is_its_own_argument_and_lambda_by_default(run_of: RunOf) -> None:
    values = torch.tensor([[1.0, -0.5, 0.25, -0.125, 0.0625]])
    own = run_of(text("{weight: 0.001}", ", threshold: 0.25"), layer(values), lr=1e-9)
    own.epoch(0)
    assert (own.model.weight != 0).tolist() == [[True, True, False, False, False]]
    default = run_of(text("{weight: 0.125}", ", threshold_criteria: Mean_Abs"), layer(values), lr=1e-9)
    default.epoch(0)
    # the step of lr lambda is 1e-10: 0.125 stays 0.125 in float32
    assert (default.model.weight != 0).tolist() == [[True, True, True, False, False]]
    assert not torch.signbit(default.model.weight[default.model.weight == 0]).any()


def test_without_a_threshold_nothing_becomes_zero(run_of: RunOf) -> None:
    run = run_of(text("{weight: 0.125}"), layer(torch.tensor([[0.125, -0.0625]])), lr=1e-9)
    run.epoch(0)
    assert run.model.weight.all()


def test_keep_mask_keeps_the_last_zeros_of_a_threshold_and_without_it_they_are_forgotten(run_of: RunOf) -> None:
    for keep in (True, False):
        more = f", threshold: 0.25, args: {{keep_mask: {str(keep).lower()}}}"
        run = run_of(
            text("{weight: 0.0}", more, "ending_epoch: 2"), layer(torch.tensor([[1.0, 0.1]])), steps=3, lr=0.25
        )
        run.gradient = -0.5  # each step adds 0.125
        for epoch in (0, 1):
            run.epoch(epoch)
        assert run.model.weight.tolist() == [[1.75, 0]]
        run.epoch(2)
        assert run.model.weight.tolist() == [[2.125, 0 if keep else 0.375]]


def test_row_each_policy_owns_its_mask_a_thresholding_regularizer_does_not_delete_a_pruners(run_of: RunOf) -> None:
    schedule = """\
policies:
  - pruner: {class: SparsityLevelParameterPruner, levels: {weight: 0.5}}
    epochs: [0]
  - regularizer: {class: L1Regularizer, reg_regims: {weight: 0.0}, threshold: 0.25}
    epochs: [1]
"""
    run = run_of(schedule, layer(torch.tensor([[1.0, 0.3, 2.0, 0.1]])), lr=0.25)
    run.gradient = -1.0
    for epoch in range(4):
        run.epoch(epoch)
    assert run.model.weight.tolist() == [[2.0, 0, 3.0, 0]]


@pytest.mark.parametrize("window", ["epochs: [1, 3]", "starting_epoch: 1\n    frequency: 2"])
def test_the_penalty_acts_in_its_epochs_only(run_of: RunOf, window: str) -> None:
    run = run_of(text("{weight: 1}", window=window), layer(torch.tensor([[10.0]])), steps=2, lr=1.0)
    values, losses = [], []
    for epoch in range(4):
        run.begin(epoch)
        losses.append(run.events.losses())
        for _ in range(2):
            run.step()
        run.end()
        values.append(float(run.model.weight.detach()))
    assert values == [10, 8, 8, 6]
    assert losses == [{}, {"L1Regularizer": 10.0}, {}, {"L1Regularizer": 8.0}]


@pytest.mark.parametrize("regims", ["{weight: -1}", "{}", "{weight: .inf}", "[weight]", "{weight: '1'}"])
def test_a_strength_that_is_none_is_refused(run_of: RunOf, regims: str) -> None:
    with pytest.raises(UserError, match=r"^s\.yaml:3:"):
        run_of(text(regims), layer(VALUES))


def test_infinite_and_nan_weights_do_not_hide(run_of: RunOf) -> None:
    run = run_of(text(), layer(torch.tensor([[math.inf, 1.0]])))
    assert run.events.losses() == {"L1Regularizer": math.inf}
