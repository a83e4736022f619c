"""What masked weights do between two steps, in each mode, worked by hand on one layer of four weights.

The layer is `x -> W x` with the logits of two classes; every batch is the one image x = (1, 2) of class 0, so that the
gradient is (softmax(W x) - (1, 0)) x^T. Half of the four weights are pruned, those of the smallest magnitude.
"""

import math
from typing import Any

import pytest
import torch
from helpers import difference
from loop import Loop, is_plus_zero
from torch import Tensor, nn

from compressor.errors import UserError
from compressor.reports.report import measure

Matrix = list[list[float]]

W0: Matrix = [[0.4, -0.1], [0.3, 0.2]]
X = (1.0, 2.0)
LR = 0.5
FIRST: Matrix = [[1, 0], [1, 0]]
"""The mask of W0: 0.1 and 0.2 go."""
NONE: Matrix = [[1, 1], [1, 1]]


def gradient(w: Matrix) -> Matrix:
    """dL/dW at w."""
    powers = [math.exp(row[0] * X[0] + row[1] * X[1]) for row in w]
    shares = [power / sum(powers) for power in powers]
    return [[(share - (i == 0)) * x for x in X] for i, share in enumerate(shares)]


def times(w: Matrix, t: Matrix) -> Matrix:
    return [[a * b for a, b in zip(u, v, strict=True)] for u, v in zip(w, t, strict=True)]


def less(w: Matrix, g: Matrix, lr: float = LR) -> Matrix:
    return [[a - lr * b for a, b in zip(u, v, strict=True)] for u, v in zip(w, g, strict=True)]


def plus(w: Matrix, g: Matrix) -> Matrix:
    return less(w, g, -1)


def half(w: Matrix) -> Matrix:
    """The mask that drops the two smallest magnitudes; ties, of which these gradients make many, by index."""
    order = sorted((round(abs(w[i][j]), 6), i, j) for i in (0, 1) for j in (0, 1))
    gone = {(i, j) for _, i, j in order[:2]}
    return [[float((i, j) not in gone) for j in (0, 1)] for i in (0, 1)]


def layer(values: Matrix = W0) -> nn.Linear:
    model = nn.Linear(2, 2, bias=False)
    model.weight = nn.Parameter(torch.tensor(values))
    return model


def schedule(args: str = "", window: str = "epochs: [0]", version: int = 1) -> str:
    return f"""\
version: {version}
policies:
  - pruner: {{class: SparsityLevelParameterPruner, levels: {{weight: 0.5}}, args: {{{args}}}}}
    {window}
"""


def loop(args: str = "", window: str = "epochs: [0]", *, epochs: int = 2, steps: int = 3, **settings: Any) -> Loop:
    image = (torch.tensor([X]), torch.tensor([0]))
    text = schedule(args, window, 2 if "step" in window else 1)
    settings = {"optimizer": {"lr": LR}, "validation": [image], **settings}
    return Loop(settings.pop("model", None) or layer(), [image] * steps, text, epochs=epochs, **settings)


def matrices(states: list[dict[str, Tensor]]) -> list[Matrix]:
    return [state["weight"].tolist() for state in states]


def same(ours: list[Matrix], theirs: list[Matrix]) -> None:
    """Equal to single precision; zeros exactly."""
    assert len(ours) == len(theirs)
    for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        assert one == [pytest.approx(row, rel=1e-5, abs=2e-7) for row in other], index
        assert times(NONE, [[float(v == 0) for v in row] for row in one]) == [[float(v == 0) for v in r] for r in other]


def test_the_mask_and_the_gradient_of_the_first_step_by_pencil() -> None:
    # W0 * T = [[.4, 0], [.3, 0]]; logits .4 and .3; softmax 1 / (1 + e^-.1) = .52498; gradient -+ .47502 (1, 2).
    assert half(W0) == FIRST
    assert gradient(times(W0, FIRST)) == [
        pytest.approx([-0.475021, -0.950042], abs=1e-6),
        pytest.approx([0.475021, 0.950042], abs=1e-6),
    ]


