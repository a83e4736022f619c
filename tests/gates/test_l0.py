"""L0 gates in the real loop, against autograd through the written-out model with the same draws.

The reference never touches `.grad` by hand: its loss is the paper's, (data loss) + 1/N sum P(z != 0) (lambda |g| +
N l2 / 2 ||theta_g||^2), of tensors that hold theta * z; plain SGD moves theta and log_alpha along its gradients.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from helpers import difference
from loop import Batch, Loop, Values, random_batches, values
from torch import Tensor, nn
from torch.func import functional_call

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
LR, RATE, LAMBDA, L2 = 0.2, 0.8, 3.0, 0.05


def mlp() -> nn.Module:
    torch.manual_seed(0)
    layers = [("fc1", nn.Linear(3, 4)), ("act", nn.Tanh()), ("fc2", nn.Linear(4, 3))]
    return nn.Sequential(OrderedDict(layers))


def small_images() -> list[Batch]:
    draws = torch.Generator().manual_seed(0)
    return [(torch.randn(6, 1, 5, 5, generator=draws), torch.randint(0, 3, (6,), generator=draws)) for _ in range(3)]


class Convolutions(nn.Module):
    """Two convolutions side by side, their channels joined before one batch norm (or none)."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(1, 3, 2), nn.Conv2d(1, 2, 2)
        self.bn = nn.BatchNorm2d(5) if norm else nn.Identity()
        self.fc = nn.Linear(5, 3)
        if norm:
            nn.init.uniform_(self.bn.weight, 0.5, 1.5)
            nn.init.uniform_(self.bn.bias, -0.5, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.tanh(self.bn(torch.cat([self.a(x), self.b(x)], 1))).mean((2, 3)))


Gated = Callable[[Values, Values], Values]
"""theta and z, each by name, to the values used instead of the parameters."""


@dataclass(frozen=True)
class Case:
    """A network, what is gated in it, and how, by hand."""

    build: Callable[[], nn.Module]
    structure: str
    group: dict[str, tuple[tuple[int, ...], int]]
    """By gated weight the shape of its gates, and |g|."""
    gated: Gated
    batches: Callable[[], list[Batch]]


def wide(z: Tensor) -> Tensor:
    return z.reshape(-1, 1, 1, 1)


CASES = {
    "elements": Case(mlp, "Elements", {"fc1.weight": ((4, 3), 1), "fc2.weight": ((3, 4), 1)},
        lambda p, z: {name: p[name] * z[name] for name in z}, lambda: random_batches([6] * 3)),
    "cols": Case(mlp, "Cols", {"fc1.weight": ((3,), 4), "fc2.weight": ((4,), 3)},
        lambda p, z: {name: p[name] * z[name][None, :] for name in z}, lambda: random_batches([6] * 3)),
    "filters": Case(lambda: Convolutions(norm=False), "Filters", {"a.weight": ((3,), 4)},
        lambda p, z: {"a.weight": p["a.weight"] * wide(z["a.weight"]), "a.bias": p["a.bias"] * z["a.weight"]},
        small_images),
    "filters behind a batch norm": Case(lambda: Convolutions(norm=True), "Filters", {"b.weight": ((2,), 4)},
        lambda p, z: {n: torch.cat([p[n][:3], p[n][3:] * z["b.weight"]]) for n in ("bn.weight", "bn.bias")},
        small_images),
    "filters of two, one batch norm": Case(lambda: Convolutions(norm=True), "Filters",
        {"a.weight": ((3,), 4), "b.weight": ((2,), 4)},
        lambda p, z: {n: p[n] * torch.cat([z["a.weight"], z["b.weight"]]) for n in ("bn.weight", "bn.bias")},
        small_images),
}  # fmt: skip
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
without_norm = [name for name in CASES if "norm" not in name]
"""The statistics of a batch are not those of its parts."""


def schedule(case: Case, window: str = "", **arguments: Any) -> str:
    given = {"lambda": LAMBDA, "l2": L2, "lr": RATE, "weights": list(case.group), **arguments}
    fields = ", ".join(f"{key}: {value}" for key, value in given.items() if value is not None)
    gate = f"gates:\n  l0: {{class: HardConcreteL0, structure: {case.structure}, {fields}}}\n"
    return f"version: 2\n{gate}policies:\n  - {{gate: {{instance_name: l0}}{window}}}\n"


def loop(case: Case, window: str = "", *, arguments: dict[str, Any] | None = None, **settings: Any) -> Loop:
    settings = {"optimizer": {"lr": LR}, **settings}
    return Loop(case.build(), case.batches(), schedule(case, window, **arguments or {}), **settings)


def locations(run: Loop) -> Values:
    """log_alpha now, by weight."""
    found = run.session.events.memory["0.l0"].gate["log_alpha"]
    return {name: value.detach().clone() for name, value in found.items()}


def active(log_alpha: Tensor) -> Tensor:
    return torch.sigmoid(log_alpha - BETA * math.log(-GAMMA / ZETA))


