"""The plan says beforehand what a run does: vectors, and the run itself as the second opinion."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from compressor.schedule.faults import Faults
from compressor.schedule.grammar import Schedule
from compressor.schedule.plan import Plan, make_plan
from compressor.schedule.plan_table import as_table
from compressor.schedule.schedule import view_of
from compressor.timing.clock import Clock

Planned = Callable[..., Plan]


def net(device: str = "meta") -> nn.Sequential:
    """0.weight [10, 10], 1.weight [4, 10]."""
    with torch.device(device):
        return nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 4, bias=False))


@pytest.fixture
def planned(schedule_of: Callable[[str], Schedule]) -> Planned:
    """`planned(text, epochs=12, steps=4, lr=1.0)`: the plan over a net without storage."""

    def plan(text: str, epochs: int = 12, steps: int = 4, lr: float = 1.0) -> Plan:
        faults, network = Faults(), net()
        bound = schedule_of(text).bind(network, epochs, faults)
        faults.raise_any()
        view = view_of(network, groups=[{"lr": lr, "momentum": 0.9}])
        return make_plan(bound.policies, view, Clock(epochs, steps))

    return plan


AGP = """\
policies:
  - pruner: {class: AutomatedGradualPruner, initial_sparsity: 0.05, final_sparsity: 0.5, weights: 0.weight}
    starting_epoch: 0
    ending_epoch: 10
    frequency: 3
"""


def test_when_a_policy_fires_on_what_and_how_much_it_asks_for(planned: Planned) -> None:
    [policy] = planned(AGP).policies
    assert (policy.key, policy.kind, policy.component, policy.unit) == (
        "0.AutomatedGradualPruner",
        "pruner",
        "AutomatedGradualPruner",
        "epoch",
    )
    assert policy.fires == [0, 3, 6, 9]
    assert [(weight.name, weight.shape) for weight in policy.weights] == [("0.weight", [10, 10])]
    # schedule-grammar.md, section 4
    assert policy.sparsity == pytest.approx({0: 0.05, 3: 0.36667, 6: 0.48333, 9: 0.5}, abs=1e-5)
    assert policy.threshold == {}


def test_levels_of_several_weights_are_averaged_by_their_sizes(planned: Planned) -> None:
    text = "policies:\n  - pruner: {class: SparsityLevelParameterPruner, levels: {0.weight: 0.2, 1.weight: 0.9}}\n"
    [policy] = planned(text + "    epochs: [3]\n").policies
    assert policy.sparsity == {3: pytest.approx((20 + 36) / 140)}


def test_a_threshold_is_said_at_each_firing(planned: Planned) -> None:
    text = """\
policies:
  - pruner: {class: BaiduRNNPruner, q: 0.2, ramp_epoch_offset: 3, ramp_slope_mult: 2, weights: '*'}
    starting_epoch: 4
    ending_epoch: 21
    frequency: 3
