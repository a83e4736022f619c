"""Prune and splice back: Distiller's vector, and a trace stepped by hand."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from compressor.schedule.faults import Faults
from compressor.schedule.schedule import Schedule, view_of

RunOf = Callable[..., Any]

TEXT = """\
pruners:
  p:
    class: SplicingPruner
    low_thresh_mult: 0.9
    hi_thresh_mult: 1.1
    sensitivities: {{weight: {s}}}
    sensitivity_multiplier: {m}
policies:
  - pruner: {{instance_name: p, args: {{use_double_copies: true, keep_mask: {keep}}}}}
    starting_epoch: 0
    ending_epoch: {end}
"""


def row(values: list[float]) -> nn.Linear:
    model = nn.Linear(len(values), 1, bias=False)
    model.weight = nn.Parameter(torch.tensor([values]))
    return model


def put(run: Any, values: list[float]) -> None:
    """Training has moved the dense copy here."""
    with torch.no_grad():
        run.model.weight.copy_(torch.tensor([values]))


def seen(run: Any) -> list[bool]:
    return (run.seen[-1]["weight"] != 0)[0].tolist()


def test_reference_vector_of_five_weights(run_of: RunOf) -> None:
    # schedule-grammar.md, section 4: mean .93; low .837, high 1.023: 1 lies between and stays as it was, kept
    run = run_of(TEXT.format(s=0, m=0, keep="false", end=4), row([0.1, 0.5, 1.0, 1.05, 2.0]))
    run.epoch(0)
    assert seen(run) == [False, False, True, True, True]


def test_between_the_two_thresholds_a_weight_stays_what_it_was(run_of: RunOf) -> None:
    # The thresholds are taken once: mean of |w| = 1, low 0.9, high 1.1.
    run = run_of(TEXT.format(s=0, m=0, keep="false", end=9), row([1.0, -1.0, 1.0, -1.0]))
    run.epoch(0)
    assert seen(run) == [True, True, True, True]
    put(run, [0.85, -0.95, 1.05, -1.15])  # 0.85 goes
    run.epoch(1)
    assert seen(run) == [False, True, True, True]
    put(run, [0.95, -0.85, 1.05, -1.0])  # 0.95 is between: it stays pruned; 0.85 goes
    run.epoch(2)
    assert seen(run) == [False, False, True, True]
    put(run, [1.15, -1.05, 0.95, -0.85])  # 1.15 comes back; 1.05 does not; 0.85 goes
    run.epoch(3)
    assert seen(run) == [True, False, True, False]


def test_a_magnitude_at_the_lower_threshold_does_not_go_and_one_at_the_upper_comes_back(run_of: RunOf) -> None:
    text = TEXT.format(s=0, m=0, keep="false", end=9).replace("0.9", "0.75").replace("1.1", "1.25")
    run = run_of(text, row([1.5, -0.5]))  # mean 1; 0.5 goes
    run.epoch(0)
    assert seen(run) == [True, False]
    put(run, [0.75, -1.25])
    run.epoch(1)
    assert seen(run) == [True, True]


def test_the_dense_copy_lives_on_behind_the_mask(run_of: RunOf) -> None:
    run = run_of(TEXT.format(s=0, m=0, keep="false", end=9), row([0.1, 1.9]), lr=1.0)  # mean 1
    run.gradient = -0.5  # every step adds 0.5
    expected = [([False, True], 0.6), ([False, True], 1.1), ([True, True], 1.6)]
    for epoch, (visible, dense) in enumerate(expected):
        run.epoch(epoch)
        assert seen(run) == visible
        assert abs(float(run.model.weight[0, 0].detach()) - dense) < 1e-6


def test_sensitivity_moves_the_thresholds_by_deviations_of_the_magnitudes(run_of: RunOf) -> None:
    # |w| = 1, 2, 3, 4, 5: mean 3, std sqrt(10 / 4) = 1.5811; s = 0.5: base 3.79, low 3.411, high 4.17
    run = run_of(TEXT.format(s=0.5, m=0, keep="false", end=4), row([1.0, -2.0, 3.0, -4.0, 5.0]))
    run.epoch(0)
    assert seen(run) == [False, False, False, True, True]
    run = run_of(TEXT.format(s=-1, m=0, keep="false", end=4), row([1.0, -2.0, 3.0, -4.0, 5.0]))  # base 1.419, low 1.277
    run.epoch(0)
    assert seen(run) == [False, True, True, True, True]


def test_the_multiplier_grows_the_sensitivity_with_the_epochs_since_the_start(run_of: RunOf) -> None:
    # s (1 + m (e - e0)) with s = 0.5, m = 2: 0.5, 1.5: base 3.79, 5.37; low 3.41, 4.83
    run = run_of(TEXT.format(s=0.5, m=2, keep="false", end=4), row([1.0, -2.0, 3.0, -4.0, 5.0]))
    run.epoch(0)
    assert seen(run) == [False, False, False, True, True]
    run.epoch(1)
    assert seen(run) == [False, False, False, False, True]


def test_row_splicings_mean_deviation_and_mask_are_checkpointed(run_of: RunOf) -> None:
    text = TEXT.format(s=0, m=0, keep="false", end=9)
    first = run_of(text, row([1.0, -1.0, 1.0, -1.0]))
    first.epoch(0)
    put(first, [0.8, -1.0, 1.0, -1.0])
    first.epoch(1)
    state = copy.deepcopy((first.session._constants, first.masks.state_dict()))
    resumed, forgetful = (run_of(text, row([0.95, -0.95, 1.0, -0.85])) for _ in range(2))
    for key, constants in state[0].items():
        resumed.session._constants[key].update(constants)
    resumed.masks.load_state_dict(state[1])
    resumed.epoch(2)
    assert seen(resumed) == [False, True, True, False]
    forgetful.epoch(2)
    assert seen(forgetful) == [True, True, True, True]


def test_the_last_mask_stays_and_without_keep_mask_the_dense_copy_behind_it_too(run_of: RunOf) -> None:
    for keep in (True, False):
        run = run_of(TEXT.format(s=0, m=0, keep=str(keep).lower(), end=2), row([0.5, -0.1, 2.0, 1.4]), lr=1.0)
        run.gradient = -0.01
        for epoch in range(4):
            run.epoch(epoch)
        values = run.model.weight[0].tolist()
        if keep:
            assert values[:2] == [0, 0]
            assert not torch.signbit(run.model.weight[0, :2]).any()
        else:
            assert abs(values[0] - 0.54) < 1e-6
        assert seen(run) == [False, False, True, True]


@pytest.mark.parametrize("version", [1, 2])
def test_without_double_copies_version_1_warns_and_prunes_for_good_and_version_2_refuses(
    run_of: RunOf, schedule_of: Callable[[str], Schedule], version: int
) -> None:
    text = TEXT.format(s=0, m=0, keep="false", end=2).replace("use_double_copies: true, ", "")
    text = f"version: {version}\n{text}"
    model, faults = row([0.5, -0.1, 2.0, 1.4]), Faults()  # mean 1, low 0.9
    notes = schedule_of(text).bind(model, 2, faults).check(view_of(model, epochs=2), faults).notes
    said = "SplicingPruner needs `use_double_copies: true`: without it no weight can come back"
    if version == 2:
        assert faults.lines == [f"s.yaml:10:5: {said}"]
        return
    assert (faults.lines, notes) == ([], (f"s.yaml:10:5: warning: {said}",))
    run = run_of(text, model, epochs=2, lr=10.0)
    run.epoch(0)
    assert run.model.weight[0].tolist() == pytest.approx([0, 0, 2.0, 1.4])
    run.gradient = -1.0  # the masked weights would grow past 1.1
    run.epoch(1)
    assert run.model.weight[0].tolist() == pytest.approx([0, 0, 12.0, 11.4])
