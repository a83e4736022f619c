"""DropConnect: moments, gradients and inference against pencil, exact masks and quadrature."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import metrics, saved, succeed, work  # noqa: F401
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from compressor.errors import UserError
from compressor.gates import dropconnect
from compressor.gates.dropconnect import DropConnect, Dropping, answer, masked_linear
from compressor.gates.gate import Site


def layer(weight: list[list[float]] | Tensor, bias: list[float] | Tensor | None = None) -> nn.Linear:
    """A linear layer with these weights."""
    matrix = torch.as_tensor(weight)
    made = nn.Linear(matrix.shape[1], matrix.shape[0], bias=bias is not None, dtype=matrix.dtype)
    with torch.no_grad():
        made.weight.copy_(matrix)
        if bias is not None:
            made.bias.copy_(torch.as_tensor(bias))
    return made


def installed(model: nn.Module, modules: list[str], **arguments: Any) -> Dropping:
    """DropConnect in a model, without a policy."""
    site = Site(
        owner="gate.drop",
        model=model,
        parameters=dict(model.named_parameters()),
        targets={"modules": modules},
        images=1,
        sample=lambda: torch.empty(0),
        behind=lambda name: [],
        regroup=lambda parameters, **changed: None,
        average=lambda name, tensor: None,
        clock=lambda: 0,
    )
    return DropConnect(modules=modules, **arguments).install(site)


def trained_on(linear: nn.Linear, v: Tensor, **arguments: Any) -> Tensor:
    """What the layer gives in training."""
    model = nn.Sequential(linear)
    gate = installed(model, ["0"], **arguments)
    gate.before_forward()
    u: Tensor = model(v)
    gate.after_backward()
    return u


def answered(linear: nn.Linear, v: Tensor, **arguments: Any) -> Tensor:
    """What the layer gives in the run's evaluation, on folded weights."""
    model = nn.Sequential(linear)
    gate = installed(model, ["0"], **arguments)
    live = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        for name, value in gate.fold().items():
            model.get_parameter(name).copy_(value)
        way = gate.inference()
        assert way is not None
        with way:
            out: Tensor = model(v)
        for name, value in live.items():
            model.get_parameter(name).copy_(value)
    return out


WEIGHT = [[0.1, -0.2, 0.3], [0.0, 0.5, -0.1]]
BIAS = [0.2, -0.4]
INPUT = [1.0, 2.0, -1.0]
# Wv + b = 0.1 - 0.4 - 0.3 + 0.2 and 0 + 1 + 0.1 - 0.4; (W*W)(v*v) + b*b = .01 + .16 + .09 + .04 and 0 + 1 + .01 + .16.
SUMS, SQUARES = torch.tensor([-0.4, 0.7]), torch.tensor([0.30, 1.17])
DRAWS, COPIES = 200_000, 8

samplings = pytest.mark.parametrize("sampling", ["local", "per_example"])


@samplings
@pytest.mark.parametrize("p", [0.5, 0.8])
def test_mean_and_variance_in_training_are_those_of_bernoulli_masks(sampling: str, p: float) -> None:
    torch.manual_seed(1)
    linear = layer(WEIGHT * COPIES, BIAS * COPIES)
    with torch.no_grad():
        u = trained_on(linear, torch.tensor(INPUT).expand(DRAWS, 3), keep=p, sampling=sampling)
    u = u.reshape(DRAWS * COPIES, 2)
    torch.testing.assert_close(u.mean(0), p * SUMS, rtol=0, atol=2e-3)
    torch.testing.assert_close(u.var(0), p * (1 - p) * SQUARES, rtol=3e-3, atol=0)


