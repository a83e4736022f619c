"""Iterative hard thresholding: the projection, its exact count, recovery; and how it is dense-sparse-dense."""

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import difference
from loop import Loop, is_plus_zero, notes_of, random_batches
from torch import Tensor, nn

from compressor.errors import CompressError

MOMENTUM = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05}
STEPS = 3


def policy(name: str, window: str = "", **arguments: Any) -> str:
    given = {"weights": "'*'", "sparsity": 0.37, **arguments}
    fields = ", ".join(f"{key}: {value}" for key, value in given.items())
    return f"version: 2\npolicies:\n  - {{{name}: {{{fields}}}{window}}}\n"


def iht(sparse: int = 1, dense: int = 1, window: str = "", **more: Any) -> str:
    return policy("iht", window, sparse_epochs=sparse, dense_epochs=dense, **more)


def dsd(dense: int, sparse: int, redense: int, window: str = "", **more: Any) -> str:
    return policy("dsd", window, dense_epochs=dense, sparse_epochs=sparse, redense_epochs=redense, **more)


def mlp(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(OrderedDict(fc1=nn.Linear(3, 7), act=nn.Tanh(), fc2=nn.Linear(7, 3)))


def train(text: str | None, epochs: int = 3, model: nn.Module | None = None, **settings: Any) -> Loop:
    settings = {"optimizer": MOMENTUM, **settings}
    return Loop(model or mlp(), random_batches([5] * STEPS), text, epochs=epochs, **settings).run()


@pytest.mark.parametrize("sparsity", [0.05, 0.37, 0.5, 0.99, 1.0])
def test_exactly_k_weights_are_left_though_all_are_equally_large(sparsity: float) -> None:
    model = mlp()
    with torch.no_grad():
        for name in ("fc1.weight", "fc2.weight"):
            signs = torch.tensor([1.0, -1.0]).repeat(11)[:21]
            model.get_parameter(name).copy_((0.5 * signs).reshape(model.get_parameter(name).shape))
    run = train(iht(sparsity=sparsity), model=model)
    gone = math.floor(sparsity * 21)
    for name in ("fc1.weight", "fc2.weight"):
        assert (run.forwards[0][name].flatten() == 0).tolist() == [True] * gone + [False] * (21 - gone)
        for step in range(STEPS):
            assert int((run.after[step][name] != 0).sum()) == 21 - gone


def test_the_projection_is_no_farther_than_any_other_matrix_of_k_weights() -> None:
    begin = mlp().fc1.weight.detach().clone()
    projected = train(iht(sparsity=0.7)).forwards[0]["fc1.weight"]
    k = 21 - math.floor(0.7 * 21)
    distance, draws = float((begin - projected).norm()), torch.Generator().manual_seed(3)
    assert int((projected != 0).sum()) == k
    for number in range(1000):
        support = torch.randperm(21, generator=draws)[:k]
        other = torch.zeros(21)
        # Its own values on a random support are the best that this support can do; else any values.
        other[support] = begin.flatten()[support] if number % 2 else torch.randn(k, generator=draws)
        assert distance <= float((begin.flatten() - other).norm()) + 1e-6


def test_where_k_is_all_of_them_nothing_happens() -> None:
    optimizer = {"lr": 0.1, "weight_decay": 0.05}  # no momentum, which every switch clears
    kept = train(iht(sparsity=0, lr_scales="{sparse: 1, dense: 1}"), optimizer=optimizer)
    assert difference(kept.after, train(None, optimizer=optimizer).after) is None


@pytest.mark.parametrize("optimizer", [MOMENTUM, {"name": "adam", "lr": 0.05, "weight_decay": 0.05}])
def test_zeros_are_exact_in_sparse_phases_and_chosen_anew_in_each(optimizer: dict[str, Any]) -> None:
    run = train(iht(1, 2, cycles=2, lr_scales="{sparse: 0.1, dense: 3}"), epochs=7, optimizer=optimizer)
    supports = []
    for epoch in range(7):
        gone = [after["fc1.weight"] == 0 for after in run.after[STEPS * epoch : STEPS * (epoch + 1)]]
        if epoch % 3 == 0:
            assert all(torch.equal(each, gone[0]) for each in gone)
            assert is_plus_zero(run.after[STEPS * epoch]["fc1.weight"][gone[0]])
            assert int(gone[0].sum()) == math.floor(0.37 * 21)
            supports.append(gone[0].flatten().tolist())
        else:
            assert not gone[-1].any()
    assert len({tuple(support) for support in supports}) > 1


@pytest.mark.parametrize(("end", "zeros"), [("sparse", 7), ("dense", 0)])
def test_what_the_last_phase_is_is_shipped(end: str, zeros: int) -> None:
    run = train(iht(end=end), epochs=5)
    for name in ("fc1.weight", "fc2.weight"):
        assert int((run.at((5, 0))["model"][name] == 0).sum()) == zeros


def test_a_planted_support_is_recovered_on_least_squares(run_of: Callable[..., Any]) -> None:
    # 80 Gaussian measurements of 100 numbers, 8 of them not 0; one gradient step a phase: thresholded gradient descent.
    draws = torch.Generator().manual_seed(0)
    a = torch.randn(80, 100, generator=draws, dtype=torch.float64) / math.sqrt(80)
    planted = torch.zeros(100, dtype=torch.float64)
    planted[torch.randperm(100, generator=draws)[:8]] = torch.randn(8, generator=draws, dtype=torch.float64).sign() * 2
    model = nn.Linear(100, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    cycles = 150
    text = iht(1, 1, sparsity=0.92, cycles=cycles, lr_scales="{sparse: 1, dense: 1}")
    run = run_of(text, model, epochs=2 * cycles + 1, lr=0.4)
    for epoch in range(2 * cycles + 1):
        with run.session.epoch(epoch), run.session.step() as step:
            step.backward(((a @ model.weight[0] - a @ planted) ** 2).sum() / 2)
    found: Tensor = model.weight.detach()[0]
    assert torch.equal(found != 0, planted != 0)
    torch.testing.assert_close(found, planted, rtol=1e-4, atol=1e-4)


SCALES = {"dsd": "{sparse: 0.2, redense: 0.5}", "iht": "{sparse: 0.2, dense: 0.5}"}


@pytest.mark.parametrize("pretrained", [0, 2])
@pytest.mark.parametrize("optimizer", [MOMENTUM, {"name": "adam", "lr": 0.05, "weight_decay": 0.05}])
def test_dense_sparse_dense_is_one_cycle_whose_dense_phase_is_last(pretrained: int, optimizer: dict[str, Any]) -> None:
    # Where the start is pretrained, that training is the first dense phase.
    one = train(dsd(pretrained, 2, 2, lr_scales=SCALES["dsd"]), epochs=pretrained + 4, optimizer=optimizer)
    window = f", starting_epoch: {pretrained}"
    other = train(iht(2, 2, window, end="dense", lr_scales=SCALES["iht"]), epochs=pretrained + 4, optimizer=optimizer)
    assert difference(one.after, other.after) is None


def notes(text: str, epochs: int) -> list[str]:
    return notes_of(text, mlp(), epochs)


@pytest.mark.parametrize("text", [dsd(2, 2, 2), iht(2, 2), dsd(1, 2, 2, ", starting_epoch: 1")])
def test_phases_that_do_not_fit_the_run_are_said(text: str) -> None:
    assert notes(text, 6) == []
    (note,) = notes(text, 5)
    assert "warning" in note
    assert "its phases end with epoch 5" in note
    assert "epoch 4" in note


def test_phases_that_do_not_fit_the_window_are_said() -> None:
    (note,) = notes(dsd(2, 2, 2, ", ending_epoch: 4"), 8)
    assert "its phases end with epoch 5, its window with epoch 3" in note


@pytest.mark.parametrize("text", [dsd(2, 2, 2), iht(2, 2)], ids=["dsd", "iht"])
def test_a_run_that_goes_on_behind_the_phases_at_the_full_rate_is_said(text: str) -> None:
    # The last phase's lr scale ends with it: epochs 6 to 9 train at ten times the rate.
    assert any("warning" in note for note in notes(text, 10))


MISSED = [", starting_step: 0, ending_step: 12", ", epochs: [0, 4]", ", starting_epoch: 0, frequency: 4"]


@pytest.mark.parametrize("window", MISSED)
def test_a_window_in_which_phases_are_missed_is_refused_or_said(window: str) -> None:
    try:
        said = notes(dsd(1, 1, 1, window), 6)
    except (CompressError, ValueError) as error:
        said = [str(error)]
    assert said, "phases are skipped without a word"