def test_by_default_masked_weights_are_0_after_each_step_and_stay_so_behind_the_window() -> None:
    run = loop().run()
    w, forwards, after = times(W0, FIRST), [], []
    for _ in range(6):
        forwards.append(w)
        w = times(less(w, gradient(w)), FIRST)
        after.append(w)
    same(matrices(run.forwards), forwards)
    same(matrices(run.after), after)
    assert all(is_plus_zero(state["weight"][:, 1]) for state in run.after)


def test_keep_mask_makes_no_difference_where_masks_are_not_forgotten() -> None:
    assert difference(loop("keep_mask: true").run().after, loop().run().after) is None


MOMENTUM = {"lr": LR, "momentum": 0.5, "weight_decay": 0.1}


def test_by_default_the_optimizer_still_hears_of_masked_weights() -> None:
    run = loop(optimizer=MOMENTUM).run()
    w, buffer, after = times(W0, FIRST), None, []
    for _ in range(6):
        g = plus(gradient(w), [[0.1 * v for v in row] for row in w])
        buffer = g if buffer is None else plus(g, [[0.5 * v for v in row] for row in buffer])
        w = times(less(w, buffer), FIRST)
        after.append(w)
    same(matrices(run.after), after)
    remembered = run.at((2, 0))["state"]["optimizer"]["state"][0]["momentum_buffer"]
    assert remembered.tolist() == [pytest.approx(row, rel=1e-5) for row in buffer or []]
    assert (remembered[:, 1] != 0).all()


def test_mask_gradients_gives_masked_weights_no_gradient() -> None:
    run = loop("mask_gradients: true", "epochs: [0, 1]", optimizer=MOMENTUM).run()
    plain = loop("", "epochs: [0, 1]", optimizer=MOMENTUM).run()
    assert difference(run.after, plain.after) is None  # they are zeroed anyway
    remembered = run.at((2, 0))["state"]["optimizer"]["state"][0]["momentum_buffer"]
    assert not remembered[:, 1].any()
    assert remembered[:, 0].all()


def test_mask_gradients_acts_in_the_epochs_of_its_window() -> None:
    run = loop("mask_gradients: true", "epochs: [0]", optimizer=MOMENTUM).run()
    assert not run.at((1, 0))["state"]["optimizer"]["state"][0]["momentum_buffer"][:, 1].any()
    assert all(is_plus_zero(state["weight"][:, 1]) for state in run.after)


def test_forward_only_masked_weights_are_what_the_step_made_of_them_until_the_next_forward() -> None:
    run = loop("mask_on_forward_only: true", "epochs: [0]", epochs=1).run()
    w, forwards, after = W0, [], []
    for _ in range(3):
        seen = times(w, FIRST)
        w = less(seen, gradient(seen))
        forwards.append(seen)
        after.append(w)
    same(matrices(run.forwards), forwards)
    same(matrices(run.after), after)
    # .5 * .95004 = .47502: the pruned weights of row 0 and 1 after the first step
    assert [row[1] for row in after[0]] == pytest.approx([0.475021, -0.475021], abs=1e-6)


def test_forward_only_with_mask_gradients_masked_weights_stay_0() -> None:
    run = loop("mask_on_forward_only: true, mask_gradients: true", "epochs: [0]", epochs=1).run()
    plain = loop(epochs=1).run()
    assert difference(run.after, plain.after) is None


def test_double_copies_are_straight_through() -> None:
    run = loop("use_double_copies: true", "epochs: [0]", epochs=1, steps=4).run()
    dense, forwards, after = W0, [], []
    for _ in range(4):
        seen = times(dense, FIRST)
        dense = less(dense, gradient(seen))
        forwards.append(seen)
        after.append(dense)
    same(matrices(run.forwards), forwards)
    same(matrices(run.after), after)