def test_exact_masks_give_the_sums_of_all_subsets_and_no_other() -> None:
    torch.manual_seed(0)
    u = masked_linear(torch.tensor([INPUT]).expand(400, 3), torch.tensor(WEIGHT)[:1], torch.tensor([0.2]), 0.5)
    terms = [0.1, -0.4, -0.3, 0.2]
    subsets = {round(sum(t for bit, t in enumerate(terms) if number >> bit & 1), 4) for number in range(16)}
    assert {round(value, 4) + 0.0 for value in u[:, 0].tolist()} == {value + 0.0 for value in subsets}


@samplings
def test_a_layer_without_a_bias_drops_weights_alone(sampling: str) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        u = trained_on(layer(WEIGHT), torch.tensor(INPUT).expand(DRAWS, 3), sampling=sampling)
    torch.testing.assert_close(u.mean(0), torch.tensor([-0.3, 0.55]), rtol=0, atol=4e-3)
    torch.testing.assert_close(u.var(0), torch.tensor([0.065, 0.2525]), rtol=0.015, atol=0)


@samplings
def test_with_keep_1_nothing_is_dropped(sampling: str) -> None:
    torch.testing.assert_close(
        trained_on(layer(WEIGHT, BIAS), torch.tensor([INPUT]), keep=1.0, sampling=sampling), SUMS[None]
    )


def covariance(forward: Callable[[Tensor], Tensor], rounds: int = 4000) -> Tensor:
    """Of the first unit, between two equal examples of one batch; and of two units, for one example."""
    pair = torch.tensor([INPUT, INPUT])
    with torch.no_grad():
        u = torch.stack([forward(pair) for _ in range(rounds)])
    return torch.cov(torch.stack([u[:, 0, 0], u[:, 1, 0], u[:, 0, 1]]))


@samplings
def test_the_examples_of_a_batch_have_masks_of_their_own(sampling: str) -> None:
    torch.manual_seed(0)
    linear = layer(WEIGHT, BIAS)
    found = covariance(lambda pair: trained_on(linear, pair, sampling=sampling))
    # A covariance of 0 is estimated with a deviation of sd sd' / sqrt(rounds).
    assert abs(found[0, 1]) < 4 * 0.25 * 0.30 / math.sqrt(4000)
    assert abs(found[0, 2]) < 4 * 0.25 * math.sqrt(0.30 * 1.17) / math.sqrt(4000)


def test_control_one_mask_for_the_whole_batch_makes_its_examples_covary() -> None:
    torch.manual_seed(0)
    linear = layer(WEIGHT, BIAS)

    def shared(pair: Tensor) -> Tensor:
        masks = [torch.rand_like(parameter) < 0.5 for parameter in (linear.weight, linear.bias)]
        return F.linear(pair, linear.weight * masks[0], linear.bias * masks[1])

    torch.testing.assert_close(covariance(shared)[0, 1], torch.tensor(0.075), rtol=0.1, atol=0)


