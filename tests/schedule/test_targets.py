"""The sparsity that is asked for, by weight and epoch: from the formulas of the rates, by hand."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from compressor.schedule import targets, view_of
from compressor.schedule.faults import Faults
from compressor.schedule.grammar import Schedule
from compressor.timing import Clock

EPOCHS, STEPS = 6, 10
Asked = Callable[[str], list[dict[str, float]]]


@pytest.fixture
def asked(schedule_of: Callable[[str], Schedule]) -> Asked:
    """The targets at the end of each epoch, of a network with 0.weight [10, 10] and 1.weight [4, 10]."""

    def find(text: str) -> list[dict[str, float]]:
        faults = Faults()
        with torch.device("meta"):
            network = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 4, bias=False))
        bound = schedule_of(text).bind(network, EPOCHS, faults)
        faults.raise_any()
        view = view_of(network, epochs=EPOCHS)
        return [targets(bound.policies, view, Clock(EPOCHS, STEPS), epoch) for epoch in range(EPOCHS)]

    return find


def test_before_the_window_nothing_is_asked_for_and_after_it_the_last_sparsity(asked: Asked) -> None:
    # AGP: s_f + (s_i - s_f) (1 - t / n)^3 = 0.5 - 0.25 (1 - t / 2)^3, at t = 0, 1, 2 of epochs 1, 2, 3; floor of 100 s
    text = """\
policies:
  - pruner: {class: AutomatedGradualPruner, initial_sparsity: 0.25, final_sparsity: 0.5, weights: 0.weight}
    starting_epoch: 1
    ending_epoch: 4
"""
    assert asked(text) == [{}, {"0.weight": 0.25}, {"0.weight": 0.46}, *[{"0.weight": 0.5}] * 3]


def test_a_window_in_steps_counts_up_to_the_end_of_the_epoch(asked: Asked) -> None:
    # Events at steps 5 and 25: 0.2, and 0.6 at the last one.
    text = """\
version: 2
policies:
  - pruner: {class: AutomatedGradualPruner, initial_sparsity: 0.2, final_sparsity: 0.6, weights: 0.weight}
    starting_step: 5
    ending_step: 26
    step_frequency: 20
"""
    assert asked(text) == [*[{"0.weight": 0.2}] * 2, *[{"0.weight": 0.6}] * 4]


def test_of_two_policies_the_larger_sparsity_is_the_target(asked: Asked) -> None:
    text = """\
version: 2
policies:
  - {pruner: {class: Pruner, weights: '*', rate: {sparsity: 0.25}}, epochs: [0]}
  - {pruner: {class: Pruner, weights: 0.weight, rate: {sparsity: 0.5}}, epochs: [2]}
"""
    both = {"0.weight": 0.25, "1.weight": 0.25}
    assert asked(text) == [both, both, *[{**both, "0.weight": 0.5}] * 4]


def test_a_whole_structure_is_the_smallest_part_of_a_target(asked: Asked) -> None:
    text = """\
version: 2
policies:
  - {pruner: {class: Pruner, structure: Rows, weights: 1.weight, rate: {sparsity: 0.7}}, epochs: [0]}
"""
    assert asked(text)[0] == {"1.weight": 0.5}  # 2 of 4 rows


@pytest.mark.parametrize("how", ["scope: global, rate: {sparsity: 0.5}", "rate: {threshold: 0.1}"])
def test_weights_of_which_only_the_run_shows_it_have_no_target(asked: Asked, how: str) -> None:
    text = f"version: 2\npolicies:\n  - {{pruner: {{class: Pruner, weights: '*', {how}}}, epochs: [0]}}\n"
    assert asked(text) == [{}] * EPOCHS


def test_a_dense_phase_asks_for_nothing(asked: Asked) -> None:
    text = """\
version: 2
policies:
  - dsd: {weights: 0.weight, sparsity: 0.3, dense_epochs: 1, sparse_epochs: 2, redense_epochs: 3}
"""
    found = asked(text)
    assert found == [{}, *[{"0.weight": 0.3}] * 2, *[{}] * 3]