def test_double_copies_masked_entries_move_by_exactly_the_rate_times_the_gradient_of_the_masked_product() -> None:
    gradients: list[Tensor] = []
    model = layer()
    model.weight.register_post_accumulate_grad_hook(lambda w: gradients.append(w.grad.clone()))
    run = loop("use_double_copies: true", "epochs: [0]", epochs=1, model=model).run()
    before = torch.tensor(W0)
    for g, state, seen in zip(gradients, run.after, run.forwards, strict=True):
        leaf = (before * torch.tensor(FIRST)).requires_grad_()
        nn.functional.cross_entropy(nn.functional.linear(torch.tensor([X]), leaf), torch.tensor([0])).backward()
        assert torch.equal(g, leaf.grad)
        assert torch.equal(state["weight"], before - LR * g)
        assert is_plus_zero(seen["weight"][:, 1])
        assert g[:, 1].all()
        before = state["weight"]


def test_double_copies_with_mask_gradients_the_dense_copy_stays_as_it_was_pruned() -> None:
    run = loop("use_double_copies: true, mask_gradients: true", "epochs: [0]", epochs=1).run()
    for state in run.after:
        assert torch.equal(state["weight"][:, 1], torch.tensor(W0)[:, 1])
        assert (state["weight"][:, 0] != torch.tensor(W0)[:, 0]).all()


def test_double_copies_weight_decay_acts_on_the_dense_copy_too() -> None:
    run = loop("use_double_copies: true", epochs=1, optimizer={"lr": LR, "weight_decay": 0.1}).run()
    dense, after = W0, []
    for _ in range(3):
        g = plus(gradient(times(dense, FIRST)), [[0.1 * v for v in row] for row in dense])
        dense = less(dense, g)
        after.append(dense)
    same(matrices(run.after), after)


def test_double_copies_are_pruned_anew_by_the_dense_weights() -> None:
    # Straight-through the weights of column 1 grow past those of column 0: the mask of epoch 1 is another one.
    run = loop("use_double_copies: true", "epochs: [0, 1]", epochs=2, steps=2).run()
    dense, forwards, after, masks = W0, [], [], []
    for step in range(4):
        if step % 2 == 0:
            masks.append(half(dense))
        forwards.append(times(dense, masks[-1]))
        dense = less(dense, gradient(forwards[-1]))
        after.append(dense)
    assert masks[0] != masks[1]
    same(matrices(run.forwards), forwards)
    same(matrices(run.after), after)


def test_discarded_masks_live_for_one_step_and_the_pruned_weights_grow_from_0() -> None:
    run = loop("discard_masks_at_minibatch_end: true", "epochs: [0]", epochs=1).run()
    w, forwards, after = times(W0, FIRST), [], []
    for step in range(3):
        forwards.append(w)
        w = less(w, gradient(w))
        if step == 0:
            w = times(w, FIRST)
        after.append(w)
    same(matrices(run.forwards), forwards)
    same(matrices(run.after), after)
    assert [int(not t[0][1]) for t in after] == [1, 0, 0]


def test_discarded_masks_are_made_again_at_the_mini_batch_cadence() -> None:
    # Steps 0..5; pruned at the epochs' begins (0 and 3) and at every second step of the run inside them: 2 and 4.
    run = loop("discard_masks_at_minibatch_end: true, mini_batch_pruning_frequency: 2", "epochs: [0, 1]").run()
    w, forwards, after = W0, [], []
    for step in range(6):
        mask = half(w) if step in (0, 2, 3, 4) else NONE
        w = times(w, mask)
        forwards.append(w)
        w = times(less(w, gradient(w)), mask)
        after.append(w)
    same(matrices(run.forwards), forwards)
    same(matrices(run.after), after)


def test_the_mini_batch_cadence_by_hand() -> None:
    # Double copies, every second step of the run: 0 (begin), 2, 3 (begin), 4.
    run = loop("use_double_copies: true, mini_batch_pruning_frequency: 2", "epochs: [0, 1]").run()
    dense, forwards, masks = W0, [], [NONE]
    for step in range(6):
        masks.append(half(dense) if step in (0, 2, 3, 4) else masks[-1])
        forwards.append(times(dense, masks[-1]))
        dense = less(dense, gradient(forwards[-1]))
    same(matrices(run.forwards), forwards)