@samplings
@pytest.mark.parametrize("at_once", [2**22, 12], ids=["whole", "one example at a time"])
def test_gradients_are_those_of_finite_differences(
    sampling: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dropconnect, "AT_ONCE", at_once)
    torch.manual_seed(0)
    given = [torch.randn(5, 4), torch.randn(3, 4), torch.randn(3)]

    def forward(v: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        torch.manual_seed(7)  # the same draws at every call
        if sampling == "per_example":
            return masked_linear(v, weight, bias, 0.5)
        return dropconnect.drawn_linear(v, weight, bias, 0.5, weight.detach().square())

    assert torch.autograd.gradcheck(forward, tuple(tensor.double().requires_grad_() for tensor in given))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_the_local_draw_and_its_gradients_are_autograds_to_the_bit(dtype: torch.dtype, bias: bool) -> None:
    found = []
    for own in (True, False):
        torch.manual_seed(0)
        given = [torch.randn(*shape, dtype=dtype) for shape in ((9, 40), (30, 40), (30,))]
        given[0][2] = given[1][3] = given[2][3] = 0.0  # a variance of 0: its root has no slope there
        v, weight, b = (tensor.requires_grad_() for tensor in given)
        torch.manual_seed(1)
        if own:
            u = dropconnect.drawn_linear(v, weight, b if bias else None, 0.3, weight.detach().square())
        else:
            mean, squares = dropconnect.sums(v, weight, b if bias else None)
            u = 0.3 * mean + (0.3 * 0.7 * squares).clamp_min(dropconnect.TINY).sqrt() * torch.randn_like(mean)
        u.backward(torch.randn_like(u))
        found.append([u.detach(), *(tensor.grad for tensor in (v, weight, b) if tensor.grad is not None)])
    assert len(found[0]) == (4 if bias else 3)
    for ours, autograds in zip(*found, strict=True):
        assert torch.equal(ours, autograds)


def test_the_squares_of_the_weights_are_those_of_each_step() -> None:
    linear = layer(WEIGHT)
    gate = installed(nn.Sequential(linear), ["0"])
    found = []
    for factor in (1.0, 4.0):
        with torch.no_grad():
            linear.weight.copy_(factor * torch.tensor(WEIGHT))
        gate.before_forward()
        torch.manual_seed(0)
        found.append(linear(torch.tensor([INPUT])).detach())
        gate.after_backward()
    assert torch.equal(found[1], 4 * found[0])  # the mean and the deviation both


@samplings
def test_the_gate_trains_the_parameters_of_its_layer(sampling: str) -> None:
    torch.manual_seed(0)
    linear = layer(WEIGHT, BIAS)
    trained_on(linear, torch.tensor([INPUT]), sampling=sampling).sum().backward()
    assert linear.weight.grad is not None
    assert linear.bias.grad is not None
    if sampling == "per_example":  # the input where the weight stayed, 0 where it was dropped
        assert all(g in (0.0, x) for row in linear.weight.grad.tolist() for g, x in zip(row, INPUT, strict=True))


def test_an_input_of_zeros_and_a_bias_of_zeros_have_finite_gradients() -> None:
    linear = layer(WEIGHT, [0.0, 0.0])
    v = torch.zeros(2, 3, requires_grad=True)
    trained_on(linear, v).sum().backward()
    for tensor in (v, linear.weight, linear.bias):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()


# E relu(N(m, 1)) = m Phi(m) + phi(m), with Phi(1) = .8413447, phi(1) = .2419707, phi(0) = .3989423.
EXPECTED_RELU = {0.0: 0.3989423, 1.0: 1.0833155, -1.0: 0.0833155, 10.0: 10.0}


def means(values: list[float]) -> tuple[Tensor, Tensor]:
    """These means, with variance 1."""
    return torch.tensor(values), torch.ones(len(values))


def test_the_closed_form_for_relu_is_the_textbook_one() -> None:
    mean, one = means(list(EXPECTED_RELU))
    expected = torch.tensor(list(EXPECTED_RELU.values()))
    torch.testing.assert_close(answer(mean, one, "relu", None, torch.Generator()), expected, rtol=0, atol=1e-6)
    # N(3 m, 9) is 3 N(m, 1), and relu(3 u) = 3 relu(u).
    found = answer(3 * mean, 9 * one, "relu", None, torch.Generator())
    torch.testing.assert_close(found, 3 * expected, rtol=0, atol=3e-6)


def test_the_closed_form_is_never_negative_and_without_variance_plain_relu() -> None:
    mean = torch.linspace(-40, 0, 1001)
    found = answer(mean, torch.ones_like(mean), "relu", None, torch.Generator())
    assert (found >= 0).all()
    sure = answer(torch.tensor([-1.0, 0.0, 2.0]), torch.zeros(3), "relu", None, torch.Generator())
    torch.testing.assert_close(sure, torch.tensor([0.0, 0.0, 2.0]))


FUNCTIONS: dict[str, Any] = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}


