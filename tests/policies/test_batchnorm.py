"""Batch-norm statistics that are computed again: their numbers by hand; nothing else changes."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import compress, difference
from loop import Loop
from torch import Tensor, nn

from compressor.errors import UserError
from compressor.policies.batchnorm import reestimate
from compressor.schedule import Faults, grammar, view_of
from compressor.schedule.document import parse

RunOf = Callable[..., Any]
Batch = tuple[Tensor, Tensor]

BATCHES: list[Batch] = [
    (torch.tensor([[[[1.0, 3]]], [[[5, 7]]]]), torch.tensor([0, 1])),
    (torch.tensor([[[[0.0, 2]]]]), torch.tensor([0])),
]
"""Means 4 and 1, unbiased variances 20/3 and 2: the means of both are 5/2 and 13/3. Over all pixels the mean is 3."""


def net(*behind: nn.Module, filters: tuple[float, ...] = (1.0,), eps: float = 1e-12) -> nn.Sequential:
    """1x1 filters on one channel, a batch norm whose statistics are 0.5 and 9, whatever is behind, a classifier."""
    channels = len(filters)
    model = nn.Sequential(
        nn.Conv2d(1, channels, 1),
        nn.BatchNorm2d(channels, eps=eps),
        *behind,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, 2),
    )
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor(filters).reshape(model[0].weight.shape))
        model[0].bias.zero_()
    model[1].running_mean.fill_(0.5)
    model[1].running_var.fill_(9.0)
    return model.train()


def schedule(arguments: str = "batches: 2", window: str = "", above: str = "") -> str:
    return f"version: 2\npolicies:\n{above}  - {{batchnorm: {{{arguments}}}{window}}}\n"


def started(run_of: RunOf, text: str, model: nn.Module, batches: list[Batch] = BATCHES, **options: Any) -> Any:
    return run_of(text, model, batches=batches, **options)


def statistics(model: nn.Module, layer: int = 1) -> tuple[list[float], list[float]]:
    norm = model.get_submodule(str(layer))
    return norm.running_mean.tolist(), norm.running_var.tolist()


def about(*values: float) -> Any:
    return pytest.approx(list(values), rel=1e-5, abs=1e-7)


# --- the numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.1, 0.9, None])
def test_they_are_the_plain_mean_of_the_batches_statistics(run_of: RunOf, momentum: float | None) -> None:
    model = net()
    model[1].momentum = momentum
    started(run_of, schedule(), model).begin(0)
    assert statistics(model) == (about(5 / 2), about(13 / 3))
    assert model[1].momentum == momentum
    assert int(model[1].num_batches_tracked) == 2


def test_so_many_batches_are_looked_at(run_of: RunOf) -> None:
    model = net()
    started(run_of, schedule("batches: 1"), model).begin(0)
    assert statistics(model) == (about(4), about(20 / 3))


def test_a_batch_norm_behind_another_sees_what_that_makes_of_the_batch(run_of: RunOf) -> None:
    # (x - mean) / sd * 2 + 1: mean 1, variance 4 n / (n - 1), for torch divides by the biased one: 16/3 and 8.
    model = net(nn.BatchNorm2d(1, eps=1e-12))
    nn.init.constant_(model[1].weight, 2.0)
    nn.init.constant_(model[1].bias, 1.0)
    started(run_of, schedule(), model).begin(0)
    assert statistics(model) == (about(5 / 2), about(13 / 3))
    assert statistics(model, 2) == (about(1), about((16 / 3 + 8) / 2))


def test_one_dimensional_batch_norms_are_batch_norms_too(run_of: RunOf) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 1), nn.BatchNorm1d(1), nn.Linear(1, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, 1]]))
        model[1].bias.zero_()
    started(run_of, schedule(), model, BATCHES[:1]).begin(0)
    assert statistics(model, 2) == (about((4 + 12) / 2), about(32))


# --- when -------------------------------------------------------------------------------------------------------------


def test_at_the_begin_of_every_epoch_of_the_window_by_the_weights_as_they_are_then(run_of: RunOf) -> None:
    model = net()
    run = started(run_of, schedule(window=", starting_epoch: 1, ending_epoch: 3"), model, steps=2, lr=1.0)
    run.gradient = -0.25  # each step adds as much to the weight and to the bias
    run.epoch(0)
    assert statistics(model) == ([0.5], [9.0])
    for epoch, factor in ((1, 1.5), (2, 2.0)):
        run.begin(epoch)
        assert statistics(model) == (about(5 / 2 * factor + factor - 1), about(13 / 3 * factor**2))
        run.step()
        run.step()
        run.end()
    run.epoch(3)
    assert statistics(model) == (about(5 / 2 * 2 + 1), about(13 / 3 * 4))


def test_at_the_end_behind_the_last_step_of_an_epoch_alone(run_of: RunOf) -> None:
    model = net()
    run = started(run_of, schedule("batches: 2, at: end"), model, steps=2, lr=1.0)
    run.gradient = -0.25
    run.begin(0)
    run.step()
    assert statistics(model) == ([0.5], [9.0])
    run.step()
    assert statistics(model) == (about(5 / 2 * 1.5 + 0.5), about(13 / 3 * 2.25))


def test_a_window_in_steps_has_no_place_here(faults_of: Callable[[str], list[str]]) -> None:
    [line] = faults_of(schedule(window=", starting_step: 0, ending_step: 3"))
    assert "its window counts epochs" in line


@pytest.mark.parametrize("wrong", ["batches: 0", "at: middle", "momentum: 0.1"])
def test_wrong_arguments_are_refused(faults_of: Callable[[str], list[str]], wrong: str) -> None:
    assert len(faults_of(schedule(wrong))) == 1


@pytest.mark.parametrize("kind", ["none", "without statistics", "group norm"])
def test_a_network_without_such_a_batch_norm_is_said(run_of: RunOf, kind: str) -> None:
    model = net()
    model[1] = {
        "none": nn.Identity(),
        "without statistics": nn.BatchNorm2d(1, track_running_stats=False),
        "group norm": nn.GroupNorm(1, 1),
    }[kind]
    with pytest.raises(UserError, match=r"0\.batchnorm: the network has no batch norm with running statistics"):
        started(run_of, schedule(), model)


def test_validate_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(schedule())
    result = compress("validate", "s.yaml", "-c", "lenet5_digits")
    assert result.code == 2
    assert "s.yaml:3:5: 0.batchnorm: the network has no batch norm with running statistics" in result.err
    assert compress("validate", "s.yaml", "-c", "resnet20_cifar10").code == 0


@pytest.mark.parametrize(("kind", "processes", "refused"), [("sync", 2, True), ("sync", 1, False), ("plain", 2, False)])
def test_on_several_processes_a_norm_that_waits_for_all_of_them_is_refused_with_its_line(
    kind: str, processes: int, refused: bool
) -> None:
    model, faults = net(), Faults()
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model) if kind == "sync" else model
    parsed = grammar.read(parse("s.yaml", schedule(), faults), faults)
    parsed.bind(model, 2, faults).check(view_of(model, epochs=2, processes=processes), faults)
    said = (
        "s.yaml:3:5: 0.batchnorm estimates statistics on one of 2 processes, and 1 (SyncBatchNorm) would wait for the"
    )
    assert [line.startswith(said) for line in faults.lines] == [True] * refused


# --- what is measured -------------------------------------------------------------------------------------------------

PRUNED = "  - {{pruner: {{class: L1RankedStructureParameterPruner, group_type: Filters, desired_sparsity: 0.5,"
PRUNED += " weights: 0.weight, args: {{{args}}}}}, epochs: [0]}}\n"


@pytest.mark.parametrize("args", ["", "mask_on_forward_only: true", "use_double_copies: true"])
@pytest.mark.parametrize("at", ["begin", "end"])
def test_it_is_the_masked_network_and_what_lives_on_behind_the_mask_comes_back(
    run_of: RunOf, args: str, at: str
) -> None:
    model = net(filters=(-1.0, 2.0))
    run = started(run_of, schedule(f"batches: 2, at: {at}", above=PRUNED.format(args=args)), model, lr=1.0)
    run.gradient = -0.5 if args else 0.0
    run.begin(0)
    moved = 0.0
    if at == "end":
        run.step()
        moved = 0.5 if args else 0.0
    factor = 2 + moved
    assert statistics(model) == (about(0, 5 / 2 * factor + moved), about(0, 13 / 3 * factor**2))
    alive = {"": 0.0, "mask_on_forward_only: true": 0.0 + moved, "use_double_copies: true": -1.0 + moved}
    if at == "begin" and args:
        alive[args] = -1.0  # before the first forward pass
    assert model[0].weight.flatten().tolist() == [alive[args], factor]


@pytest.mark.parametrize("at", ["begin", "end"])
def test_a_draw_for_one_step_is_not_measured(run_of: RunOf, at: str) -> None:
    args = "mini_batch_pruning_frequency: 1, discard_masks_at_minibatch_end: true, use_double_copies: true"
    model = net(filters=(1.0, 2.0))
    run = started(run_of, schedule(f"batches: 2, at: {at}", above=PRUNED.format(args=args)), model, steps=2)
    run.begin(0)
    run.step()
    run.step()
    assert not run.seen[0]["0.weight"][0].any()
    assert statistics(model) == (about(5 / 2, 5), about(13 / 3, 52 / 3))


GATED = """\
version: 2
gates:
  l0: {class: HardConcreteL0, weights: [0.weight], lambda: 0, lr: 0.01}