def drawn(log_alpha: Tensor) -> Tensor:
    u = torch.rand(log_alpha.shape) * (1 - 2e-6) + 1e-6
    s = torch.sigmoid((torch.log(u) - torch.log(1 - u) + log_alpha) / BETA)
    return torch.clamp(s * (ZETA - GAMMA) + GAMMA, 0, 1)


def group_squares(theta: Tensor, case: Case) -> Tensor:
    if case.structure == "Elements":
        return theta.square()
    return theta.square().sum(0) if case.structure == "Cols" else theta.square().flatten(1).sum(1)


def penalty(case: Case, theta: Values, log_alpha: Values, images: int, strength: float = LAMBDA) -> Tensor:
    """1/N sum P(z != 0) (lambda |g| + N l2 / 2 ||theta_g||^2)."""
    total = torch.zeros(())
    for name, (_, size) in case.group.items():
        each = strength * size + images * L2 / 2 * group_squares(theta[name], case)
        total = total + (active(log_alpha[name]) * each).sum() / images
    return total


def explicit(case: Case, theta: Values, log_alpha: Values, epochs: int) -> tuple[Values, Values]:
    """Plain SGD on the paper's loss, one draw of all gates a mini-batch."""
    network, batches = case.build(), case.batches()
    images = sum(len(labels) for _, labels in batches)
    torch.manual_seed(0)  # as the loop seeds itself
    for inputs, labels in batches * epochs:
        theta = {name: value.detach().requires_grad_() for name, value in theta.items()}
        log_alpha = {name: value.detach().requires_grad_() for name, value in log_alpha.items()}
        z = {name: drawn(log_alpha[name]) for name in case.group}
        logits = functional_call(network, {**theta, **case.gated(theta, z)}, inputs)
        loss = nn.functional.cross_entropy(logits, labels) + penalty(case, theta, log_alpha, images)
        every = [*theta.values(), *log_alpha.values()]
        found = dict(zip(map(id, every), torch.autograd.grad(loss, every), strict=True))
        bound = math.log(100)
        theta = {name: value - LR * found[id(value)] for name, value in theta.items()}
        log_alpha = {n: (value - RATE * found[id(value)]).clamp(-bound, bound) for n, value in log_alpha.items()}
    return ({n: v.detach() for n, v in theta.items()}, {n: v.detach() for n, v in log_alpha.items()})


def close(ours: Values, theirs: Values) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=2e-4, atol=2e-6, msg=lambda said, n=name: f"{n}: {said}")


@every_case
def test_weights_and_gates_move_along_autograds_gradients(case: Case) -> None:
    run = loop(case, epochs=3)
    theta, log_alpha = values(run.model), locations(run)
    run.run()
    expected, moved = explicit(case, theta, log_alpha, 3)
    close(run.after[-1], expected)
    close(locations(run), moved)
    assert all(not torch.allclose(moved[name], log_alpha[name], atol=1e-2) for name in moved)


@pytest.mark.parametrize("case", [CASES[name] for name in without_norm], ids=without_norm)
def test_gates_are_drawn_once_a_batch_which_may_go_through_the_network_in_parts(case: Case) -> None:
    whole, parts = loop(case).run(), loop(case, optimizer={"lr": LR, "accumulate": 3}).run()
    close(parts.after[-1], whole.after[-1])
    close(locations(parts), locations(whole))
    assert len(parts.forwards) == 9
    assert difference(parts.forwards[:3], [parts.forwards[0]] * 3) is None


@every_case
def test_accumulated_parts_with_one_draw_have_the_gradient_of_their_sum(case: Case) -> None:
    network, run = case.build(), loop(case, optimizer={"lr": LR, "accumulate": 2})
    theta, log_alpha = values(run.model), locations(run)
    run.trainer._feed._train = lambda epoch: case.batches()[:1]
    run.run()
    inputs, labels = case.batches()[0]
    leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
    at = {name: value.clone().requires_grad_() for name, value in log_alpha.items()}
    torch.manual_seed(0)
    standing = {**leaves, **case.gated(leaves, {name: drawn(at[name]) for name in case.group})}
    loss = penalty(case, leaves, at, 18)
    for part in (slice(0, 3), slice(3, 6)):
        loss = loss + nn.functional.cross_entropy(functional_call(network, standing, inputs[part]), labels[part]) / 2
    loss.backward()
    close(run.after[-1], {name: (leaf - LR * leaf.grad).detach() for name, leaf in leaves.items()})
    close(locations(run), {name: (leaf - RATE * leaf.grad).detach() for name, leaf in at.items()})


@every_case
def test_the_penalty_in_the_log_is_the_papers_of_the_weights_then(case: Case) -> None:
    run = loop(case, epochs=2).run()
    expected = float(penalty(case, run.after[-1], locations(run), 18))
    assert run.lines[-1]["losses"]["l0"] == pytest.approx(expected, rel=1e-5)


