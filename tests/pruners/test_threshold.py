"""Pruning below a threshold: a number, or a multiple of the deviation that is taken once."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import UserError

RunOf = Callable[..., Any]

MAGNITUDE = "policies:\n  - pruner: {{class: MagnitudeParameterPruner, thresholds: {thresholds}}}\n"
SENSITIVITY = "policies:\n  - pruner: {{class: SensitivityPruner, sensitivities: {sensitivities}}}\n"


def layer(values: Tensor) -> nn.Linear:
    model = nn.Linear(values.shape[1], values.shape[0], bias=False)
    model.weight = nn.Parameter(values.clone())
    return model


def test_magnitude_keeps_what_is_larger_than_the_threshold_and_not_what_equals_it(run_of: RunOf) -> None:
    model = layer(torch.tensor([[0.5, -0.5, 0.25, -0.75], [0.0, 0.50001, -0.49999, -0.50001]]))
    run_of(MAGNITUDE.format(thresholds="{weight: 0.5}"), model).begin(0)
    assert (model.weight != 0).tolist() == [[False, False, False, True], [False, True, False, True]]
    assert not torch.signbit(model.weight[model.weight == 0]).any()


def test_magnitude_has_a_threshold_by_name_and_star_for_the_others(run_of: RunOf) -> None:
    values = torch.tensor([[0.1, 0.2, 0.3]])
    model = nn.Sequential(layer(values), layer(values))
    run_of(MAGNITUDE.format(thresholds="{0.weight: 0.2, '*': 0.1}"), model).begin(0)
    assert (model[0].weight != 0).tolist() == [[False, False, True]]
    assert (model[1].weight != 0).tolist() == [[False, True, True]]


def test_a_threshold_of_0_masks_the_exact_zeros_and_one_below_0_is_refused(run_of: RunOf) -> None:
    model = layer(torch.tensor([[0.0, -1e-30, 1.0]]))
    run = run_of(MAGNITUDE.format(thresholds="{weight: 0}"), model)
    run.begin(0)
    assert run.masks.keep("weight").tolist() == [[False, True, True]]
    with pytest.raises(UserError, match="got -1"):
        run_of(MAGNITUDE.format(thresholds="{weight: -1}"), model)


def test_magnitude_asks_again_at_each_of_its_epochs_and_its_threshold_stays(run_of: RunOf) -> None:
    model = layer(torch.tensor([[0.4, 0.6, 0.8]]))
    run = run_of(MAGNITUDE.format(thresholds="{weight: 0.5}"), model, lr=0.2)
    run.gradient = 1.0  # every kept weight falls by 0.2 a step
    run.epoch(0)
    assert model.weight[0].tolist() == pytest.approx([0, 0.4, 0.6])
    run.epoch(1)
    assert model.weight[0].tolist() == pytest.approx([0, 0, 0.4])
    run.epoch(2)
    assert model.weight[0].tolist() == [0, 0, 0]


def test_reference_vector_sensitivity_1_prunes_68_percent_of_a_normal_distribution(run_of: RunOf) -> None:
    model = layer(torch.randn(300, 400, generator=torch.Generator().manual_seed(0)))
    run_of(SENSITIVITY.format(sensitivities="{weight: 1.0}"), model).begin(0)
    assert float((model.weight == 0).float().mean()) == pytest.approx(0.6827, abs=0.005)


def test_sensitivity_by_hand(run_of: RunOf) -> None:
    # mean 0, squares 4 (1 + 4 + 9 + 16) = 120 over 16 weights: std = sqrt(120 / 15) = 2.828; s = 1 prunes 1 and 2
    values = torch.tensor([1.0, -1, 2, -2, 3, -3, 4, -4]).repeat(2).view(4, 4)
    model = layer(values)
    run_of(SENSITIVITY.format(sensitivities="{weight: 1}"), model).begin(0)
    assert torch.equal(model.weight != 0, values.abs() > 2.5)
    model = layer(values)
    run_of(SENSITIVITY.format(sensitivities="{weight: 0.6}"), model).begin(0)  # 1.697
    assert torch.equal(model.weight != 0, values.abs() > 1.5)


def test_the_deviation_is_that_of_the_first_use_also_when_the_weights_have_changed(run_of: RunOf) -> None:
    values = torch.tensor([1.0, -1, 2, -2, 3, -3, 4, -4]).repeat(2).view(4, 4)
    model = layer(values)
    run = run_of(SENSITIVITY.format(sensitivities="{weight: 1}"), model)
    run.epoch(0)
    with torch.no_grad():
        model.weight *= 0.8  # 3 becomes 2.4, below 2.828; its own deviation would now be 0.8 times as much, too
    run.epoch(1)
    assert torch.equal(model.weight != 0, values.abs() > 3.5)


def test_row_sensitivitys_deviation_is_checkpointed_with_the_policys_memory(run_of: RunOf) -> None:
    values = torch.tensor([1.0, -1, 2, -2, 3, -3, 4, -4]).repeat(2).view(4, 4)
    text = SENSITIVITY.format(sensitivities="{weight: 1}")
    first = run_of(text, layer(values))
    first.epoch(0)
    state = copy.deepcopy(first.session._constants)
    resumed, forgetful = (run_of(text, layer(values * 0.8)) for _ in range(2))
    for key, constants in state.items():
        resumed.session._constants[key].update(constants)
    resumed.epoch(1)
    assert torch.equal(resumed.model.weight != 0, values.abs() > 3.5)
    forgetful.epoch(1)  # the negative control: without the memory the threshold is another one
    assert torch.equal(forgetful.model.weight != 0, values.abs() > 2.5)


def test_two_policies_on_one_instance_share_its_sensitivity_not_their_masks(run_of: RunOf) -> None:
    text = """\
pruners:
  s: {class: SensitivityPruner, sensitivities: {weight: 1}}
policies:
  - {pruner: {instance_name: s}, epochs: [0]}
  - {pruner: {instance_name: s}, epochs: [1]}
"""
    model = layer(torch.tensor([1.0, -1, 2, -2, 3, -3, 4, -4]).repeat(2).view(4, 4))
    run = run_of(text, model)
    run.epoch(0)
    assert int((model.weight == 0).sum()) == 8
    run.masks.release("0.s")
    assert run.masks.keep("weight") is None  # the second has not fired
    run.epoch(1)
    run.masks.release("0.s")
    assert int(run.masks.keep("weight").sum()) == 8


def test_with_scope_global_the_deviation_is_that_of_all_weights_together(run_of: RunOf) -> None:
    model = nn.Sequential(layer(torch.tensor([[1.0, -1.0, 1.0, -1.0]])), layer(torch.tensor([[3.0, -3.0, 3.0, -3.0]])))
    run_of(SENSITIVITY.format(sensitivities="{'*': 1}, scope: global"), model).begin(0)
    # std of all 8: sqrt((4 + 36) / 7) = 2.39; each by itself would lose nothing, or all (std 1.15 and 3.46)
    assert not model[0].weight.any()
    assert model[1].weight.all()


@pytest.mark.parametrize("sensitivities", ["{weight: -0.5}", "{}", "{weight: [1]}"])
def test_a_sensitivity_that_is_none_is_refused(run_of: RunOf, sensitivities: str) -> None:
    with pytest.raises(UserError, match=r"^s\.yaml:2:"):
        run_of(SENSITIVITY.format(sensitivities=sensitivities), layer(torch.ones(2, 2)))