def test_the_first_minibatch_may_be_skipped() -> None:
    run = loop("skip_first_minibatch: true", "epochs: [0]", epochs=2).run()
    w, mask, forwards, after = W0, NONE, [], []
    for step in range(6):
        if step == 1:
            mask = half(w)
            w = times(w, mask)
        forwards.append(w)
        w = times(less(w, gradient(w)), mask)
        after.append(w)
    assert forwards[0] == W0
    same(matrices(run.forwards), forwards)
    same(matrices(run.after), after)


FORGETFUL = ["mask_on_forward_only", "use_double_copies", "discard_masks_at_minibatch_end"]
forgetful = pytest.mark.parametrize("mode", FORGETFUL)


@pytest.mark.parametrize("mode", [FORGETFUL[0], f"{FORGETFUL[0]}: true, use_double_copies", FORGETFUL[2]])
@pytest.mark.parametrize("window", ["epochs: [0]", "{starting_step: 0, ending_step: 3}"])
def test_without_keep_mask_the_mask_ends_with_the_windows_last_step(mode: str, window: str) -> None:
    window = window.strip("{}").replace(", ", "\n    ")
    run = loop(f"{mode}: true", window).run()
    w = run.after[2]["weight"].tolist()
    assert all(v != 0 for row in w for v in row) or mode == FORGETFUL[2]
    forwards, after = [], []
    for _ in range(3):
        forwards.append(w)
        w = less(w, gradient(w))
        after.append(w)
    same(matrices(run.forwards[3:]), forwards)
    same(matrices(run.after[3:]), after)
    assert (run.at((2, 0))["model"]["weight"] != 0).all()
    assert run.lines[-1]["sparsity"] == 0
    assert run.masks.keep("weight") is None


@pytest.mark.parametrize("window", ["epochs: [0]", "{starting_step: 0, ending_step: 3}"])
def test_double_copies_alone_end_masked(window: str) -> None:
    # Behind the window the mask stays, and the dense copy is trained on, as in Distiller.
    window = window.strip("{}").replace(", ", "\n    ")
    run = loop("use_double_copies: true", window).run()
    dense, mask, forwards, after = W0, FIRST, [], []
    for step in range(6):
        mask = half(dense) if "step" in window and step < 3 else mask
        forwards.append(times(dense, mask))
        dense = less(dense, gradient(forwards[-1]))
        after.append(dense)
    same(matrices(run.forwards), forwards)
    same(matrices(run.after), after)
    shipped = run.at((2, 0))["model"]["weight"]
    assert is_plus_zero(shipped[torch.tensor(mask) == 0])
    assert int((shipped == 0).sum()) == 2
    assert [line["sparsity"] for line in run.lines] == [0.5, 0.5]


@forgetful
@pytest.mark.parametrize("window", ["epochs: [0]", "{starting_step: 0, ending_step: 3}"])
def test_with_keep_mask_the_last_mask_becomes_permanent(mode: str, window: str) -> None:
    window = window.strip("{}").replace(", ", "\n    ")
    run = loop(f"{mode}: true, keep_mask: true", window).run()
    kept = run.masks.keep("weight")
    assert kept is not None
    assert int(kept.sum()) == 2
    assert is_plus_zero(run.after[2]["weight"][~kept])  # from the last step of the window on
    w, mask = run.after[2]["weight"].tolist(), [[float(v) for v in row] for row in kept.tolist()]
    forwards, after = [], []
    for _ in range(3):
        forwards.append(w)
        w = times(less(w, gradient(w)), mask)
        after.append(w)
    same(matrices(run.forwards[3:]), forwards)
    same(matrices(run.after[3:]), after)
    saved = run.at((2, 0))
    assert is_plus_zero(saved["model"]["weight"][~kept])
    assert [line["sparsity"] for line in run.lines] == [0.5, 0.5]
    assert saved["state"]["live"] == {}  # nothing lives behind a mask any more


