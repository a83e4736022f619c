"""Learning-rate policies through the scheduler, on a real optimizer: Distiller's vectors, torch's own figures."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as torch_lr

from compressor.errors import CompressError, UserError

RunOf = Callable[..., Any]

TEXT = "version: {version}\npolicies:\n  - lr_scheduler: {{class: {lr}}}\n    {window}\n"


def text(lr: str, window: str = "starting_epoch: 0", version: int = 1) -> str:
    return TEXT.format(lr=lr, window=window, version=version)


def rates(run: Any, epochs: int, key: str = "lr", group: int = 0) -> list[float]:
    """What the optimizer steps with in each epoch."""
    found = []
    for epoch in range(epochs):
        run.begin(epoch)
        run.step()
        found.append(run.optimizer.param_groups[group][key])
        for _ in range(1, run.clock.steps_per_epoch):
            run.step()
            assert run.optimizer.param_groups[group][key] == found[-1]  # it moves at an epoch's end
        run.end()
    return found


def model() -> nn.Linear:
    return nn.Linear(2, 2)


def test_reference_vector_step_lr_active_from_epoch_6_in_absolute_epochs(run_of: RunOf) -> None:
    # schedule-grammar.md, section 4: 1 x7, .1, .01 x4
    window = "starting_epoch: 6\n    ending_epoch: 12\n    frequency: 1"
    run = run_of(text("StepLR, step_size: 4, gamma: 0.1", window), model(), epochs=12, steps=2, lr=1.0)
    assert rates(run, 12) == pytest.approx([1] * 7 + [0.1] + [0.01] * 4)


def test_reference_vector_polynomial_lr_is_0_from_t_max_on(run_of: RunOf) -> None:
    run = run_of(text("PolynomialLR, T_max: 10, power: 2"), model(), epochs=12, lr=1.0)
    expected = [1, 0.81, 0.64, 0.49, 0.36, 0.25, 0.16, 0.09, 0.04, 0.01, 0, 0]
    assert rates(run, 12) == pytest.approx(expected, abs=1e-12)


def test_row_polynomial_lr_takes_total_iters_for_t_max(run_of: RunOf) -> None:
    run = run_of(text("PolynomialLR, total_iters: 4"), model(), epochs=6, lr=1.0)
    assert rates(run, 6) == pytest.approx([1, 0.75, 0.5, 0.25, 0, 0], abs=1e-12)


def test_row_lr_origin_absolute_exponential_lr_that_starts_in_epoch_5_jumps_to_53_percent(run_of: RunOf) -> None:
    run = run_of(text("ExponentialLR, gamma: 0.9", "starting_epoch: 5"), model(), epochs=9, lr=1.0)
    assert rates(run, 9) == pytest.approx([1] * 6 + [0.9**6, 0.9**7, 0.9**8])
    assert round(0.9**6, 2) == 0.53


def test_row_lr_origin_start_in_version_2_a_scheduler_counts_from_its_own_start(run_of: RunOf) -> None:
    run = run_of(text("ExponentialLR, gamma: 0.9", "starting_epoch: 5", version=2), model(), epochs=9, lr=1.0)
    assert rates(run, 9) == pytest.approx([1] * 6 + [0.9, 0.81, 0.729])
    asked = run_of(
        text("ExponentialLR, gamma: 0.9, args: {origin: start}", "starting_epoch: 5"), model(), epochs=9, lr=1.0
    )
    assert rates(asked, 9) == pytest.approx([1] * 6 + [0.9, 0.81, 0.729])
    absolute = text("ExponentialLR, gamma: 0.9, args: {origin: absolute}", "starting_epoch: 5", version=2)
    assert rates(run_of(absolute, model(), epochs=9, lr=1.0), 9) == pytest.approx([1] * 6 + [0.9**6, 0.9**7, 0.9**8])


def test_a_schedule_that_begins_below_1_holds_in_the_first_epoch_of_its_window_already(run_of: RunOf) -> None:
    # LinearLR from 0.1 to 1 over 3: 0.1 0.4 0.7 1 1
    warm = "LinearLR, start_factor: 0.1, total_iters: 3"
    assert rates(run_of(text(warm), model(), epochs=5, lr=2.0), 5) == pytest.approx([0.2, 0.8, 1.4, 2, 2])
    late = run_of(text(warm, "starting_epoch: 2", version=2), model(), epochs=7, lr=2.0)
    assert rates(late, 7) == pytest.approx([2, 2, 0.2, 0.8, 1.4, 2, 2])


def test_the_rate_that_a_window_left_stays_in_force_behind_it(run_of: RunOf) -> None:
    run = run_of(text("ExponentialLR, gamma: 0.5", "ending_epoch: 2"), model(), epochs=6, lr=1.0)
    assert rates(run, 6) == pytest.approx([1, 0.5, 0.25, 0.25, 0.25, 0.25])


def test_with_a_frequency_or_a_list_the_rate_moves_after_those_epochs_only(run_of: RunOf) -> None:
    run = run_of(text("ExponentialLR, gamma: 0.5", "starting_epoch: 0\n    frequency: 2"), model(), epochs=6, lr=1.0)
    assert rates(run, 6) == pytest.approx([1, 0.5, 0.5, 0.125, 0.125, 0.03125])
    run = run_of(text("ExponentialLR, gamma: 0.5", "epochs: [3]"), model(), epochs=6, lr=1.0)
    assert rates(run, 6) == pytest.approx([1, 1, 1, 1, 0.0625, 0.0625])


def test_two_policies_in_turn_each_start_from_the_configurations_rate(run_of: RunOf) -> None:
    two = """\
