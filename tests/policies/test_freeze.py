"""Frozen layers keep their bits, whatever the optimizer does, and go on afterwards as if the time had stood still."""

from collections import OrderedDict
from typing import Any

import pytest
import torch
from helpers import difference
from loop import Loop, Values, random_batches
from torch import Tensor, nn

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05},
    "nesterov": {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05},
    "adam": {"name": "adam", "lr": 0.05, "weight_decay": 0.05},
    "adamw": {"name": "adamw", "lr": 0.05, "weight_decay": 0.5},
}
STEPS = 3
every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)


def schedule(weights: str = "fc1.weight", window: str = ", starting_epoch: 1, ending_epoch: 2", more: str = "") -> str:
    return f"version: 2\n{more}policies:\n  - {{freeze: {{weights: {weights}}}{window}}}\n"


def mlp(seed: int = 0, dropout: float = 0.2) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(OrderedDict(fc1=nn.Linear(3, 6), act=nn.Tanh(), drop=nn.Dropout(dropout), fc2=nn.Linear(6, 3)))


def train(text: str | None, epochs: int = 3, **settings: Any) -> Loop:
    return Loop(mlp(), random_batches([5] * STEPS), text, epochs=epochs, **settings).run()


def layer(values: Values, name: str) -> Values:
    return {key: value for key, value in values.items() if key.startswith(name)}


@every_optimizer
@pytest.mark.parametrize("clip", [None, 0.1])
def test_no_bit_of_a_frozen_weight_or_its_bias_changes(optimizer: dict[str, Any], clip: float | None) -> None:
    run = train(schedule(), optimizer={**optimizer, "clip_norm": clip})
    held = layer(run.after[STEPS - 1], "fc1")
    assert len(held) == 2
    for after in run.after[STEPS : 2 * STEPS]:
        assert difference(layer(after, "fc1"), held) is None
    for step in range(STEPS, 2 * STEPS):
        assert all((run.after[step][name] != run.after[step - 1][name]).all() for name in ("fc2.weight", "fc2.bias"))
    assert all((run.after[-1][name] != held[name]).all() for name in held)


@every_optimizer
def test_from_the_first_step_on_a_frozen_layer_is_what_it_was_made(optimizer: dict[str, Any]) -> None:
    run = train(schedule(window=", ending_epoch: 2"), optimizer=optimizer)
    assert difference(layer(run.after[2 * STEPS - 1], "fc1"), layer(run.forwards[0], "fc1")) is None


@every_optimizer
def test_frozen_layers_go_on_with_the_momentum_they_had(optimizer: dict[str, Any]) -> None:
    run = train(schedule(), optimizer=optimizer)
    before, behind = (run.at(moment)["state"]["optimizer"]["state"] for moment in ((1, 0), (2, 0)))
    for number in (0, 1):  # fc1's weight and bias
        assert difference(before[number], behind[number]) is None
    for number in (2, 3):
        assert difference(before[number], behind[number]) is not None


@every_optimizer
def test_the_first_step_afterwards_is_a_pure_optimizers(optimizer: dict[str, Any]) -> None:
    # The images are the same in every step; fc1 alone in a network of its own sees the gradients of the unfrozen time.
    run = train(schedule(), optimizer=optimizer)
    weight = nn.Parameter(run.forwards[0]["fc1.weight"].clone())
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}.get(optimizer.get("name", ""), torch.optim.SGD)
    alone = kind([weight], **{key: value for key, value in optimizer.items() if key != "name"})
    torch.manual_seed(0)
    for step in range(3 * STEPS):
        gradient = gradient_of(run.forwards[step], step)
        if not STEPS <= step < 2 * STEPS:
            weight.grad = gradient
            alone.step()
        torch.testing.assert_close(run.after[step]["fc1.weight"], weight.detach(), rtol=1e-4, atol=1e-6)


def gradient_of(weights: Values, step: int) -> Tensor:
    """Of fc1's weight in that step, with the dropout that is next."""
    state = torch.get_rng_state()
    network = mlp()
    torch.set_rng_state(state)
    network.load_state_dict(weights)
    images, labels = random_batches([5] * STEPS)[step % STEPS]
    nn.functional.cross_entropy(network(images), labels).backward()
    gradient = network.get_parameter("fc1.weight").grad
    assert gradient is not None
    return gradient


def test_others_train_as_with_a_layer_that_is_not_trained() -> None:
    run = train(schedule(window=""), optimizer=OPTIMIZERS["adam"])
    fixed = mlp()
    optimizer = torch.optim.Adam(fixed.fc2.parameters(), lr=0.05, weight_decay=0.05)
    torch.manual_seed(0)
    for images, labels in random_batches([5] * STEPS) * 3:
        optimizer.zero_grad()
        nn.functional.cross_entropy(fixed(images), labels).backward()
        optimizer.step()
    for name, parameter in fixed.named_parameters():
        torch.testing.assert_close(run.after[-1][name], parameter.detach(), rtol=1e-4, atol=1e-6)