@forgetful
def test_a_window_that_reaches_to_the_runs_end_keeps_its_mask_in_what_is_saved(mode: str) -> None:
    run = loop(f"{mode}: true, keep_mask: true", "starting_epoch: 0").run()
    assert int((run.at((2, 0))["model"]["weight"] == 0).sum()) == 2
    assert run.lines[-1]["sparsity"] == 0.5


LIVING = ["mask_on_forward_only", "use_double_copies"]
living = pytest.mark.parametrize("mode", LIVING)


@living
def test_inside_the_window_validation_checkpoints_and_reports_see_masked_weights(mode: str) -> None:
    run = loop(f"{mode}: true", "epochs: [0, 2]", epochs=3, test_every_epoch=True).run()
    assert len(run.evaluated) == 6
    for state, test in zip(run.evaluated[::2], run.evaluated[1::2], strict=True):  # validation and test, three times
        zeros = state["weight"] == 0  # a dense copy chooses them again in epoch 2
        assert int(zeros.sum()) == 2
        assert is_plus_zero(state["weight"][zeros])
        assert torch.equal(state["weight"], test["weight"])
    for moment in [(0, 1), (0, 2), (0, 3), (1, 0), (1, 2), (2, 0)]:
        saved = run.at(moment)
        step = 3 * moment[0] + moment[1] - 1
        mask = next(iter(saved["state"]["masks"]["owned"].values()))["weight"] != 0
        assert int(mask.sum()) == 2
        assert torch.equal(saved["model"]["weight"], torch.where(mask, run.after[step]["weight"], 0.0))
        assert is_plus_zero(saved["model"]["weight"][~mask])
        assert torch.equal(saved["state"]["live"]["weight"], run.after[step]["weight"])
        plain = layer()
        plain.load_state_dict(saved["model"])
        assert measure(plain, (1, 1, 2)).totals.sparsity == 0.5
    assert [line["sparsity"] for line in run.lines] == [0.5, 0.5, 0.5]


@living
def test_validation_figures_are_those_of_the_masked_weights(mode: str) -> None:
    run = loop(f"{mode}: true", "epochs: [0, 5]", epochs=6).run()
    for line, state in list(zip(run.lines, run.after[2::3], strict=True))[:5]:
        w = times(state["weight"].tolist(), FIRST)
        loss = math.log(sum(math.exp(row[0] * X[0] + row[1] * X[1]) for row in w)) - w[0][0] * X[0] - w[0][1] * X[1]
        assert line["val"]["loss"] == pytest.approx(loss, rel=1e-4)


@living
def test_training_goes_on_from_the_values_behind_the_mask_after_validation(mode: str) -> None:
    # Without any validation and any checkpoint in between the weights are the same bits.
    quiet = {"checkpoint": {"every_epochs": 100}, "validation": []}
    run, plain = loop(f"{mode}: true", "epochs: [0, 2]", epochs=3).run(), None
    plain = loop(f"{mode}: true", "epochs: [0, 2]", epochs=3, **quiet).run()
    assert list(plain.snapshots) == [(3, 0)]
    assert difference(run.after, plain.after) is None


ARGS = [
    "",
    "mask_gradients: true",
    "skip_first_minibatch: true",
    *[f"{mode}: true{more}" for mode in FORGETFUL for more in ("", ", keep_mask: true", ", mask_gradients: true")],
    *[f"{mode}: true, mini_batch_pruning_frequency: 2" for mode in FORGETFUL],
    "discard_masks_at_minibatch_end: true, keep_mask: true, mini_batch_pruning_frequency: 2",
    "use_double_copies: true, discard_masks_at_minibatch_end: true, keep_mask: true",
    "skip_first_minibatch: true, use_double_copies: true",
]


BY_STEPS = "starting_step: 1\n    ending_step: 6\n    step_frequency: 2"
INSIDE_AN_EPOCH = ("mini_batch_pruning_frequency", "skip_first_minibatch")


