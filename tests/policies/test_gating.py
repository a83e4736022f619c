"""What is shipped of a gated network is what was trained: folded, thinned, averaged; and who is not gated at all."""

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import difference
from loop import Batch, Loop, Values, is_plus_zero, random_batches, reread, values
from torch import Tensor, nn
from torch.func import functional_call

from compressor.errors import UserError
from compressor.thinning.equivalence import thin

OPTIMIZER = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05}
L0 = "class: HardConcreteL0, lambda: {strength}, lr: 0.5"
OWNER = "0.l0"


def schedule(weights: str, structure: str = "Elements", window: str = "", strength: float = 2.0, more: str = "") -> str:
    gate = f"{L0.format(strength=strength)}, structure: {structure}, weights: {weights}{more}"
    return f"version: 2\ngates:\n  l0: {{{gate}}}\npolicies:\n  - {{gate: {{instance_name: l0}}{window}}}\n"


def mlp(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(OrderedDict(fc1=nn.Linear(3, 6), act=nn.Tanh(), drop=nn.Dropout(0.2), fc2=nn.Linear(6, 3)))


class Net(nn.Module):
    """Layers, and what is done with them."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self._forward = forward
        for name, layer in layers.items():
            self.add_module(name, layer)
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.uniform_(layer.bias, -0.5, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def plain() -> Net:
    return Net(
        lambda s, x: s.fc(F.relu(s.b(F.relu(s.a(x)))).mean((2, 3))),
        a=nn.Conv2d(1, 4, 3), b=nn.Conv2d(4, 5, 2), fc=nn.Linear(5, 3),
    )  # fmt: skip


def normed() -> Net:
    return Net(
        lambda s, x: s.fc(F.relu(s.b(F.relu(s.bn(s.a(x))))).mean((2, 3))),
        a=nn.Conv2d(1, 4, 3), bn=nn.BatchNorm2d(4), b=nn.Conv2d(4, 5, 2), fc=nn.Linear(5, 3),
    )  # fmt: skip


def joined() -> Net:
    return Net(
        lambda s, x: s.fc(F.relu(s.bn(torch.cat([s.c(x), s.a(x)], 1))).mean((2, 3))),
        a=nn.Conv2d(1, 4, 3), c=nn.Conv2d(1, 2, 3), bn=nn.BatchNorm2d(6), fc=nn.Linear(6, 3),
    )  # fmt: skip


def residual() -> Net:
    return Net(
        lambda s, x: (lambda y: s.fc(F.relu(s.bn2(s.d(F.relu(s.bn(s.a(y))))) + y).mean((2, 3))))(F.relu(s.stem(x))),
        stem=nn.Conv2d(1, 5, 3), a=nn.Conv2d(5, 4, 1), bn=nn.BatchNorm2d(4), d=nn.Conv2d(4, 5, 1),
        bn2=nn.BatchNorm2d(5), fc=nn.Linear(5, 3),
    )  # fmt: skip


def before_and_behind() -> Net:
    """A projection reads the convolution before its batch norm, as in pre-activation networks."""
    return Net(
        lambda s, x: (lambda y: s.fc(F.relu(s.b(F.relu(s.bn(y))) + s.c(y)).mean((2, 3))))(s.a(x)),
        a=nn.Conv2d(1, 4, 3), bn=nn.BatchNorm2d(4), b=nn.Conv2d(4, 5, 1), c=nn.Conv2d(4, 5, 1), fc=nn.Linear(5, 3),
    )  # fmt: skip


def images(epoch: int = 0) -> list[Batch]:
    draws = torch.Generator().manual_seed(epoch)
    return [(torch.randn(6, 1, 5, 5, generator=draws), torch.randint(0, 3, (6,), generator=draws)) for _ in range(3)]


def of(build: Callable[[], nn.Module], text: str, **settings: Any) -> Loop:
    torch.manual_seed(0)
    return Loop(build(), images, text, **{"optimizer": OPTIMIZER, **settings})


def gates(run: Loop) -> Any:
    return run.session.events.memory[OWNER].installed


def locations(state: dict[str, Any]) -> Values:
    """log_alpha in a checkpoint."""
    found: Values = state["state"]["policies"][OWNER]["gate"]["log_alpha"]
    return found


def final(log_alpha: Tensor) -> Tensor:
    return torch.clamp(1.2 * torch.sigmoid(log_alpha) - 0.1, 0, 1)


CHOSEN = torch.tensor([-4.0, 0.3, 4.0, -2.0])
"""One gate closed, one open, two in between."""


def by_rows(p: Values, z: Tensor) -> Values:
    return {"a.weight": p["a.weight"] * z.reshape(-1, 1, 1, 1), "a.bias": p["a.bias"] * z}


def by_norm(p: Values, z: Tensor) -> Values:
    return {name: p[name] * torch.cat([torch.ones(len(p[name]) - 4), z]) for name in ("bn.weight", "bn.bias")}


PLACES = {plain: by_rows, normed: by_norm, joined: by_norm, residual: by_norm}
every_net = pytest.mark.parametrize("build", PLACES, ids=[build.__name__ for build in PLACES])


def folded(build: Callable[[], nn.Module]) -> tuple[nn.Module, Tensor, Tensor]:
    """The plain network that is shipped, images, and the logits of the network behind the chosen gates."""
    run = of(build, schedule("a.weight", "Filters"), epochs=2).run()
    gates(run).load({"log_alpha": {"a.weight": CHOSEN}})
    batch, network = images(7)[0][0], copy.deepcopy(run.model).eval()
    live = values(network)
    expected = functional_call(network, {**live, **PLACES[build](live, final(CHOSEN))}, batch).detach()
    with run.session.as_shipped():
        network.load_state_dict(run.model.state_dict())
    return network, batch, expected


@every_net
def test_the_folded_network_computes_what_the_network_behind_its_final_gates_does(
    build: Callable[[], nn.Module],
) -> None:
    network, batch, expected = folded(build)
    assert float(expected.std()) > 0.01
    torch.testing.assert_close(network(batch), expected, rtol=1e-4, atol=1e-5)


@every_net
def test_what_is_closed_is_plus_zero_and_thinned_the_network_computes_the_same(build: Callable[[], nn.Module]) -> None:
    network, batch, _ = folded(build)
    before = network(batch).detach()
    assert is_plus_zero(dict(network.named_parameters())["a.weight"][0])
    thinned = thin(network, batch)
    thinned.cut.model(network)
    assert len(network.get_parameter("a.weight")) == 3
    torch.testing.assert_close(network(batch), before, rtol=1e-4, atol=1e-5)


def test_folding_leaves_the_live_weights_and_gates_as_they_were() -> None:
    run = of(normed, schedule("a.weight", "Filters")).run()
    before = copy.deepcopy((run.model.state_dict(), gates(run).state()))
    with run.session.as_shipped():
        assert difference(dict(run.model.state_dict()), dict(before[0])) is not None
    assert difference((dict(run.model.state_dict()), gates(run).state()), (dict(before[0]), before[1])) is None


def test_filters_that_an_addition_joins_with_others_are_not_gated_and_that_is_said() -> None:
    run = of(residual, schedule("[stem.weight, a.weight, d.weight, fc.weight]", "Filters"))
    assert list(gates(run).state()["log_alpha"]) == ["a.weight"]
    assert len(run.said) == 3
    assert all(any(f"{name}.weight are not gated" in line for line in run.said) for name in ("stem", "d", "fc"))


SCHEDULERS = {
    "steps": "class: StepLR, step_size: 1, gamma: 0.5",
    "polynomial": "class: PolynomialLR, T_max: 4, power: 2",
    "cosine": "class: CosineAnnealingLR, T_max: 4",
}


@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize("scheduler", SCHEDULERS.values(), ids=SCHEDULERS)
def test_learning_rate_schedules_keep_the_ratio_of_the_gates_own_rate(scheduler: str, interval: str) -> None:
    text = schedule("fc1.weight") + f"  - {{lr_scheduler: {{{scheduler}, args: {{interval: {interval}}}}}}}\n"
    run = Loop(mlp(), random_batches([5] * 2), text, epochs=2, optimizer={"lr": 0.1}).run()
    assert len({rates[0] for rates in run.rates}) > 1
    for first, weights, own in run.rates:
        assert weights == first
        assert own == pytest.approx(5 * first)


def test_without_a_rate_of_their_own_gates_have_the_optimizers() -> None:
    run = Loop(mlp(), random_batches([5]), schedule("fc1.weight").replace(", lr: 0.5", ""), optimizer={"lr": 0.1})
    assert run.run().rates == [[0.1, 0.1, 0.1]]


EMA = {"ema": {"decay": 0.8}}


def averaged(found: list[Tensor], decay: float = 0.8) -> Tensor:
    total = sum((1 - decay) * decay ** (len(found) - i) * one for i, one in enumerate(found, start=1))
    assert isinstance(total, Tensor)
    return total / (1 - decay ** len(found))


def test_what_is_shipped_is_the_average_weight_behind_the_average_gate() -> None:
    run = Loop(mlp(), random_batches([5] * 3), schedule("fc1.weight"), epochs=2, optimizer=OPTIMIZER, **EMA).run()
    moments = [(epoch, step) for epoch in (0, 1) for step in (1, 2, 3)]
    gate = averaged([locations(run.at(moment))["fc1.weight"] for moment in moments])
    weight = averaged([after["fc1.weight"] for after in run.after])
    shipped = run.at((2, 0))["model"]["fc1.weight"]
    torch.testing.assert_close(shipped, weight * final(gate), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(final(gate), final(locations(run.at((2, 0)))["fc1.weight"]), atol=1e-3)
    assert difference(reread(run.snapshots[2, 0])["model"], run.at((1, 3))["model"]) is None


def test_the_log_counts_the_weights_that_are_shipped_where_gates_are_averaged() -> None:
    # methods.md, section 2: the shipped model's L0 is reported; what is shipped is behind the average gate.
    run = Loop(mlp(), random_batches([5] * 6), schedule("fc1.weight", strength=120), optimizer={"lr": 0.1}, **EMA).run()
    shipped = int((run.at((1, 0))["model"]["fc1.weight"] != 0).sum())
    assert shipped > 0
    assert run.lines[0]["figures"][OWNER]["l0"] == shipped


def test_gates_of_a_structure_that_a_weight_does_not_have_are_refused_or_said() -> None:
    # Cols are of linear layers ("an input neuron"): pruners and group lasso say that a convolution has none.
    with pytest.raises(UserError, match=r"Cols are structures of weights of linear layers"):
        of(plain, schedule("b.weight", "Cols"))


def test_a_convolution_that_is_read_before_its_batch_norm_is_not_gated_and_that_is_said() -> None:
    with pytest.raises(UserError, match="there is nothing to gate"):
        of(before_and_behind, schedule("a.weight", "Filters"), epochs=2)