@every_case
def test_the_penaltys_gradients_are_its_finite_differences(case: Case) -> None:
    run = loop(case)
    theta, log_alpha = values(run.model), locations(run)
    gates, parameters = run.session.events.memory["0.l0"].installed, run.session.network.parameters
    moving = {**parameters}
    located = {name: one.log_alpha for name, one in gates._gated.items()}
    for leaf in (*moving.values(), *located.values()):
        leaf.grad = torch.zeros_like(leaf)
    gates.penalty_gradients()
    step = 1e-5
    for tensors, leaves in ((theta, moving), (log_alpha, located)):
        for name in case.group:
            for place in range(tensors[name].numel()):
                found = []
                for side in (step, -step):
                    other = {key: value.double() for key, value in tensors.items()}
                    other[name].view(-1)[place] += side
                    both = (other, log_alpha) if tensors is theta else (theta, other)
                    found.append(float(penalty(case, *both, images=18)))
                expected = (found[0] - found[1]) / (2 * step)
                assert float(leaves[name].grad.view(-1)[place]) == pytest.approx(expected, rel=2e-3, abs=2e-4)


def test_gates_begin_at_the_drop_rate_with_a_deviation_of_a_hundredth() -> None:
    case = Case(lambda: nn.Sequential(OrderedDict(fc1=nn.Linear(100, 200))), "Elements",
                {"fc1.weight": ((200, 100), 1)}, CASES["elements"].gated, lambda: random_batches([6], 100))  # fmt: skip
    for rate, middle in ((0.5, 0.0), (0.2, math.log(4))):
        (log_alpha,) = locations(loop(case, arguments={"droprate_init": rate})).values()
        assert log_alpha.shape == (200, 100)
        assert float(log_alpha.mean()) == pytest.approx(middle, abs=5e-4)
        assert float(log_alpha.std()) == pytest.approx(0.01, rel=0.05)


def test_gates_are_clamped_to_the_logarithm_of_100_after_each_step() -> None:
    run = loop(CASES["cols"], arguments={"lambda": 1e5, "l2": 0})
    run.run()
    for log_alpha in locations(run).values():
        assert log_alpha.tolist() == pytest.approx([-math.log(100)] * len(log_alpha))


def test_the_norm_that_is_clipped_is_the_gates_too() -> None:
    run = loop(CASES["cols"], arguments={"lambda": 100.0}, optimizer={"lr": LR, "clip_norm": 1e-6})
    before = locations(run)
    run.run()
    assert all(torch.allclose(log_alpha, before[name], atol=1e-5) for name, log_alpha in locations(run).items())


def test_the_expected_operations_of_a_linear_network_by_hand() -> None:
    # (2 E[in] - 1) out + out = 2 E[in] out: fc1 has 4 outputs, fc2 3.
    run = loop(CASES["cols"]).run()
    one, two = (float(active(log_alpha).sum()) for log_alpha in locations(run).values())
    assert run.lines[-1]["figures"]["0.l0"]["expected_flops"] == pytest.approx(8 * one + 6 * two, abs=0.06)
    run = loop(CASES["elements"]).run()
    total = sum(float(active(log_alpha).sum()) for log_alpha in locations(run).values())
    assert run.lines[-1]["figures"]["0.l0"]["expected_flops"] == pytest.approx(2 * total, abs=0.06)


@pytest.mark.parametrize("name", ["filters", "filters behind a batch norm", "filters of two, one batch norm"])
def test_the_expected_operations_of_convolutions_by_hand(name: str) -> None:
    # 5 x 5 images, 2 x 2 kernels: 16 positions, n = 4; E[out] (2 n - 1) 16 + E[out] 16. fc: 5 to 3.
    run = loop(CASES[name]).run()
    outputs = {"a.weight": 3.0, "b.weight": 2.0}
    outputs.update({name: float(active(log_alpha).sum()) for name, log_alpha in locations(run).items()})
    expected = sum(out * 7 * 16 + out * 16 for out in outputs.values()) + (2 * 5 - 1) * 3 + 3
    assert run.lines[-1]["figures"]["0.l0"]["expected_flops"] == pytest.approx(expected, abs=0.06)


@every_case
def test_the_log_has_the_expected_and_the_shipped_number_of_weights(case: Case) -> None:
    run = loop(case, epochs=4).run()
    figures, log_alpha = run.lines[-1]["figures"]["0.l0"], locations(run)
    sizes = {name: size for name, (_, size) in case.group.items()}
    ours = {name: (float(active(log_alpha[name]).sum()), int((log_alpha[name] > -2.39790).sum())) for name in sizes}
    assert figures["gated_weights"] == sum(math.prod(shape) * size for shape, size in case.group.values())
    assert figures["expected_l0"] == pytest.approx(sum(sizes[n] * ours[n][0] for n in sizes), abs=0.06)
    assert figures["l0"] == sum(sizes[n] * ours[n][1] for n in sizes)
    for name, (shape, _) in case.group.items():
        assert figures[f"{name} gates"] == math.prod(shape)
        assert figures[f"{name} expected open"] == pytest.approx(ours[name][0], abs=1e-3)
        assert figures[f"{name} open"] == ours[name][1]