@pytest.mark.parametrize("key", INSIDE_AN_EPOCH)
def test_a_window_in_steps_refuses_what_counts_inside_an_epoch(key: str) -> None:
    value = {"mini_batch_pruning_frequency": "2", "skip_first_minibatch": "true"}[key]
    with pytest.raises(UserError, match=key):
        loop(f"{key}: {value}", BY_STEPS)


@pytest.mark.parametrize(
    ("window", "args"),
    [
        *[("epochs: [0, 1]", args) for args in ARGS],
        *[(BY_STEPS, args) for args in ARGS if not any(key in args for key in INSIDE_AN_EPOCH)],
    ],
)
def test_a_run_resumed_at_any_step_ends_in_the_same_bits(window: str, args: str) -> None:
    settings: dict[str, Any] = {"epochs": 3, "optimizer": MOMENTUM}
    whole = loop(args, window, **settings).run()
    end = whole.at((3, 0))
    assert len(whole.snapshots) == 12
    for moment in [moment for moment in whole.snapshots if moment < (3, 0)]:
        other = loop(args, window, model=layer([[9.0, 8.0], [7.0, 6.0]]), seed=5, **settings)
        again = other.resume(whole.at(moment))
        ours = again.at((3, 0))
        assert difference(again.after, whole.after[3 * moment[0] + moment[1] :]) is None, moment
        assert difference(ours["model"], end["model"]) is None, moment
        assert difference(ours["state"]["masks"]["owned"], end["state"]["masks"]["owned"]) is None, moment
        for key in ("optimizer", "policies", "progress", "meters", "rng", "live"):
            assert difference(timeless(ours, key), timeless(end, key)) is None, moment
        assert again.lines == whole.lines[moment[0] :], moment


def timeless(checkpoint: dict[str, Any], key: str) -> Any:
    """One entry of the state, without the seconds that it took."""
    found = checkpoint["state"][key]
    return {name: value for name, value in found.items() if name != "seconds"}


@forgetful
def test_a_run_resumed_behind_the_window_writes_the_same_checkpoint(mode: str) -> None:
    whole = loop(f"{mode}: true", "epochs: [0]").run()
    again = loop(f"{mode}: true", "epochs: [0]", seed=5).resume(whole.at((1, 0)))
    assert difference(again.at((2, 0)), whole.at((2, 0))) is None


@living
def test_control_without_the_values_behind_the_mask_a_resumed_run_ends_elsewhere(mode: str) -> None:
    whole = loop(f"{mode}: true, keep_mask: false", "epochs: [0, 2]", epochs=3).run()
    snapshot = whole.at((0, 3) if mode == LIVING[0] else (0, 2))
    snapshot["state"]["live"] = {}
    again = loop(f"{mode}: true", "epochs: [0, 2]", epochs=3, model=layer()).resume(snapshot)
    found = difference(again.after[-1], whole.after[-1])
    assert (found is None) == (mode == "mask_on_forward_only")  # there the next forward pass zeroes them anyway


def test_two_policies_in_other_modes_on_one_weight_the_stricter_holds() -> None:
    text = """\
policies:
  - pruner: {class: SparsityLevelParameterPruner, levels: {weight: 0.25}}
    epochs: [0]
  - pruner: {class: SparsityLevelParameterPruner, levels: {weight: 0.5}, args: {use_double_copies: true}}
    epochs: [0, 1]
"""
    # 0.1 is pruned for good; 0.2 lives on behind its mask.
    image = (torch.tensor([X]), torch.tensor([0]))
    run = Loop(layer(), [image] * 3, text, epochs=1, optimizer={"lr": LR}).run()
    hard: Matrix = [[1, 0], [1, 1]]
    dense, forwards, after = times(W0, hard), [], []
    for _ in range(3):
        forwards.append(times(dense, FIRST))
        dense = times(less(dense, gradient(forwards[-1])), hard)
        after.append(dense)
    same(matrices(run.forwards), forwards)
    same(matrices(run.after), after)
