"""Averages of the weights: the bias-corrected formula by hand, where they count, and that training does not notice."""

from typing import Any

import pytest
import torch
from helpers import difference
from loop import Loop, Values, is_plus_zero, random_batches, reread
from torch import Tensor, nn

OPTIMIZER = {"lr": 0.2, "momentum": 0.9, "weight_decay": 0.05}
HALF = """\
policies:
  - pruner: {{class: SparsityLevelParameterPruner, levels: {{0.weight: 0.5}}, args: {{{args}}}}}
    epochs: [{epochs}]
"""


def half(epochs: str = "0", args: str = "") -> str:
    """6 of the 12 weights of 0.weight are pruned at the begin of these epochs."""
    return HALF.format(epochs=epochs, args=args)


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.3), nn.Tanh(), nn.Linear(4, 3))


def averaged(after: list[Values], decay: float) -> Values:
    """sum over steps of (1 - d) d^(t - i) w_i, divided by 1 - d^t, in double precision."""
    t = len(after)
    total = {name: torch.zeros_like(w).double() for name, w in after[0].items()}
    for i, weights in enumerate(after, start=1):
        for name, w in weights.items():
            total[name] += (1 - decay) * decay ** (t - i) * w.double()
    return {name: w / (1 - decay**t) for name, w in total.items()}


def test_the_average_of_three_steps_by_hand() -> None:
    # d = 1/2: (w1 / 8 + w2 / 4 + w3 / 2) / (7 / 8) = (w1 + 2 w2 + 4 w3) / 7
    run = Loop(net(), random_batches([5] * 3), ema={"decay": 0.5}).run()
    one, two, three = run.after
    for name, average in run.at((1, 0))["model"].items():
        assert torch.allclose(average, (one[name] + 2 * two[name] + 4 * three[name]) / 7, rtol=1e-5, atol=1e-7)
        assert not torch.allclose(average, three[name], atol=1e-4)


