"""The general form does what Distiller's spellings of it do."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import UserError
from compressor.pruners.general import Pruner
from compressor.pruners.pruner import Request
from compressor.timing.window import Window

RunOf = Callable[..., Any]

TEXT = """\
version: 2
policies:
  - pruner: {{{component}}}
    starting_epoch: 0
    ending_epoch: 10
    frequency: 3
"""


def general(arguments: str) -> str:
    return TEXT.format(component=f"class: Pruner, weights: '*', {arguments}")


def net() -> nn.Sequential:
    """Two layers, 4x10 and 2x10, magnitudes around 1 and around 3."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 4, bias=False), nn.Linear(10, 2, bias=False))
    for layer, scale in zip(model, (1.0, 3.0), strict=True):
        layer.weight = nn.Parameter(torch.randn(layer.weight.shape, generator=generator) * scale)
    return model


def pruned(run: Any, epochs: int) -> list[Tensor]:
    for epoch in range(epochs):
        run.epoch(epoch)
    return [parameter.detach() == 0 for parameter in run.model.parameters()]


@pytest.mark.parametrize("epochs", [1, 4, 10])
@pytest.mark.parametrize(
    ("rate", "component"),
    [
        ("sparsity: 0.3", "class: SparsityLevelParameterPruner, levels: {'*': 0.3}"),
        (
            "agp: {initial_sparsity: 0.1, final_sparsity: 0.8}",
            "class: AutomatedGradualPruner, initial_sparsity: 0.1, final_sparsity: 0.8, weights: '*'",
        ),
        ("threshold: 0.7", "class: MagnitudeParameterPruner, thresholds: {'*': 0.7}"),
        (
            "baidu: {q: 0.5, ramp_epoch_offset: 3, ramp_slope_mult: 2}",
            "class: BaiduRNNPruner, q: 0.5, ramp_epoch_offset: 3, ramp_slope_mult: 2, weights: '*'",
        ),
        ("std: 0.6", "class: SensitivityPruner, sensitivities: {'*': 0.6}"),
    ],
)
def test_each_rate_prunes_what_the_class_of_distiller_prunes(
    run_of: RunOf, rate: str, component: str, epochs: int
) -> None:
    ours = pruned(run_of(general(f"rate: {{{rate}}}"), net(), epochs=10), epochs)
    theirs = pruned(run_of(TEXT.format(component=component), net(), epochs=10), epochs)
    assert 0 < sum(int(mask.sum()) for mask in ours) < 60
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_global_scope_ranks_all_weights_together(run_of: RunOf) -> None:
    # 60 weights, half of them: those of the second layer, three times as large, lose fewer.
    model = net()
    every = torch.cat([p.detach().abs().flatten() for p in model.parameters()])
    limit = every.sort().values[29]
    run = run_of(general("scope: global, rate: {sparsity: 0.5}"), model)
    run.epoch(0)
    zeros = torch.cat([(p.detach() == 0).flatten() for p in model.parameters()])
    assert torch.equal(zeros, every <= limit)
    assert int(zeros[40:].sum()) < 10


def test_with_a_global_scope_the_deviation_is_that_of_all_weights_together(run_of: RunOf) -> None:
    ours = pruned(run_of(general("scope: global, rate: {std: 0.6}"), net(), epochs=10), 1)
    component = "class: SensitivityPruner, scope: global, sensitivities: {'*': 0.6}"
    theirs = pruned(run_of(TEXT.format(component=component), net(), epochs=10), 1)
    each = pruned(run_of(general("rate: {std: 0.6}"), net(), epochs=10), 1)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(ours, each, strict=True))


@pytest.mark.parametrize(
    "arguments",
    [
        "rate: {}",
        "rate: {sparsity: 0.5, threshold: 0.1}",
        "rate: {sparsity: 2}",
        "rate: 0.5",
        "criterion: l1",  # no rate
        "rate: {agp: {final_sparsty: 0.5}}",
        "scope: everywhere, rate: {sparsity: 0.5}",
        "criterion: magic, rate: {sparsity: 0.5}",
    ],
)
def test_a_rate_that_is_none_or_two_is_one_fault(faults_of: Callable[[str], list[str]], arguments: str) -> None:
    assert len(faults_of(general(arguments))) == 1


def test_a_missed_global_target_is_said_for_all_weights_together(run_of: RunOf) -> None:
    run = run_of(general("scope: global, rate: {sparsity: 0.5}"), net())
    assert len(run.events.shortfalls()) == 1
    run.epoch(0)
    assert run.events.shortfalls() == []


def test_a_mistyped_key_of_a_rate_gets_its_place_and_its_nearest_name(run_of: RunOf) -> None:
    with pytest.raises(UserError) as caught:
        run_of(general("rate: {agp: {finl_sparsity: 0.5}}"), net())
    assert str(caught.value).startswith("s.yaml:3:56: unknown key 'finl_sparsity'")
    assert "did you mean 'final_sparsity'" in str(caught.value)


def test_a_random_share_is_drawn_anew_each_time_between_its_ends(run_of: RunOf) -> None:
    counts = []
    for seed in range(8):
        torch.manual_seed(seed)
        run = run_of(general("rate: {random: [0.2, 0.6]}"), net(), epochs=10)
        run.epoch(0)
        counts.append(int((run.model[0].weight == 0).sum()))
        assert run.events.shortfalls() == []
    assert all(8 <= count <= 24 for count in counts)  # of 40
    assert len(set(counts)) > 4
    assert max(counts) - min(counts) > 6


@pytest.mark.parametrize(
    ("more", "counts"),
    [
        ({}, (2, 1)),  # floor(.5 * 4) and floor(.5 * 2) rows
        ({"scope": "global"}, (3, 0)),  # of six rows; those of the second are larger
        ({"order": "random"}, (2, 1)),
    ],
)
def test_a_random_share_of_structures_is_that_of_them(more: dict[str, str], counts: tuple[int, int]) -> None:
    weights = {name: parameter.detach() for name, parameter in net().named_parameters()}
    arguments = {"structure": "Rows", "weights": list(weights), "rate": {"random": [0.5, 0.5]}, **more}
    keep = Pruner.model_validate(arguments).keep(Request(weights, {"weights": list(weights)}, Window(epochs=[0]), 0))
    gone = [~mask for mask in keep.values()]
    assert tuple(int(mask.all(1).sum()) for mask in gone) == counts
    assert tuple(int(mask.sum()) for mask in gone) == (10 * counts[0], 10 * counts[1])


def test_the_ends_of_a_random_share_rise(faults_of: Callable[[str], list[str]]) -> None:
    [fault] = faults_of(general("rate: {random: [0.6, 0.2]}"))
    assert "random should be [least, most], got [0.6, 0.2]" in fault