"""
    [policy] = planned(text, epochs=21).policies
    assert policy.sparsity == {}
    assert list(policy.threshold) == [4, 7, 10, 13, 16, 19]
    found = [float(said) for said in policy.threshold.values()]
    assert found == pytest.approx([0.00833, 0.05, 0.10, 0.15, 0.20, 0.25], abs=5e-6)


def test_a_window_in_steps_and_a_list_fire_within_the_run_only(planned: Planned) -> None:
    text = "version: 2\n" + AGP.replace("epoch: 0", "step: 6").replace("epoch: 10", "step: 50").replace(
        "freq", "step_freq"
    )
    assert planned(text, epochs=5).policies[0].fires == [6, 9, 12, 15, 18]
    listed = AGP.partition("    starting")[0] + "    epochs: [9, 1, 30]\n"
    assert planned(listed).policies[0].fires == [1, 9]


STEP = "policies:\n  - lr_scheduler: {class: StepLR, step_size: 4, gamma: 0.1}\n    starting_epoch: 6\n"


def test_row_lr_origin_absolute_the_plan_shows_the_jump(planned: Planned) -> None:
    plan = planned(STEP)
    assert plan.lr == pytest.approx([1] * 7 + [0.1] + [0.01] * 4)
    [line] = plan.conflicts
    assert all(word in line for word in ("0.StepLR", "epoch 6", "jumps", "1", "0.1", "origin: start"))
    exponential = STEP.replace("StepLR, step_size: 4, gamma: 0.1", "ExponentialLR, gamma: 0.9").replace("6", "5")
    assert planned(exponential).lr[6] == pytest.approx(0.531, abs=5e-4)
    assert "0.531441" in planned(exponential).conflicts[0]


def test_a_schedule_that_starts_with_the_run_or_counts_from_its_own_start_does_not_jump(planned: Planned) -> None:
    assert planned(STEP.replace("starting_epoch: 6", "starting_epoch: 0")).conflicts == []
    assert planned("version: 2\n" + STEP).conflicts == []
    assert planned("version: 2\n" + STEP).lr == pytest.approx([1] * 10 + [0.1] * 2)


def test_a_late_schedule_whose_rate_has_not_moved_yet_does_not_jump(planned: Planned) -> None:
    assert planned(STEP.replace("step_size: 4", "step_size: 9")).conflicts == []


def test_the_rate_by_steps_is_that_at_each_epochs_begin(planned: Planned) -> None:
    text = "version: 2\npolicies:\n  - lr_scheduler: {class: ExponentialLR, gamma: 0.5, args: {interval: step}}\n"
    assert planned(text, epochs=4, steps=3).lr == pytest.approx([1, 0.5**3, 0.5**6, 0.5**9])


def test_the_rate_is_unknown_from_where_validation_decides_it(planned: Planned) -> None:
    text = "policies:\n  - lr_scheduler: {class: ReduceLROnPlateau}\n    starting_epoch: 2\n"
    assert planned(text, epochs=5).lr == [1, 1, 1, None, None]


def test_the_prediction_is_floor_s_n_of_each_weight(planned: Planned) -> None:
    plan = planned(
        "policies:\n  - pruner: {class: SparsityLevelParameterPruner, levels: {0.weight: 0.29, '*': 0.26}}\n"
    )
    # 0.29 * 100 is 28.999999999999996; 0.26 * 40 is 10.4
    assert [(row.name, row.weights, row.nonzero) for row in plan.predicted] == [
        ("0.weight", 100, 72),
        ("1.weight", 40, 30),
    ]
    assert [row.sparsity for row in plan.predicted] == [0.28, 0.25]
    assert (plan.total_weights, plan.total_nonzero) == (140, 102)
    assert plan.total_sparsity == pytest.approx(38 / 140)


def test_the_prediction_is_that_of_the_last_firing_that_the_run_reaches(planned: Planned) -> None:
    plan = planned(AGP, epochs=5)  # fires in 0 and 3: 0.36667 of 100
    assert [row.nonzero for row in plan.predicted] == [64, 40]


def test_where_values_decide_nothing_is_predicted(planned: Planned) -> None:
    plan = planned("policies:\n  - pruner: {class: MagnitudeParameterPruner, thresholds: {1.weight: 0.1}}\n")
    assert [row.nonzero for row in plan.predicted] == [100, None]
    assert (plan.total_nonzero, plan.total_sparsity) == (None, None)


GLOBAL = "  - pruner: {{class: Pruner, weights: '*', scope: global, rate: {{sparsity: {s}}}}}\n    epochs: [{e}]\n"


def test_of_weights_that_are_ranked_together_the_total_is_known(planned: Planned) -> None:
    plan = planned("policies:\n" + GLOBAL.format(s=0.5, e=0))
    assert [row.nonzero for row in plan.predicted] == [None, None]
    assert (plan.total_nonzero, plan.total_sparsity) == (70, 0.5)


def test_zeros_that_two_rankings_share_are_not_counted_twice(planned: Planned) -> None:
    plan = planned("policies:\n" + GLOBAL.format(s=0.5, e=0) + GLOBAL.format(s=0.7, e=1))
    assert plan.total_nonzero == 42  # at most; 0.3 of 140


def test_of_rankings_that_share_a_weight_the_largest_counts(planned: Planned) -> None:
    # Of all 140 weights 70; of the 40 of 1.weight alone 36, which may be among the 70.
    text = "  - pruner: {class: SparsityLevelParameterPruner, levels: {1.weight: 0.9}}\n    epochs: [1]\n"
    plan = planned("policies:\n" + GLOBAL.format(s=0.5, e=0) + text)
    assert plan.total_nonzero == 140 - 70


def test_of_rankings_that_share_a_weight_the_smaller_set_may_have_more_zeros(planned: Planned) -> None:
    text = "  - pruner: {class: SparsityLevelParameterPruner, levels: {0.weight: 0.9}}\n    epochs: [1]\n"
    plan = planned("policies:\n" + GLOBAL.format(s=0.5, e=0) + text)
    assert plan.total_nonzero == 140 - 90


def test_masks_that_are_forgotten_at_the_windows_end_leave_no_zeros(planned: Planned) -> None:
    text = """\