policies:
  - {gate: {instance_name: l0}}
  - batchnorm: {batches: 2, at: end}
"""


def test_it_is_the_folded_network_where_gates_are_at_work(run_of: RunOf) -> None:
    # log alpha = 0: the final gate is sigmoid(0) (1.1 + 0.1) - 0.1 = 0.5.
    model = net()
    run = started(run_of, GATED, model)
    for gates in run.events.memory["0.l0"].gate["log_alpha"].values():
        gates.zero_()
    run.epoch(0)
    assert statistics(model) == (about(5 / 4), about(13 / 12))
    assert model[0].weight.tolist() == [[[[1.0]]]]


def test_gates_and_masks_of_one_weight_hold_together(run_of: RunOf) -> None:
    # Dense copies behind a mask of the first filter; half of the second one by its gate.
    model = net(filters=(-1.0, 2.0))
    text = GATED.replace("policies:\n", "policies:\n" + PRUNED.format(args="use_double_copies: true"))
    run = started(run_of, text, model)
    for gates in run.events.memory["1.l0"].gate["log_alpha"].values():
        gates.zero_()
    run.epoch(0)
    assert statistics(model) == (about(0, 5 / 2), about(0, 13 / 3))
    assert model[0].weight.flatten().tolist() == [-1.0, 2.0]


def test_nothing_but_the_statistics_changes(run_of: RunOf) -> None:
    model = net(nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), filters=(1.0, 2.0))
    model[4].eval()
    model[5].eval()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    before, random = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    batches = copy.deepcopy(BATCHES)
    modes = [module.training for module in model.modules()]
    started(run_of, schedule(), model, batches).begin(0)
    after = model.state_dict()
    own = {f"{layer}.{name}" for layer in (1, 5) for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert {name for name in after if not torch.equal(after[name], before[name])} == own
    assert torch.equal(torch.random.get_rng_state(), random)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(p.grad, torch.full_like(p, 3.0)) for p in model.parameters())
    assert difference(batches, BATCHES) is None
    assert all(not module._forward_hooks for module in model.modules())


def test_modes_and_momenta_are_restored_where_the_network_fails(run_of: RunOf) -> None:
    model = net()
    model[0].eval()
    run = started(run_of, schedule(), model, [BATCHES[0], (torch.zeros(1, 2, 2, 2), torch.tensor([0]))])
    with pytest.raises(RuntimeError, match="channels"):
        run.begin(0)
    assert model[1].momentum == 0.1
    assert [module.training for module in model] == [False, *[True] * (len(model) - 1)]


def test_reestimating_twice_is_reestimating_once() -> None:
    model = net(nn.ReLU(), nn.BatchNorm2d(1)).eval()
    images = [images for images, _ in BATCHES]
    reestimate(model, images)
    first = copy.deepcopy(model.state_dict())
    reestimate(model, images)
    assert difference(dict(model.state_dict()), dict(first)) is None
    reestimate(model, images[::-1])
    torch.testing.assert_close(dict(model.state_dict()), dict(first))


# --- in a run ---------------------------------------------------------------------------------------------------------


def images(seed: int) -> list[Batch]:
    draws = torch.Generator().manual_seed(seed)
    return [(torch.randn(6, 1, 3, 3, generator=draws), torch.arange(6) % 2) for _ in range(3)]


@pytest.mark.parametrize("at", ["begin", "end"])
def test_averages_take_the_new_statistics_over(at: str) -> None:
    # At the end, what is evaluated has the statistics of the last weights; at the begin they are where averaging
    # begins again: 3 steps later d^3 of them is left, weighed as all that came before.
    decay, epochs = 0.9, 2
    torch.manual_seed(0)
    model = net(nn.ReLU(), filters=(1.0, 2.0), eps=1e-5)
    text = schedule(f"batches: 2, at: {at}", f", epochs: [{epochs - 1}]")
    run = Loop(model, images(1), text, epochs=epochs, optimizer={"lr": 0.3}, ema={"decay": decay})
    seen: list[Tensor] = []
    model.register_forward_hook(lambda module, given, out: seen.append(module[1].running_mean.clone()))
    run.run()
    averaged = run.at((epochs, 0))["model"]["1.running_mean"]
    if at == "end":
        fresh = copy.deepcopy(model).eval()
        reestimate(fresh, [images for images, _ in images(1)[:2]])
        torch.testing.assert_close(averaged, fresh[1].running_mean)
        torch.testing.assert_close(averaged, model[1].running_mean)
        torch.testing.assert_close(run.at((epochs, 0))["model"]["1.running_var"], model[1].running_var)
        assert not torch.allclose(averaged, run.at((1, 0))["model"]["1.running_mean"])
        return
    # Forward passes: 3 steps, validation, a look at 2 batches, 3 steps, validation.
    trained = [value for value in seen if not torch.equal(value, seen[-1])]
    start, steps = trained[-4], trained[-3:]
    expected, weight = start * (1 - decay**3), 1 - decay**3
    for value in steps:
        expected, weight = decay * expected + (1 - decay) * value, decay * weight + 1 - decay
    torch.testing.assert_close(averaged, expected / weight)


SUMS = [
    (torch.tensor([1.0, 1, 3, 3]).reshape(4, 1, 1, 1), torch.tensor([0, 0, 1, 1])),
]
"""One pixel, 1 in images of one class and 3 in those of the other."""


def summing() -> nn.Sequential:
    """Four copies of the pixel are added: 4 or 12, of mean 8 and deviation 4, become -1 or 1 and the classes' logits.

    With half of the copies it is 2 or 6: by the old statistics -1.5 or -0.5, by their own -1 or 1.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 4, 1, bias=False), nn.Conv2d(4, 1, 1, bias=False), nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(1, 2)
    )
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[1].weight.fill_(1.0)
        model[4].weight.copy_(torch.tensor([[-1.0], [1.0]]))
        model[4].bias.zero_()
    model[2].running_mean.fill_(8.0)
    model[2].running_var.fill_(16.0)
    return model


def accuracy(model: nn.Module) -> float:
    model.eval()
    [(pixels, labels)] = SUMS
    with torch.no_grad():
        return float((model(pixels).argmax(1) == labels).double().mean())


@pytest.mark.parametrize(("above", "below", "expected"), [(True, False, 1.0), (False, False, 0.5), (False, True, 0.5)])
def test_what_pruning_took_comes_back_where_it_stands_below_the_pruner(
    run_of: RunOf, above: bool, below: bool, expected: float
) -> None:
    pruner, norms = PRUNED.format(args=""), "  - {batchnorm: {batches: 2}, epochs: [0]}\n"
    model = summing()
    assert accuracy(model) == 1.0
    policies = norms * below + pruner + norms * above
    started(run_of, f"version: 2\npolicies:\n{policies}", model, SUMS).begin(0)
    assert model[0].weight.flatten().tolist() == [0, 0, 1, 1]
    assert accuracy(model) == expected