@pytest.mark.parametrize("activation", FUNCTIONS)
def test_the_activation_of_the_answer_is_the_mean_activation(activation: Any) -> None:
    # Against Gauss-Hermite quadrature; the mean of 1e5 draws of spread below 1 is off by less than 4 / sqrt(1e5).
    mean, one = means([-2.0, -0.5, 0.0, 0.7, 1.5])
    found = FUNCTIONS[activation](answer(mean, one, activation, 100_000, torch.Generator().manual_seed(0)))
    nodes, shares = np.polynomial.hermite_e.hermegauss(151)
    values = FUNCTIONS[activation](mean[:, None].double() + torch.from_numpy(nodes))
    expected = (values * torch.from_numpy(shares)).sum(1) / math.sqrt(2 * math.pi)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=0.013)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_the_answer_of_a_saturated_unit_is_finite(activation: Any) -> None:
    found = answer(torch.tensor([-200.0, 200.0]), torch.ones(2), activation, 10, torch.Generator())
    assert torch.isfinite(found).all()
    low = -1.0 if activation == "tanh" else 0.0
    torch.testing.assert_close(FUNCTIONS[activation](found), torch.tensor([low, 1.0]), rtol=0, atol=1e-6)


def test_forty_inputs_answered_nearly_as_by_all_masks_where_the_mean_network_is_far_off() -> None:
    # The methods' toy: the truth is the average over 2e5 exact masks, of units whose mean is near 0 or below.
    torch.manual_seed(5)
    weight, v = 0.4 * torch.randn(3, 40), torch.rand(40)
    weight -= ((weight @ v - torch.tensor([0.2, -0.1, -0.6])) / (v @ v))[:, None] * v  # now Wv = .2, -.1, -.6
    with torch.no_grad():
        truth = masked_linear(v.expand(200_000, 40), weight, None, 0.5).relu().mean(0)
    by_mean = (0.5 * weight @ v).relu()
    torch.testing.assert_close(by_mean, torch.tensor([0.1, 0.0, 0.0]), rtol=0, atol=1e-6)
    analytic = answered(layer(weight), v[None], inference="analytic")[0]
    gaussian = answered(layer(weight), v[None], inference="gaussian", samples=100_000)[0]
    torch.testing.assert_close(gaussian, analytic, rtol=0, atol=4e-3)
    torch.testing.assert_close(analytic, truth, rtol=0, atol=0.03)
    assert (truth - by_mean > 0.05).all()


def test_evaluation_draws_the_same_every_time_and_nothing_from_training() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, second = (answered(layer(WEIGHT, BIAS), torch.tensor([INPUT]), samples=3) for _ in range(2))
    assert torch.equal(first, second)
    nn.Linear(3, 2)  # as `layer` has made them
    torch.set_rng_state(before)
    linear = layer(WEIGHT, BIAS)
    state = torch.get_rng_state()
    answered(linear, torch.tensor([INPUT]), samples=3)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_examples_of_a_batch_are_answered_independently() -> None:
    found = answered(layer(WEIGHT, BIAS), torch.tensor([INPUT, INPUT]), samples=3)
    assert not torch.equal(found[0], found[1])


def test_folded_is_the_mean_and_the_layer_stays_a_plain_one() -> None:
    model = nn.Sequential(layer(WEIGHT, BIAS), nn.ReLU(), nn.Linear(2, 2))
    names = list(model.state_dict())
    gate = installed(model, ["0"], keep=0.8)
    gate.before_forward()
    assert list(model.state_dict()) == names
    model(torch.tensor([INPUT])).sum().backward()
    gate.after_backward()
    assert "forward" not in vars(model[0])
    folded = gate.fold()
    assert list(folded) == ["0.weight", "0.bias"]
    torch.testing.assert_close(folded["0.weight"], torch.tensor([[0.08, -0.16, 0.24], [0.0, 0.4, -0.08]]))
    torch.testing.assert_close(folded["0.bias"], torch.tensor([0.16, -0.32]))
    assert torch.equal(model[0].weight, torch.tensor(WEIGHT))


