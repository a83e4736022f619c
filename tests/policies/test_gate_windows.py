"""When gates act, what their window's end leaves, and that a resumed run is the same one."""

from collections import OrderedDict
from typing import Any

import pytest
import torch
from helpers import difference
from loop import Loop, Values, is_plus_zero, random_batches, read, reread
from torch import Tensor, nn

from compressor.errors import UserError

OPTIMIZER = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05}
EMA = {"ema": {"decay": 0.8}}
OWNER = "0.l0"


def schedule(weights: str, structure: str = "Elements", window: str = "", strength: float = 2.0, more: str = "") -> str:
    gate = f"class: HardConcreteL0, lambda: {strength}, lr: 0.5, structure: {structure}, weights: {weights}{more}"
    return f"version: 2\ngates:\n  l0: {{{gate}}}\npolicies:\n  - {{gate: {{instance_name: l0}}{window}}}\n"


def mlp(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(OrderedDict(fc1=nn.Linear(3, 6), act=nn.Tanh(), drop=nn.Dropout(0.2), fc2=nn.Linear(6, 3)))


def gates(run: Loop) -> Any:
    return run.session.events.memory[OWNER].installed


def locations(state: dict[str, Any]) -> Values:
    """log_alpha in a checkpoint."""
    found: Values = state["state"]["policies"][OWNER]["gate"]["log_alpha"]
    return found


def final(log_alpha: Tensor) -> Tensor:
    return torch.clamp(1.2 * torch.sigmoid(log_alpha) - 0.1, 0, 1)


FC1 = schedule("fc1.weight", window=", starting_epoch: 1, ending_epoch: 2", strength=0.5)


def spread(run: Loop) -> None:
    """Gates from closed to open."""
    gates(run).load({"log_alpha": {"fc1.weight": torch.linspace(-4, 4, 18).reshape(6, 3)}})


def test_at_the_windows_end_weights_are_what_they_are_folded_to_and_zeros_stay() -> None:
    run = Loop(mlp(), random_batches([5] * 4), FC1, epochs=4, optimizer=OPTIMIZER)
    spread(run)
    run.run()
    expected = run.after[7]["fc1.weight"] * final(locations(run.at((1, 4)))["fc1.weight"])
    closed = expected == 0
    assert 0 < int(closed.sum()) < closed.numel()
    torch.testing.assert_close(run.at((2, 0))["model"]["fc1.weight"], expected)
    torch.testing.assert_close(run.forwards[8]["fc1.weight"], expected)
    for after in run.after[8:]:
        assert is_plus_zero(after["fc1.weight"][closed])
        assert (after["fc1.weight"][~closed] != 0).all()
    assert difference(run.forwards[9], run.after[8]) is None  # nothing stands in the weights' place any more
    assert difference(locations(run.at((4, 0))), locations(run.at((2, 0)))) is None


@pytest.mark.parametrize("last", [True, False])
def test_a_window_in_steps_ends_after_its_last_step(last: bool) -> None:
    text = schedule("fc1.weight", window=f", starting_step: 2, ending_step: {8 if last else 6}")
    run = Loop(mlp(), random_batches([5] * 4), text, epochs=2, optimizer=OPTIMIZER).run()
    moments = [(0, 2), (0, 3), (0, 4), (1, 1), (1, 2), (1, 3)]
    substituted = [difference(run.forwards[i + 1], run.after[i]) is not None for i in range(7)]
    assert substituted == [False, True, True, True, True, last, last]
    assert all(difference(run.at(m)["state"]["policies"][OWNER]["active"], a) is None
               for m, a in zip(moments, [False, True, True, True, last, last], strict=True))  # fmt: skip


def test_before_its_window_a_gate_changes_no_bit() -> None:
    gated = Loop(mlp(), random_batches([5] * 4), FC1, epochs=1, optimizer=OPTIMIZER).run()
    without = Loop(mlp(), random_batches([5] * 4), epochs=1, optimizer=OPTIMIZER).run()
    assert difference(gated.after, without.after) is None


def test_the_weights_decay_before_and_after_the_window_and_not_in_it() -> None:
    # Images of nothing but 0: the weights have no gradient, the gates neither.
    batch = (torch.zeros(4, 3), torch.tensor([0, 1, 2, 0]))
    torch.manual_seed(0)
    layer = nn.Sequential(OrderedDict(fc1=nn.Linear(3, 3)))
    begin = layer.fc1.weight.detach().clone()
    text = schedule("fc1.weight", window=", starting_epoch: 1, ending_epoch: 2", strength=0)
    run = Loop(layer, [batch] * 2, text, epochs=3, optimizer={"lr": 0.1, "weight_decay": 0.5}).run()
    z = final(locations(run.at((3, 0)))["fc1.weight"])
    expected = [begin * 0.95, begin * 0.95**2, begin * 0.95**2, begin * 0.95**2]
    expected += [z * begin * 0.95**3, z * begin * 0.95**4]
    for after, weight in zip(run.after, expected, strict=True):
        torch.testing.assert_close(after["fc1.weight"], weight)
    assert difference(locations(run.at((1, 0))), locations(run.at((3, 0)))) is None


@pytest.mark.parametrize("moment", [(0, 2), (1, 0), (1, 1), (1, 3), (2, 0), (2, 2)])
def test_a_run_resumed_with_averages_ends_in_the_same_bits(moment: tuple[int, int]) -> None:
    text = schedule("'fc*.weight'", "Cols", window=", starting_epoch: 1, ending_epoch: 2", more=", l2: 0.01")
    whole = Loop(mlp(), random_batches([5] * 3), text, epochs=3, optimizer=OPTIMIZER, **EMA).run()
    again = Loop(mlp(5), random_batches([5] * 3), text, epochs=3, optimizer=OPTIMIZER, seed=5, **EMA)
    again.resume(whole.at(moment))
    assert difference(again.at((3, 0)), whole.at((3, 0))) is None
    assert again.lines == whole.lines[moment[0] :]


def test_control_a_run_that_lost_its_gates_ends_in_other_bits() -> None:
    whole = Loop(mlp(), random_batches([5] * 3), FC1, epochs=3, optimizer=OPTIMIZER).run()
    snapshot, again = whole.at((1, 1)), Loop(mlp(5), random_batches([5] * 3), FC1, epochs=3, optimizer=OPTIMIZER)
    log_alpha = snapshot["state"]["policies"][OWNER]["gate"]["log_alpha"]
    log_alpha["fc1.weight"] = log_alpha["fc1.weight"] + 0.1
    assert difference(again.resume(snapshot).at((3, 0))["model"], whole.at((3, 0))["model"]) is not None


@pytest.mark.parametrize("window", [", epochs: [0, 2]", ", frequency: 2", ", ending_step: 6, step_frequency: 2"])
def test_a_window_with_a_break_is_refused(window: str) -> None:
    with pytest.raises(UserError, match=r"s\.yaml:5:.*without a break"):
        read(schedule("fc1.weight", window=window))


def test_a_weight_that_is_0_behind_an_open_gate_is_not_masked_at_the_windows_end() -> None:
    # Dead units are real: their weights, or the betas of a batch norm, may be 0 while their gate is open.
    batch = (torch.zeros(4, 3), torch.tensor([0, 1, 2, 0]))
    torch.manual_seed(0)
    layer = nn.Sequential(OrderedDict(fc1=nn.Linear(3, 3)))
    nn.init.zeros_(layer.fc1.weight)
    text = schedule("fc1.weight", window=", ending_epoch: 1", strength=0)
    run = Loop(layer, lambda epoch: [batch] if epoch == 0 else random_batches([4]), text, epochs=3).run()
    assert (locations(run.at((3, 0)))["fc1.weight"] > -1).all()  # 0.5 +- 0.01: open
    assert (run.after[-1]["fc1.weight"] != 0).all()


@pytest.mark.parametrize(("second", "decays"), [(2, [1, 0.95, 1, 0.95]), (0, [1, 0.95, 0.95, 0.95])])
def test_weights_that_two_policies_gate_decay_behind_both(second: int, decays: list[float]) -> None:
    # Images of nothing but 0: weight decay alone moves the weights.
    batch = (torch.zeros(4, 3), torch.tensor([0, 1, 2, 0]))
    text = schedule("fc1.weight", window=", ending_epoch: 1", strength=0)
    text += f"  - {{gate: {{instance_name: l0}}, starting_epoch: {second}, ending_epoch: {second + 1}}}\n"
    run = Loop(mlp(), [batch] * 2, text, epochs=4, optimizer={"lr": 0.1, "weight_decay": 0.5}).run()
    # Of every epoch its second step, which no window's end is in.
    factors = [run.after[2 * epoch + 1]["fc1.weight"] / run.after[2 * epoch]["fc1.weight"] for epoch in range(4)]
    assert [float(factor.mean()) for factor in factors] == pytest.approx(decays)


def test_right_behind_the_window_the_average_is_of_folded_weights_too() -> None:
    # With a long memory and tiny steps what is shipped must not jump from theta * z to theta, for no weight moved.
    text = schedule("fc1.weight", window=", ending_epoch: 1", strength=0).replace("lr: 0.5", "lr: 1e-9")
    run = Loop(mlp(), random_batches([5] * 4), text, epochs=2, optimizer={"lr": 1e-9}, ema={"decay": 0.99}).run()
    before, behind = (run.at((epoch, 0))["model"]["fc1.weight"] for epoch in (1, 2))
    torch.testing.assert_close(behind, before, rtol=1e-3, atol=1e-4)


def test_best_pt_is_no_network_from_before_the_gates_have_closed() -> None:
    # schedule-grammar.md, section 2: the best among epochs at or after the last pruning event, here the window's end.
    text = schedule("'fc*.weight'", window=", ending_epoch: 3", strength=80)
    run = Loop(mlp(), random_batches([5] * 4), text, epochs=4, optimizer={"lr": 0.1}).run()
    sparsities = [line["sparsity"] for line in run.lines]
    assert sparsities[0] < 0.5 < sparsities[2] == sparsities[3]
    assert reread(run.best)["state"]["progress"]["best_epoch"] >= 2