version: 2
policies:
  - lr_scheduler: {class: LinearLR, start_factor: 0.25, total_iters: 2}
    ending_epoch: 3
  - lr_scheduler: {class: ExponentialLR, gamma: 0.5}
    starting_epoch: 3
"""
    # LinearLR at 0..3: .25 .625 1 1; ExponentialLR from 3: 1 .5 .25
    assert rates(run_of(two, model(), epochs=6, lr=1.0), 6) == pytest.approx([0.25, 0.625, 1, 1, 0.5, 0.25])


def test_each_group_of_parameters_keeps_its_own_scale(run_of: RunOf) -> None:
    layer = model()
    for group, base in ((0, 1.0), (1, 2.0)):
        groups = [{"params": [layer.weight], "lr": 1.0}, {"params": [layer.bias], "lr": 2.0}]
        optimizer = torch.optim.SGD(groups, lr=1.0)
        run = run_of(text("StepLR, step_size: 2, gamma: 0.1"), layer, epochs=5, optimizer=optimizer)
        assert rates(run, 5, group=group) == pytest.approx([base, base, base / 10, base / 10, base / 100])


def test_the_rate_acts_on_the_weights(run_of: RunOf) -> None:
    layer = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(10.0)
    run = run_of(text("StepLR, step_size: 1, gamma: 0.5"), layer, epochs=3, steps=2, lr=1.0)
    run.gradient = 1.0
    for epoch in range(3):
        run.epoch(epoch)
    assert float(layer.weight.detach()) == 10 - 2 * (1 + 0.5 + 0.25)


def test_resumed_in_the_middle_the_rates_are_the_same(run_of: RunOf) -> None:
    schedule = text("CosineAnnealingWarmRestarts, T_0: 3, T_mult: 2, eta_min: 0.1", "starting_epoch: 1", version=2)
    straight = rates(run_of(schedule, model(), epochs=10, lr=1.0), 10)
    assert len(set(straight)) > 5
    for stop in range(1, 10):
        broken = run_of(schedule, model(), epochs=10, lr=1.0)
        rates(broken, stop)
        resumed = run_of(schedule, model(), epochs=10, lr=1.0)
        resumed.optimizer.load_state_dict(copy.deepcopy(broken.optimizer.state_dict()))
        resumed.events.load_state_dict(copy.deepcopy(broken.events.state_dict()))
        resumed.optimizer.param_groups[0].setdefault("initial_lr", 1.0)
        found = []
        for epoch in range(stop, 10):
            resumed.begin(epoch)
            resumed.step()
            found.append(resumed.optimizer.param_groups[0]["lr"])
            resumed.end()
        assert found == straight[stop:], stop


def test_by_steps_the_rate_moves_after_every_step(run_of: RunOf) -> None:
    schedule = text("InvLR, gamma: 0.5, power: 1, args: {interval: step}", version=2)
    run = run_of(schedule, model(), epochs=2, steps=3, lr=1.0)
    found = []
    for epoch in range(2):
        run.begin(epoch)
        for _ in range(3):
            run.events.fire("on_minibatch_begin")
            found.append(run.optimizer.param_groups[0]["lr"])
            run.step()
        run.end()
    assert found == pytest.approx([1 / (1 + t / 2) for t in range(6)])


def test_by_steps_in_a_late_window_time_counts_from_its_start_in_version_2(run_of: RunOf) -> None:
    for version, origin in ((2, 0), (1, 3)):
        schedule = text(
            "ExponentialLR, gamma: 0.5, args: {interval: step}", "starting_epoch: 1\n    ending_epoch: 2", version
        )
        run = run_of(schedule, model(), epochs=3, steps=3, lr=1.0)
        found = []
        for epoch in range(3):
            run.begin(epoch)
            for _ in range(3):
                run.step()
                found.append(run.optimizer.param_groups[0]["lr"])
            run.end()
        moved = [0.5 ** (origin + step) for step in (1, 2, 3)]
        assert found == pytest.approx([1] * 3 + moved + [moved[-1]] * 3), version


def test_a_learning_rate_policy_leaves_the_momentum_alone_unless_it_cycles_it(run_of: RunOf) -> None:
    run = run_of(text("StepLR, step_size: 1"), model(), epochs=4, lr=1.0, momentum=0.9)
    run.epoch(0)
    run.optimizer.param_groups[0]["momentum"] = 0.5  # another policy has cycled it
    run.epoch(1)
    assert run.optimizer.param_groups[0]["momentum"] == 0.5


def test_one_cycle_lr_cycles_momentum_against_the_rate(run_of: RunOf) -> None:
    schedule = text("OneCycleLR, max_lr: 0.5, total_steps: 8", version=2)
    layer = model()
    reference = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    theirs = torch_lr.OneCycleLR(reference, max_lr=0.5, total_steps=8)
    expected = []
    for _ in range(8):
        expected.append((reference.param_groups[0]["lr"], reference.param_groups[0]["momentum"]))
        reference.step()
        if len(expected) < 8:
            theirs.step()
    assert rates(run_of(schedule, model(), epochs=8, momentum=0.9), 8) == pytest.approx([lr for lr, _ in expected])
    momenta = rates(run_of(schedule, model(), epochs=8, momentum=0.9), 8, "momentum")
    assert momenta == pytest.approx([momentum for _, momentum in expected])
    assert min(momenta) < 0.86 < 0.94 < max(momenta)


OWN_RATES = {
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.4, "step_size_up": 2, "step_size_down": 3},
    "OneCycleLR": {"max_lr": 0.5, "total_steps": 30},
}


@pytest.mark.parametrize("name", OWN_RATES)
@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize(("version", "first"), [(2, 0), (2, 3), (1, 0), (1, 3)])
def test_a_schedule_that_names_its_own_rates_is_torchs_from_its_start(
    run_of: RunOf, name: str, interval: str, version: int, first: int
) -> None:
    # Torch's scheduler is made where the window begins; in version 1 time is absolute: it was stepped since epoch 0.
    epochs, steps = 8, 3
    reference = torch.optim.SGD(model().parameters(), lr=1.0, momentum=0.5)
    theirs = getattr(torch_lr, name)(reference, **OWN_RATES[name])
    reference.step()
    ahead = first * (steps if interval == "step" else 1)
    for _ in range(ahead if version == 1 else 0):
        theirs.step()
    arguments = ", ".join(f"{key}: {value}" for key, value in OWN_RATES[name].items())
    schedule = text(f"{name}, {arguments}, args: {{interval: {interval}}}", f"starting_epoch: {first}", version)
    run = run_of(schedule, model(), epochs=epochs, steps=steps, lr=1.0, momentum=0.5)
    group, wanted = run.optimizer.param_groups[0], reference.param_groups[0]
    for epoch in range(epochs):
        run.begin(epoch)
        for _ in range(steps):
            run.events.fire("on_minibatch_begin")  # at which a window is entered; `step` does it again
            expected = wanted if epoch >= first else {"lr": 1.0, "momentum": 0.5}
            assert (group["lr"], group["momentum"]) == (expected["lr"], expected["momentum"]), epoch
            run.step()
            if epoch >= first and interval == "step":
                theirs.step()
        run.end()
        if epoch >= first and interval == "epoch":
            theirs.step()


@pytest.mark.parametrize("strategy", ["cos", "linear"])
def test_one_cycle_lr_stays_at_its_last_rate_beyond_its_end(run_of: RunOf, strategy: str) -> None:
    # It ends at step total_steps - 1 = 4 with max_lr / 25 / 1e4.
    schedule = text(f"OneCycleLR, max_lr: 0.5, total_steps: 5, anneal_strategy: {strategy}", version=2)
    run = run_of(schedule, model(), epochs=9, momentum=0.9)
    found = rates(run, 9)
    assert found[4] == pytest.approx(0.5 / 25 / 1e4, abs=1e-9)
    assert found[5:] == [found[4]] * 4


PLATEAU = [1.0, 0.9, 0.9, 0.9, 0.95, 0.8, 0.85, 0.85, 0.85, 0.85, 0.85, 0.5]


def test_reduce_on_plateau_by_hand(run_of: RunOf) -> None:
    # patience 1: the second epoch in a row without improvement halves the rate, and counting starts again.
    run = run_of(text("ReduceLROnPlateau, factor: 0.5, patience: 1"), model(), epochs=12, lr=1.0)
    found = []
    for epoch, loss in enumerate(PLATEAU):
        run.epoch(epoch, {"loss": loss})
        found.append(run.optimizer.param_groups[0]["lr"])
    # best 1, .9; .9 .9 bad -> 1/2; .95 bad; .8 best; .85 .85 -> 1/4; .85 .85 -> 1/8; .85 bad; .5 best
    assert found == [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125, 0.125]


@pytest.mark.parametrize("stop", range(1, 12))
def test_reduce_on_plateau_keeps_its_memory_over_a_resume(run_of: RunOf, stop: int) -> None:
    schedule = text("ReduceLROnPlateau, factor: 0.5, patience: 1, cooldown: 1, threshold: 0.05, min_lr: 0.2")
    layer = model()
    reference = torch.optim.SGD(layer.parameters(), lr=1.0)
    theirs = torch_lr.ReduceLROnPlateau(reference, factor=0.5, patience=1, cooldown=1, threshold=0.05, min_lr=0.2)
    expected = []
    for loss in PLATEAU:
        theirs.step(loss)
        expected.append(reference.param_groups[0]["lr"])
    assert len(set(expected)) == 4
    first, second, forgetful = (run_of(schedule, model(), epochs=12, lr=1.0) for _ in range(3))
    for epoch in range(stop):
        first.epoch(epoch, {"loss": PLATEAU[epoch]})
    for run in (second, forgetful):
        run.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
    second.events.load_state_dict(copy.deepcopy(first.events.state_dict()))
    found: dict[int, list[float]] = {id(second): [], id(forgetful): []}
    for run in (second, forgetful):
        for epoch in range(stop, 12):
            run.epoch(epoch, {"loss": PLATEAU[epoch]})
            found[id(run)].append(run.optimizer.param_groups[0]["lr"])
    assert found[id(second)] == expected[stop:]
    if stop == 3:  # the negative control: without its memory it starts to count again
        assert found[id(forgetful)] != expected[stop:]


def test_reduce_on_plateau_may_watch_accuracy_where_more_is_better(run_of: RunOf) -> None:
    run = run_of(text("ReduceLROnPlateau, factor: 0.5, patience: 0, metric: top1"), model(), epochs=5, lr=1.0)
    found = []
    for epoch, top1 in enumerate([50.0, 60, 55, 70, 70]):
        run.epoch(epoch, {"loss": 1.0, "top1": top1})
        found.append(run.optimizer.param_groups[0]["lr"])
    assert found == [1, 1, 0.5, 0.5, 0.25]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", [1, 1, 0.5, 0.25]),
        (", mode: min", [1, 1, 0.5, 0.25]),
        (", mode: max", [1, 0.5, 0.25, 0.25]),
        (", metric: loss, mode: min", [1, 1, 0.5, 0.25]),
        (", metric: top1, mode: max", [1, 0.5, 0.25, 0.25]),
        (", metric: top5, mode: max", [1, 1, 1, 0.5]),
    ],
)
def test_reduce_on_plateau_watches_the_loss_with_min_and_top1_with_max(
    run_of: RunOf, given: str, expected: list[float]
) -> None:
    # loss: better in epoch 1 only; top-1: in epoch 3 only; top-5: in 1 and 2
    run = run_of(text(f"ReduceLROnPlateau, factor: 0.5, patience: 0{given}"), model(), epochs=4, lr=1.0)
    found = []
    for epoch, (loss, top1, top5) in enumerate([(1.0, 60, 80), (0.5, 55, 81), (2.0, 50, 82), (2.0, 70, 82)]):
        run.epoch(epoch, {"loss": loss, "top1": top1, "top5": top5})
        found.append(run.optimizer.param_groups[0]["lr"])
    assert found == expected


@pytest.mark.parametrize(("metric", "mode"), [("loss", "max"), ("top1", "min"), ("top5", "min")])
@pytest.mark.parametrize("keys", ["metric: {metric}\n      mode: {mode}", "mode: {mode}\n      metric: {metric}"])
def test_a_metric_that_contradicts_the_mode_is_an_error_at_the_mode(
    faults_of: Callable[[str], list[str]], metric: str, mode: str, keys: str
) -> None:
    block = "\n      class: ReduceLROnPlateau\n      " + keys.format(metric=metric, mode=mode)
    [line] = faults_of(f"policies:\n  - lr_scheduler:{block}\n")
    assert line.startswith(f"s.yaml:{5 if keys.startswith('metric') else 4}:")
    assert "'mode' of ReduceLROnPlateau" in line
    assert f"`metric: {metric}`" in line
    assert repr(mode) in line


def test_reduce_on_plateau_watches_in_its_window_only(run_of: RunOf) -> None:
    run = run_of(text("ReduceLROnPlateau, factor: 0.5, patience: 0", "epochs: [1, 3]"), model(), epochs=5, lr=1.0)
    found = []
    for epoch in range(5):
        run.epoch(epoch, {"loss": 1.0})
        found.append(run.optimizer.param_groups[0]["lr"])
    assert found == [1, 1, 1, 0.5, 0.5]


def test_reduce_on_plateau_without_validation_is_a_user_error(run_of: RunOf) -> None:
    run = run_of(text("ReduceLROnPlateau"), model())
    with pytest.raises(UserError, match="validation"):
        run.epoch(0)


def test_reduce_on_plateau_takes_no_steps(run_of: RunOf) -> None:
    with pytest.raises(UserError, match="step"):
        run_of(text("ReduceLROnPlateau, args: {interval: step}", version=2), model())


@pytest.mark.parametrize(
    ("lr", "words"),
    [
        ("StepLR, step_size: 0", "torch refuses"),
        ("StepLR, step_size: -1", "0 or more"),
        ("StepLR, step_size: 3, gamma: -0.1", "0 or more"),
        ("StepLR, step_size: '3'", "integer"),
        ("ExponentialLR, gamma: fast", "number"),
        ("ExponentialLR, gamma: .inf", "finite"),
        ("MultiStepLR, milestones: 3", "list"),
        ("MultiStepMultiGammaLR, milestones: [3, 5], gammas: [0.1]", "one gamma each"),
        ("MultiStepMultiGammaLR, milestones: [5, 3], gammas: [0.1, 0.1]", "rise"),
        ("OneCycleLR, max_lr: 0.1", "torch refuses"),
        ("LinearLR, start_factor: 2.0", "torch refuses"),
        ("PolynomialLR, power: 2", "needs the key 'T_max'"),
        ("PolynomialLR, T_max: 0", "got 0"),
        ("CyclicLR, base_lr: 0.1, max_lr: 0.2, mode: sideways", "sideways"),
        ("ReduceLROnPlateau, factor: 1.5", "got 1.5"),
        ("StepLR, step_size: 3, args: {origin: end}", "got 'end'"),
    ],
)
def test_arguments_that_torch_would_refuse_are_refused_when_the_schedule_is_read(
    faults_of: Callable[[str], list[str]], lr: str, words: str
) -> None:
    lines = faults_of(text(lr))
    assert len(lines) == 1, lines
    assert words in lines[0]
    assert lines[0].startswith("s.yaml:3:")


def test_a_rate_that_is_no_number_is_never_set(run_of: RunOf) -> None:
    run = run_of(text("ExponentialLR, gamma: 1e38"), model(), epochs=12, lr=1.0)
    for epoch in range(8):
        run.begin(epoch)
        run.end()
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(1e304)
    run.begin(8)
    with pytest.raises(CompressError, match="ExponentialLR gives the learning rate inf"):
        run.end()  # 1e342
    assert math.isfinite(run.optimizer.param_groups[0]["lr"])