policies:
  - pruner: {{class: SparsityLevelParameterPruner, levels: {{'*': 0.5}}, args: {{{args}}}}}
    epochs: [0, 1]
"""
    for args in ("mask_on_forward_only: true", "use_double_copies: true", "discard_masks_at_minibatch_end: true"):
        assert planned(text.format(args=args)).total_nonzero == (70 if "double" in args else 140), args
        assert planned(text.format(args=args + ", keep_mask: true")).total_nonzero == 70, args


def test_two_policies_on_one_weight_or_one_rate_are_named(planned: Planned) -> None:
    text = """\
policies:
  - pruner: {class: SparsityLevelParameterPruner, levels: {'*': 0.5}}
  - pruner: {class: MagnitudeParameterPruner, thresholds: {1.weight: 0.1}}
  - lr_scheduler: {class: StepLR, step_size: 3}
    ending_epoch: 6
  - lr_scheduler: {class: StepLR, step_size: 5}
    starting_epoch: 4
"""
    plan = planned(text)
    both = [line for line in plan.conflicts if "both" in line]
    assert len(both) == 2
    assert all(word in both[0] for word in ("0.Sparsity", "1.Magnitude", "1.weight"))
    assert all(word in both[1] for word in ("2.StepLR", "3.StepLR", "4..5"))


def test_what_the_run_never_reaches_is_named(planned: Planned) -> None:
    [line] = planned(AGP, epochs=9).conflicts
    assert "0.AutomatedGradualPruner" in line
    assert "9" in line
    assert planned(AGP, epochs=10).conflicts == []


WHOLE = """\
version: 2
pruners:
  fine: {class: AutomatedGradualPruner, initial_sparsity: 0.1, final_sparsity: 0.8, weights: [0.weight]}
  level: {class: SparsityLevelParameterPruner, levels: {1.weight: 0.33}}
policies:
  - {pruner: {instance_name: fine}, starting_epoch: 1, ending_epoch: 7, frequency: 2}
  - {pruner: {instance_name: level}, epochs: [4]}
  - lr_scheduler: {class: LinearLR, start_factor: 0.1, total_iters: 3}
    ending_epoch: 4
  - lr_scheduler: {class: CosineAnnealingLR, T_max: 5}
    starting_epoch: 4
"""


def test_the_run_does_what_its_plan_says(planned: Planned, run_of: Callable[..., Any]) -> None:
    plan = planned(WHOLE, epochs=9, steps=2, lr=0.5)
    run = run_of(WHOLE, net("cpu"), epochs=9, steps=2, lr=0.5, momentum=0.9)
    run.gradient = 0.01
    rates, zeros = [], {}
    for epoch in range(9):
        run.begin(epoch)
        zeros[epoch] = int((run.model[0].weight == 0).sum())
        run.step()
        rates.append(run.optimizer.param_groups[0]["lr"])
        run.step()
        run.end()
    assert rates == pytest.approx(plan.lr)
    for epoch, sparsity in plan.policies[0].sparsity.items():
        assert zeros[epoch] == pytest.approx(100 * sparsity, abs=1)
    for row, weight in zip(plan.predicted, (run.model[0].weight, run.model[1].weight), strict=True):
        assert int(weight.count_nonzero()) == row.nonzero


def test_the_table_shows_the_plan(planned: Planned) -> None:
    table = as_table(planned(WHOLE, epochs=9, steps=2, lr=0.5))
    for word in ("0.fine", "1..5 every 2", "1.level", "0.weight", "10x10", "80.00 %", "total", "learning rate", "0.05"):
        assert word in table, word
    assert "20" in table  # of 100, 0.8
    plateau = "policies:\n  - lr_scheduler: {class: ReduceLROnPlateau}\n"
    assert "decided by validation" in as_table(planned(plateau))
