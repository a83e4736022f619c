"""Baidu's rising threshold, against Distiller's vector."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

RunOf = Callable[..., Any]

TEXT = """\
policies:
  - pruner: {class: BaiduRNNPruner, q: 0.2, ramp_epoch_offset: 3, ramp_slope_mult: 2, weights: [weight]}
    starting_epoch: 4
    ending_epoch: 21
    frequency: 3
"""


def test_reference_vector_what_is_pruned_are_the_magnitudes_up_to_eps(run_of: RunOf) -> None:
    # schedule-grammar.md, section 4: eps .00833 .05 .10 .15 .20 .25 in epochs 4 7 10 13 16 19
    model = nn.Linear(9, 1, bias=False)
    magnitudes = [0.008, 0.009, 0.049, 0.051, 0.099, 0.101, 0.151, 0.201, 0.251]
    with torch.no_grad():
        model.weight.copy_(torch.tensor(magnitudes) * torch.tensor([1, -1, 1, -1, 1, -1, 1, -1, 1]))
    run = run_of(TEXT, model, epochs=25)
    zeros = []
    for epoch in range(25):
        run.epoch(epoch)
        zeros.append(int((model.weight == 0).sum()))
    assert zeros == [0] * 4 + [1] * 3 + [3] * 3 + [5] * 3 + [6] * 3 + [7] * 3 + [8] * 6


def test_a_weight_that_equals_the_threshold_goes(run_of: RunOf) -> None:
    # e0 = 0, ramp = 1, e1 = 2, f = 1: start_slope = 2 * 1.25 / (2 * 1 + 3 * 1) = 0.5 exactly, and eps(0) is it
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([0.5, 0.5000001]))
    text = "class: BaiduRNNPruner, q: 1.25, ramp_epoch_offset: 1, ramp_slope_mult: 1, weights: weight"
    run_of(f"policies:\n  - pruner: {{{text}}}\n", model, epochs=2).begin(0)
    assert (model.weight != 0).tolist() == [[False, True]]