def test_rounds_take_turns_as_han_alternates_layers() -> None:
    text = schedule("fc1.weight", ", epochs: [0, 2]") + "  - {freeze: {weights: fc2.weight}, epochs: [1, 3]}\n"
    run = train(text, epochs=4, optimizer=OPTIMIZERS["sgd"])
    for epoch in range(4):
        frozen, trained = ("fc1", "fc2") if epoch % 2 == 0 else ("fc2", "fc1")
        first, last = run.forwards[STEPS * epoch], run.after[STEPS * (epoch + 1) - 1]
        assert difference(layer(first, frozen), layer(last, frozen)) is None
        assert all((first[name] != last[name]).all() for name in layer(first, trained))


def test_a_window_in_steps_freezes_in_those_steps() -> None:
    run = train(schedule(window=", starting_step: 2, ending_step: 5"), epochs=2, optimizer=OPTIMIZERS["sgd"])
    same = [difference(layer(run.forwards[i], "fc1"), layer(run.after[i], "fc1")) is None for i in range(2 * STEPS)]
    assert same == [False, False, True, True, True, False]


PENALTIES = {
    "gradient": "{class: L1Regularizer, reg_regims: {fc1.weight: 0.1}}",
    "proximal": "{class: L1Regularizer, reg_regims: {fc1.weight: 0.1}, proximal: true}",
}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)
def test_a_penalty_does_not_move_a_frozen_weight(penalty: str, first: bool) -> None:
    penalized, frozen = f"  - {{regularizer: {penalty}}}\n", "  - {freeze: {weights: fc1.weight}}\n"
    text = "version: 2\npolicies:\n" + (penalized + frozen if first else frozen + penalized)
    run = train(text, epochs=1, optimizer=OPTIMIZERS["sgd"])
    assert difference(layer(run.after[-1], "fc1"), layer(run.forwards[0], "fc1")) is None


def test_a_mask_acts_on_a_frozen_weight() -> None:
    pruned = "  - {pruner: {class: SparsityLevelParameterPruner, levels: {fc1.weight: 0.5}}, epochs: [0]}\n"
    run = train(schedule(window="") + pruned, epochs=1, optimizer=OPTIMIZERS["sgd"])
    weight = run.after[-1]["fc1.weight"]
    assert int((weight == 0).sum()) == 9
    assert torch.equal(weight[weight != 0], dict(mlp().named_parameters())["fc1.weight"][weight != 0])


@every_optimizer
@pytest.mark.parametrize("moment", [(0, 2), (1, 0), (1, 2), (2, 0), (2, 1)])
def test_a_resumed_run_ends_in_the_same_bits(optimizer: dict[str, Any], moment: tuple[int, int]) -> None:
    whole = train(schedule(), optimizer=optimizer)
    again = Loop(mlp(5), random_batches([5] * STEPS), schedule(), epochs=3, optimizer=optimizer, seed=5)
    assert difference(again.resume(whole.at(moment)).at((3, 0)), whole.at((3, 0))) is None


def test_the_biases_of_a_recurrent_layer_are_frozen_with_its_matrices() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.lstm = nn.LSTM(3, 3, batch_first=True)

        def forward(self, images: Tensor) -> Tensor:
            return self.lstm(images.unsqueeze(1).expand(-1, 2, -1))[0][:, -1]

    text = schedule("[lstm.weight_ih_l0]", window="")
    run = Loop(Net(), random_batches([5] * STEPS), text, epochs=1).run()
    same = {name for name, value in run.after[-1].items() if torch.equal(value, run.forwards[0][name])}
    assert same == {"lstm.weight_ih_l0", "lstm.bias_ih_l0"}


@pytest.mark.parametrize("first", ["freeze", "gate"])
def test_frozen_hashed_weights_stay_in_either_order(run_of: Any, first: str) -> None:
    entries = {
        "freeze": "  - {freeze: {weights: weight}, starting_epoch: 1}\n",
        "gate": "  - {gate: {class: HashedWeights, weights: weight, compression: 0.5}}\n",
    }
    order = sorted(entries, key=lambda name: name != first)
    torch.manual_seed(0)
    run = run_of("version: 2\npolicies:\n" + "".join(entries[name] for name in order), nn.Linear(4, 3))
    run.gradient = 0.25
    run.epoch(0)
    before = {name: parameter.detach().clone() for name, parameter in run.model.named_parameters()}
    run.epoch(1)
    assert all(torch.equal(parameter, before[name]) for name, parameter in run.model.named_parameters())
