"""Network surgery: the hand-stepped trace, the straight-through step, the schedule, what is shipped."""

import math
from collections import OrderedDict
from typing import Any

import pytest
import torch
from helpers import difference
from loop import Loop, Values, is_plus_zero, random_batches, reread
from torch import Tensor, nn
from torch.func import functional_call

from compressor.errors import UserError

OWNER = "0.surgery"


def schedule(window: str = "", **arguments: Any) -> str:
    given = {"weights": "'*'", "c": 0.0, "gamma": 0.0, "stop_step": 1000, **arguments}
    gate = ", ".join(f"{key}: {value}" for key, value in given.items())
    return (
        f"version: 2\ngates:\n  surgery: {{class: NetworkSurgery, {gate}}}\n"
        f"policies:\n  - {{gate: {{instance_name: surgery}}{window}}}\n"
    )


def row(values: list[float], bias: list[float] | None = None) -> nn.Sequential:
    """Two classes; the second one's weights and bias are 0, which the statistics leave out."""
    layer = nn.Linear(len(values), 2, bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([values, [0.0] * len(values)]))
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias))
    return nn.Sequential(OrderedDict(fc=layer))


def mlp(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(OrderedDict(fc1=nn.Linear(3, 6), act=nn.Tanh(), drop=nn.Dropout(0.2), fc2=nn.Linear(6, 3)))


class Surgery:
    """A gate at work without data: its masks after each time that its network is put in place."""

    def __init__(self, model: nn.Module, text: str, steps: int = 50) -> None:
        self.loop = Loop(model, random_batches([2] * steps, 5, 2), text, epochs=2)
        self.gate: Any = self.loop.session.events.memory[OWNER].installed
        self.now = 0

    def step(self) -> Values:
        """The masks (true = kept) after one step."""
        self.loop.session.clock.step = self.now
        self.gate.before_forward()
        self.gate.after_backward()
        self.now += 1
        return {name: mask.bool().clone() for name, mask in self.gate.state()["masks"].items()}


def put(run: Surgery, values: list[float]) -> None:
    with torch.no_grad():
        run.loop.model.get_parameter("fc.weight")[0] = torch.tensor(values)


def test_the_trace_of_five_weights_by_hand() -> None:
    # mean |w| = 1, c = 0: threshold 1; <= .9 is pruned, > 1.1 is kept, between it stays as it was.
    run = Surgery(row([1.0, -1.0, 1.0, -1.0, 1.0]), schedule())
    assert run.step()["fc.weight"][0].tolist() == [True] * 5
    put(run, [0.85, -0.95, 1.05, -1.15, 0.9])  # prune, keep T, keep T, splice, prune (at the bound)
    assert run.step()["fc.weight"][0].tolist() == [False, True, True, True, False]
    put(run, [0.95, -0.85, -0.85, 0.85, 1.05])
    assert run.step()["fc.weight"][0].tolist() == [False, False, False, False, False]
    put(run, [1.15, 1.05, 1.1, -1.15, 0.95])  # splice, keep T, keep T (at the bound), splice, keep T
    assert run.step()["fc.weight"][0].tolist() == [True, False, False, True, False]
    put(run, [0.95, 1.05, -0.95, -1.05, 0.85])
    assert run.step()["fc.weight"][0].tolist() == [True, False, False, True, False]


def test_for_weights_that_do_not_move_the_mask_does_not_move_either() -> None:
    run = Surgery(row([0.2, -0.95, 1.0, -1.3, 2.0]), schedule())
    first = run.step()
    assert all(difference(run.step(), first) is None for _ in range(5))


def test_the_threshold_is_of_the_nonzero_weights_and_biases_with_the_deviation_over_n() -> None:
    # |w| = 1, 2, 3, 4 and |b| = 5: mean 3, std sqrt((4 + 1 + 0 + 1 + 4) / 5) = sqrt 2; the zeros do not count.
    run = Surgery(row([1.0, -2.0, 3.0, -4.0], [-5.0, 0.0]), schedule(c=0.5))
    kept = run.step()
    assert run.gate.state()["thresholds"]["fc.weight"] == pytest.approx(3 + 0.5 * math.sqrt(2))
    # 0.9 * 3.70711 = 3.336
    assert kept["fc.weight"].tolist() == [[False, False, False, True], [False] * 4]
    assert kept["fc.bias"].tolist() == [True, False]


def test_a_negative_c_lowers_the_threshold_to_0_at_the_least() -> None:
    run = Surgery(row([1.0, -2.0, 3.0, -4.0], [-5.0, 0.0]), schedule(c=-1.0))
    run.step()
    assert run.gate.state()["thresholds"]["fc.weight"] == pytest.approx(3 - math.sqrt(2))
    run = Surgery(row([1.0, -2.0, 3.0, -4.0], [-5.0, 0.0]), schedule(c=-3.0))
    kept = run.step()
    assert run.gate.state()["thresholds"]["fc.weight"] == 0
    assert kept["fc.weight"].tolist() == [[True] * 4, [False] * 4]


def test_the_statistics_are_taken_at_the_first_step_of_the_window_alone() -> None:
    run = Loop(mlp(), random_batches([4] * 3), schedule(", starting_epoch: 1"), epochs=3).run()
    threshold = run.at((3, 0))["state"]["policies"][OWNER]["gate"]["thresholds"]["fc1.weight"]
    then = torch.cat([run.after[2][name].flatten() for name in ("fc1.weight", "fc1.bias")]).abs()
    assert threshold == pytest.approx(float(then.mean()))
    assert run.at((0, 3))["state"]["policies"][OWNER]["gate"]["thresholds"]["fc1.weight"] is None


def test_c_and_the_end_are_per_layer() -> None:
    text = schedule(c="{fc1.weight: 0.5, fc2.weight: -0.5}", stop_step="{fc1.weight: 2, fc2.weight: 4}")
    run = Loop(mlp(), random_batches([4] * 6), text, optimizer={"lr": 1.0}).run()
    begin = dict(mlp().named_parameters())
    for name, c in (("fc1", 0.5), ("fc2", -0.5)):
        every = torch.cat([begin[f"{name}.weight"].flatten(), begin[f"{name}.bias"]]).detach().abs()
        expected = float(every.mean()) + c * float(every.std(correction=0))
        found = run.at((1, 0))["state"]["policies"][OWNER]["gate"]["thresholds"][f"{name}.weight"]
        assert found == pytest.approx(expected)
    masks = [run.at((0, step))["state"]["policies"][OWNER]["gate"]["masks"] for step in range(1, 7)]
    changes = {
        name: [difference(masks[i][name], masks[i + 1][name]) is not None for i in range(5)] for name in masks[0]
    }
    assert changes["fc1.weight"] == [True, False, False, False, False]  # steps 0 and 1 operate
    assert changes["fc2.weight"][3:] == [False, False]
    assert any(changes["fc2.weight"][1:3])


@pytest.mark.parametrize("field", ["c", "stop_step"])
def test_a_layer_that_a_mapping_says_nothing_of_is_an_error(field: str) -> None:
    with pytest.raises(UserError, match=rf"`{field}` has no value for fc2\.weight"):
        Loop(mlp(), random_batches([4]), schedule(**{field: "{fc1.weight: 1}"}))


def test_masks_are_recomputed_with_the_decaying_probability() -> None:
    # p(t) = (1 + gamma t)^-power, p(0) = 1; before every step the weights cross to the other side.
    gamma, power, runs, steps = 0.1, 1.5, 300, 25
    operated = torch.zeros(steps)
    one = Surgery(row([1.0, -1.0, 1.0, -1.0, 1.0]), schedule(gamma=gamma, power=power))
    for _ in range(runs):
        one.now, kept = 0, False
        put(one, [1.0 if not torch.any(operated) else 2.0] * 5)
        for step in range(steps):
            last, kept = kept, bool(one.step()["fc.weight"][0, 0])
            operated[step] += float(kept != last)
            put(one, [0.1 if kept else 2.0] * 5)  # to cross the threshold, which is 1
    expected = torch.tensor([(1 + gamma * step) ** -power for step in range(steps)])
    assert operated[0] == runs
    deviation = (runs * expected * (1 - expected)).sqrt().clamp(min=1)
    assert ((operated - runs * expected).abs() <= 4.5 * deviation).all()
    total = float((runs * expected).sum())
    assert float(operated.sum()) == pytest.approx(total, abs=4 * float((deviation**2).sum().sqrt()))


def test_each_layer_has_a_draw_of_its_own() -> None:
    run = Surgery(mlp(), schedule(gamma=1.0))
    seen = set()
    for _ in range(60):
        with torch.no_grad():
            for parameter in run.loop.model.parameters():
                parameter.mul_(-1).add_(torch.randn_like(parameter))
        before = {name: mask.clone() for name, mask in run.gate.state()["masks"].items()}
        after = {name: mask.to(torch.int8).neg() for name, mask in run.step().items()}
        seen.add(tuple(difference(before[n], after[n]) is not None for n in ("fc1.weight", "fc2.weight")))
    assert {(True, False), (False, True)} <= seen


def test_after_the_end_masks_are_static_and_all_weights_go_on() -> None:
    run = Loop(mlp(), random_batches([4] * 8), schedule(stop_step=3), optimizer={"lr": 0.5, "weight_decay": 0.1}).run()
    masks = [run.at((0, step))["state"]["policies"][OWNER]["gate"]["masks"] for step in range(1, 9)]
    assert all(difference(later, masks[2]) is None for later in masks[3:])
    assert difference(masks[0], masks[2]) is not None
    pruned = masks[2]["fc1.weight"] == 0
    assert ((run.after[-1]["fc1.weight"] - run.after[3]["fc1.weight"])[pruned] != 0).all()


def logits_loss(values: Values, batch: tuple[Tensor, Tensor]) -> Tensor:
    network = nn.Sequential(OrderedDict(fc1=nn.Linear(3, 6), act=nn.Tanh(), fc2=nn.Linear(6, 3)))
    return nn.functional.cross_entropy(functional_call(network, values, batch[0]), batch[1])


@pytest.mark.parametrize("optimizer", [{"lr": 0.5}, {"lr": 0.5, "momentum": 0.9, "weight_decay": 0.1}])
def test_every_weight_moves_by_the_gradient_of_the_masked_product(optimizer: dict[str, float]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(OrderedDict(fc1=nn.Linear(3, 6), act=nn.Tanh(), fc2=nn.Linear(6, 3)))
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    batches = random_batches([8] * 5)
    run = Loop(model, batches, schedule(), optimizer=optimizer).run()
    buffers = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for step, batch in enumerate(batches):
        masks = run.at((0, step + 1))["state"]["policies"][OWNER]["gate"]["masks"]
        masked = {name: (weight * (masks[name] != 0)).requires_grad_() for name, weight in weights.items()}
        gradients = torch.autograd.grad(logits_loss(masked, batch), list(masked.values()))
        for name, gradient in zip(list(weights), gradients, strict=True):
            # Weight decay and momentum act on the full W.
            step_of = gradient + optimizer.get("weight_decay", 0) * weights[name]
            buffers[name] = optimizer.get("momentum", 0) * buffers[name] + step_of
            weights[name] = weights[name] - optimizer["lr"] * buffers[name]
            torch.testing.assert_close(run.after[step][name], weights[name], rtol=1e-4, atol=1e-6)
        pruned = masks["fc2.weight"] == 0
        assert pruned.any()
        assert not pruned.all()


def test_what_is_shipped_is_the_masked_product_which_training_saw() -> None:
    run = Loop(mlp(), random_batches([8] * 4), schedule(c=0.5), epochs=2, optimizer={"lr": 0.5}).run()
    state = run.at((2, 0))
    masks, live = state["state"]["policies"][OWNER]["gate"]["masks"], run.after[-1]
    shipped = {name: state["model"][name] for name in live}
    for name, weight in live.items():
        assert is_plus_zero(shipped[name][masks[name] == 0])
        assert torch.equal(shipped[name], weight * (masks[name] != 0))
    assert not masks["fc1.bias"].all()
    network, images = mlp(3).eval(), random_batches([8], seed=9)[0][0]
    network.load_state_dict(reread(run.snapshots[2, 0])["model"])
    product = {name: weight * (masks[name] != 0) for name, weight in live.items()}
    assert torch.equal(network(images), functional_call(mlp(4).eval(), product, images))
    figures = run.lines[-1]["figures"][OWNER]
    assert figures == {"kept": sum(int((m != 0).sum()) for m in masks.values()), "of": 3 * 6 + 6 + 6 * 3 + 3}


def test_in_training_mode_the_forward_pass_sees_the_masked_product() -> None:
    run = Loop(mlp(), random_batches([8] * 4), schedule(), optimizer={"lr": 0.5}).run()
    for step in range(1, 4):
        masks = run.at((0, step + 1))["state"]["policies"][OWNER]["gate"]["masks"]
        for name, seen in run.forwards[step].items():
            assert torch.equal(seen, run.after[step - 1][name] * (masks[name] != 0))


def test_the_last_mask_stays_behind_the_window() -> None:
    run = Loop(mlp(), random_batches([8] * 3), schedule(", ending_epoch: 1"), epochs=3, optimizer={"lr": 0.5}).run()
    masks = run.at((1, 0))["state"]["policies"][OWNER]["gate"]["masks"]
    for after in run.after[3:]:
        assert all(torch.equal(after[name] == 0, masks[name] == 0) for name in after)


def test_best_pt_is_no_network_from_before_the_masks_are_fixed() -> None:
    # schedule-grammar.md, section 2: the best among epochs at or after the last pruning event, here stop_step.
    text = schedule(stop_step=9, c=0.8)
    settings: dict[str, Any] = {"epochs": 4, "optimizer": {"lr": 1.5}, "best": "loss"}
    others = [(images, (labels + 1) % 3) for images, labels in random_batches([8] * 4)]  # it gets worse and worse
    run = Loop(mlp(), random_batches([8] * 4), text, validation=others, **settings).run()
    assert run.lines[0]["val"]["loss"] < min(line["val"]["loss"] for line in run.lines[1:])
    assert reread(run.best)["state"]["progress"]["best_epoch"] >= 2


@pytest.mark.parametrize("moment", [(0, 1), (1, 0), (1, 2), (2, 1)])
@pytest.mark.parametrize("more", [{}, {"ema": {"decay": 0.8}}])
def test_a_resumed_run_ends_in_the_same_bits(moment: tuple[int, int], more: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"epochs": 3, "optimizer": {"lr": 0.5, "momentum": 0.9}, **more}
    text = schedule(gamma=0.3, stop_step=7)
    whole = Loop(mlp(), random_batches([4] * 3), text, **settings).run()
    again = Loop(mlp(5), random_batches([4] * 3), text, seed=5, **settings).resume(whole.at(moment))
    assert difference(again.at((3, 0)), whole.at((3, 0))) is None