def test_after_the_first_step_the_average_is_the_weight() -> None:
    run = Loop(net(), random_batches([5] * 3), ema={"decay": 0.999}).run()
    for name, average in run.at((0, 1))["model"].items():
        assert torch.allclose(average, run.after[0][name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("decay", [0.01, 0.9, 0.999])
def test_the_average_over_several_epochs_by_hand(decay: float) -> None:
    run = Loop(net(), random_batches([5] * 4), ema={"decay": decay}, epochs=3, optimizer=OPTIMIZER).run()
    expected = averaged(run.after, decay)
    assert all(
        torch.allclose(average.double(), expected[name], rtol=1e-4, atol=2e-6)
        for name, average in run.at((3, 0))["model"].items()
    )


@pytest.mark.parametrize("schedule", [None, half(), half("0, 1", "use_double_copies: true")])
def test_training_goes_on_from_the_live_weights_as_if_nothing_were_averaged(schedule: str | None) -> None:
    settings: dict[str, Any] = {"epochs": 3, "optimizer": OPTIMIZER}
    with_average = Loop(net(), random_batches([5] * 3), schedule, ema={"decay": 0.8}, **settings).run()
    plain = Loop(net(), random_batches([5] * 3), schedule, **settings).run()
    assert difference(with_average.after, plain.after) is None
    assert difference(with_average.forwards, plain.forwards) is None
    assert [line["train"] for line in with_average.lines] == [line["train"] for line in plain.lines]
    assert [line["val"] for line in with_average.lines] != [line["val"] for line in plain.lines]


def test_validation_checkpoints_and_best_pt_have_the_average() -> None:
    validation = random_batches([50], seed=1)
    settings: dict[str, Any] = {"epochs": 3, "optimizer": OPTIMIZER, "best": "last", "validation": validation}
    run = Loop(net(), random_batches([5] * 3), ema={"decay": 0.8}, **settings).run()
    for epoch in range(3):
        expected = averaged(run.after[: 3 * epoch + 3], 0.8)
        saved = run.at((epoch + 1, 0))["model"]
        assert all(torch.allclose(saved[name].double(), w, rtol=1e-4, atol=2e-6) for name, w in expected.items())
        assert difference(dict(run.evaluated[epoch]), dict(saved)) is None
    assert difference(dict(reread(run.best)["model"]), dict(run.at((3, 0))["model"])) is None
    other = net()
    other.load_state_dict(reread(run.best)["model"])
    with torch.no_grad():
        loss = nn.functional.cross_entropy(other.eval()(validation[0][0]), validation[0][1])
    assert run.lines[-1]["val"]["loss"] == pytest.approx(float(loss), rel=1e-5)


@pytest.mark.parametrize("optimizer", [OPTIMIZER, {"name": "adam", "lr": 0.1, "weight_decay": 0.05}])
@pytest.mark.parametrize("args", ["", "mask_on_forward_only: true", "use_double_copies: true"])
def test_the_averages_of_masked_weights_are_plus_zero(args: str, optimizer: dict[str, Any]) -> None:
    # Pruned in epochs 1 and 2 only: in epoch 0 there is something to average that then must be gone.
    run = Loop(net(), random_batches([5] * 3), half("1, 2", args), ema={"decay": 0.8}, epochs=3, optimizer=optimizer)
    run.run()
    assert all((run.at((0, step))["model"]["0.weight"] != 0).all() for step in (1, 2, 3))
    for moment in [(1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]:
        saved, state = run.at(moment)["model"]["0.weight"], run.at(moment)["state"]
        (masks,) = state["masks"]["owned"].values()
        pruned = masks["0.weight"] == 0
        assert int(pruned.sum()) == 6
        assert is_plus_zero(saved[pruned])
        assert (saved[~pruned] != 0).all()
        if not args:
            assert is_plus_zero(state["averages"]["average"]["0.weight"][pruned])
    assert run.lines[1]["sparsity"] == pytest.approx(6 / 24)


def test_kept_weights_are_averaged_as_without_masks() -> None:
    run = Loop(net(), random_batches([5] * 3), half(), ema={"decay": 0.8}, epochs=2, optimizer=OPTIMIZER).run()
    expected = averaged(run.after, 0.8)
    saved = run.at((2, 0))["model"]
    assert all(torch.allclose(saved[name].double(), w, rtol=1e-4, atol=2e-6) for name, w in expected.items())


def test_running_statistics_are_averaged_and_whole_numbers_are_not() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    means: list[Tensor] = []
    # As the layer's output is made its statistics are those after this batch.
    model[1].register_forward_hook(
        lambda layer, inputs, output: means.append(layer.running_mean.clone()) if layer.training else None
    )
    run = Loop(model, random_batches([5] * 3), ema={"decay": 0.5}).run()
    saved = run.at((1, 0))["model"]
    one, two, three = means
    assert torch.allclose(saved["1.running_mean"], (one + 2 * two + 4 * three) / 7, atol=1e-6)
    assert not torch.allclose(saved["1.running_mean"], three, atol=1e-4)
    assert int(saved["1.num_batches_tracked"]) == 3
    assert torch.equal(model[1].running_mean, three)


@pytest.mark.parametrize("moment", [(0, 2), (1, 0), (1, 1), (2, 3)])
@pytest.mark.parametrize("schedule", [None, half("1"), half("1", "use_double_copies: true, keep_mask: true")])
def test_a_run_resumed_with_averages_ends_in_the_same_bits(schedule: str | None, moment: tuple[int, int]) -> None:
    settings: dict[str, Any] = {"epochs": 3, "optimizer": OPTIMIZER, "ema": {"decay": 0.8}}
    whole = Loop(net(), random_batches([5] * 3), schedule, **settings).run()
    again = Loop(net(5), random_batches([5] * 3), schedule, seed=5, **settings).resume(whole.at(moment))
    assert difference(again.at((3, 0)), whole.at((3, 0))) is None
    assert again.lines == whole.lines[moment[0] :]


def test_control_a_run_that_lost_its_averages_ends_in_other_ones() -> None:
    settings: dict[str, Any] = {"epochs": 2, "optimizer": OPTIMIZER, "ema": {"decay": 0.8}}
    whole = Loop(net(), random_batches([5] * 3), **settings).run()
    snapshot, other = whole.at((0, 2)), Loop(net(5), random_batches([5] * 3), seed=5, **settings)
    snapshot["state"]["averages"] = whole.at((0, 1))["state"]["averages"]
    other.resume(snapshot)
    assert difference(other.after[-1], whole.after[-1]) is None
    assert difference(other.at((2, 0))["model"], whole.at((2, 0))["model"]) is not None