@pytest.mark.parametrize(
    "arguments", [{"inference": "mean"}, {"activation": "none"}, {"inference": "analytic", "activation": "none"}]
)
def test_mean_inference_and_the_mean_of_a_sum_are_the_folded_network_itself(arguments: dict[str, Any]) -> None:
    model = nn.Sequential(layer(WEIGHT, BIAS))
    gate = installed(model, ["0"], **arguments)
    assert gate.inference() is None
    folded = functional_call(model, dict(gate.fold()), (torch.tensor([INPUT]),))
    torch.testing.assert_close(folded, 0.5 * SUMS[None])


def test_too_many_masks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dropconnect, "MOST_MASKS", 17)
    trained_on(layer(WEIGHT), torch.zeros(2, 3), sampling="per_example")
    with pytest.raises(UserError, match=r"draws 18 masks for 0 at once \(3 examples x 6 weights\), at most 17") as told:
        trained_on(layer(WEIGHT), torch.zeros(3, 3), sampling="per_example")
    assert "`sampling: local`" in str(told.value)
    trained_on(layer(WEIGHT), torch.zeros(3, 3), sampling="local")


def test_inputs_that_are_no_rows_of_features_are_refused() -> None:
    with pytest.raises(UserError, match=r"expects inputs of shape \(examples, features\), 0 gets 2x5x3"):
        trained_on(layer(WEIGHT), torch.zeros(2, 5, 3))


SCHEDULE = """\
version: 2
config: tiny
gates:
  drop: {{class: DropConnect, {arguments}}}
policies:
  - {{gate: {{instance_name: drop}}{window}}}
"""


def schedule(arguments: str, window: str = "") -> str:
    """A schedule with DropConnect as its only gate."""
    return SCHEDULE.format(arguments=arguments, window=window)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("modules: fc1, inference: analytic, activation: tanh", "closed form for relu and none, not for tanh"),
        ("modules: fc1, inference: analytic, activation: sigmoid", "closed form for relu and none, not for sigmoid"),
        ("modules: fc1, inference: mean, samples: 10", "`samples` are drawn by `inference: gaussian`, not by mean"),
        ("modules: fc1, keep: 0.0", "keep"),
        ("modules: fc1, keep: 1.5", "keep"),
        ("modules: fc1, sampling: per_batch", "'local' or 'per_example'"),
    ],
)
def test_what_it_cannot_do_is_said(faults_of: Callable[[str], list[str]], arguments: str, said: str) -> None:
    (fault,) = faults_of(schedule(arguments))
    assert said in fault


def test_a_run_validates_by_its_inference_and_ships_the_mean() -> None:
    Path("drop.yaml").write_text(schedule("modules: fc1, inference: analytic"))
    out = succeed("train", "--schedule", "drop.yaml", "--out", "run")
    for line in metrics(Path("run")):
        assert line["val_folded"]["loss"] != line["val"]["loss"]
    assert "by the gates' own inference" in out
    found = saved(Path("run/checkpoint.pt"))
    for name in ("fc1.weight", "fc1.bias"):
        torch.testing.assert_close(found["model"][name], 0.5 * found["state"]["live"][name])
    assert found["metrics"]["test"] != found["metrics"]["test_by_own_inference"]
    shown = succeed("eval", "run/checkpoint.pt")
    assert f"top-1 {found['metrics']['test']['top1']:.2f} %" in shown


def test_after_the_window_there_is_nothing_left_to_fold() -> None:
    Path("drop.yaml").write_text(schedule("modules: fc1", ", starting_epoch: 0, ending_epoch: 2"))
    succeed("train", "--schedule", "drop.yaml", "--out", "run")
    assert ["val_folded" in line for line in metrics(Path("run"))] == [True, True, False, False]
    assert saved(Path("run/checkpoint.pt"))["state"]["live"] == {}
