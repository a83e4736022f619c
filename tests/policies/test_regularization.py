"""Proximal steps beside each optimizer: training ends at the minimum of loss + penalty, found here without the package.

What else acts beside an optimizer: clipping, weight decay, parts of a batch, skipped steps, frozen weights, averages.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers import difference
from loop import Loop, random_batches
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW

from compressor.config import OptimizerConfig
from compressor.errors import UserError
from compressor.policies.regularization import OF_ADAM, OF_COMPUTED
from compressor.schedule.faults import Faults
from compressor.schedule.schedule import view_of
from compressor.session import Session
from compressor.session.session import Settings
from compressor.timing import Clock
from compressor.training import optimizers

RunOf = Callable[..., Any]
ScheduleOf = Callable[[str], Any]
Array = NDArray[np.float64]

L1 = "{class: L1Regularizer, reg_regims: {weight: STRENGTH}, proximal: true}"
ROWS = "{class: GroupLassoRegularizer, reg_regims: {weight: [STRENGTH, Rows]}, proximal: true}"


def text(regularizer: str, strength: float = 0.25, more: str = "") -> str:
    return f"version: 2\npolicies:\n  - regularizer: {regularizer.replace('STRENGTH', str(strength))}\n{more}"


# --- the minimum of a convex problem ----------------------------------------------------------------------------------

DRAWS = np.random.default_rng(3)
IMAGES = np.linalg.qr(DRAWS.normal(size=(20, 4)))[0] @ (np.eye(4) + 0.1) * math.sqrt(20)
TRUTH = np.array([[1.0, -0.8, 0.05, 0.6], [0.02, 0.9, -0.7, 0.1], [0.1, -0.15, 0.05, 0.02]])
TARGETS = IMAGES @ TRUTH.T + 0.1 * DRAWS.normal(size=(20, 3))
CURVATURE, LINEAR = IMAGES.T @ IMAGES / 20, TARGETS.T @ IMAGES / 20
"""1/2 mean ||W x - y||^2 has the gradient W CURVATURE - LINEAR."""


def lasso(strength: float, decay: float) -> Array:
    """argmin f + decay/2 ||W||^2 + strength sum |w|, by coordinate descent."""
    curvature = CURVATURE + decay * np.eye(4)
    found = np.zeros((3, 4))
    for _ in range(2000):
        for j in range(4):
            rest = LINEAR[:, j] - found @ curvature[:, j] + found[:, j] * curvature[j, j]
            found[:, j] = np.sign(rest) * np.maximum(np.abs(rest) - strength, 0) / curvature[j, j]
    return found


def group_lasso(strength: float, decay: float) -> Array:
    """argmin f + decay/2 ||W||^2 + strength sum ||w_row||: (H + strength / n) w = b with n = ||w||, n by bisection."""
    curvature = CURVATURE + decay * np.eye(4)
    found = np.zeros((3, 4))
    for row, linear in enumerate(LINEAR):
        if np.linalg.norm(linear) <= strength:
            continue
        low, high = 0.0, 100.0
        for _ in range(200):
            norm = (low + high) / 2
            found[row] = np.linalg.solve(norm * curvature + strength * np.eye(4), norm * linear)
            low, high = (norm, high) if np.linalg.norm(found[row]) > norm else (low, norm)
    return found


PENALTIES = {"l1": (L1, lasso), "group lasso": (ROWS, group_lasso)}

SGDS = {
    "plain": {},
    "momentum": {"momentum": 0.8},
    "dampening": {"momentum": 0.8, "dampening": 0.5},
    "dampening alone": {"dampening": 0.5},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "momentum, decay": {"momentum": 0.8, "weight_decay": 0.2},
}
ADAMS = {"plain": {}, "betas": {"betas": (0.5, 0.9)}, "amsgrad": {"amsgrad": True}, "decay": {"weight_decay": 0.2}}


def session_of(
    schedule_of: ScheduleOf, text: str, optimizer: Callable[[Any], torch.optim.Optimizer], **settings: Any
) -> Session:
    """A session over a linear layer without bias, in double precision."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3, bias=False, dtype=torch.float64)
    bound = schedule_of(text).bind(model, 1, Faults())
    return Session(
        model, optimizer(model.parameters()), bound.policies, Clock(1, 10**6), settings=Settings(**settings), say=print
    )


def trained(session: Session, steps: int) -> Tensor:
    """The weights after some steps on all images."""
    images, targets = torch.from_numpy(IMAGES), torch.from_numpy(TARGETS)
    with session.epoch(0):
        for _ in range(steps):
            with session.step() as step:
                step.backward((session.model(images) - targets).square().sum(1).mean() / 2)
    return next(session.model.parameters()).detach()


def close(found: Tensor, expected: Array, tolerance: float) -> None:
    assert 0 < int((expected == 0).sum()) < expected.size
    assert np.abs(found.numpy() - expected).max() <= tolerance
    assert np.array_equal(found.numpy() == 0, expected == 0)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("settings", SGDS.values(), ids=SGDS)
def test_sgd_ends_at_the_minimum(schedule_of: ScheduleOf, settings: dict[str, Any], penalty: str) -> None:
    regularizer, solve = PENALTIES[penalty]
    momentum = settings.get("momentum", 0.0)
    session = session_of(schedule_of, text(regularizer), lambda p: SGD(p, lr=0.5 * (1 - momentum), **settings))
    close(trained(session, 250 if momentum else 60), solve(0.25, settings.get("weight_decay", 0.0)), 1e-7)


@pytest.mark.parametrize("settings", ADAMS.values(), ids=ADAMS)
def test_adam_ends_at_the_minimum_of_l1(schedule_of: ScheduleOf, settings: dict[str, Any]) -> None:
    session = session_of(schedule_of, text(L1), lambda p: Adam(p, lr=0.1, **settings))
    close(trained(session, 350), lasso(0.25, settings.get("weight_decay", 0.0)), 1e-7)


def test_adamws_decay_acts_beside_the_step(schedule_of: ScheduleOf) -> None:
    session = session_of(schedule_of, text(L1), lambda p: AdamW(p, lr=0.1, betas=(0.5, 0.9), weight_decay=0.5))
    found = trained(session, 350).numpy()
    # At rest v = g^2, and the step lr g / (|g| + eps), the shrinking lr lambda / (|g| + eps) and lr decay w cancel out.
    gradient, moved = found @ CURVATURE - LINEAR, found != 0
    rest = gradient + 0.25 * np.sign(found) + 0.5 * (np.abs(gradient) + 1e-8) * found
    assert 0 < moved.sum() < found.size
    assert np.abs(rest[moved]).max() <= 1e-7
    assert np.abs(gradient[~moved]).max() <= 0.25


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_clipping_does_not_move_the_minimum(schedule_of: ScheduleOf, momentum: float, penalty: str) -> None:
    # There the gradient of the loss alone is lambda for each weight that is not 0: longer than the largest norm.
    regularizer, solve = PENALTIES[penalty]
    session = session_of(schedule_of, text(regularizer), lambda p: SGD(p, lr=0.5, momentum=momentum), clip_norm=0.2)
    expected = solve(0.25, 0.0)
    assert np.linalg.norm(expected @ CURVATURE - LINEAR) > 0.3
    close(trained(session, 120), expected, 1e-7)


def test_clipping_under_adam_does_not_move_the_minimum(schedule_of: ScheduleOf) -> None:
    session = session_of(schedule_of, text(L1), lambda p: Adam(p, lr=0.1), clip_norm=0.2)
    close(trained(session, 350), lasso(0.25, 0.0), 1e-7)


# --- the size of one step, by hand ------------------------------------------------------------------------------------


def single(values: list[float]) -> nn.Linear:
    model = nn.Linear(len(values), 1, bias=False)
    model.weight = nn.Parameter(torch.tensor([values]))
    return model


def test_the_momentum_of_each_step_counts_and_the_scale_of_phases(run_of: RunOf) -> None:
    model = single([4.0])
    run = run_of(text(L1, 0.25), model, steps=3, optimizer=SGD(model.parameters(), lr=0.5, momentum=0.5))
    run.begin(0)
    run.step()  # 0.5 * 0.25 / (1 - 0.5)
    assert model.weight.item() == 3.75
    run.optimizer.param_groups[0]["momentum"] = 0.75  # as a learning-rate schedule cycles it
    run.step()
    assert model.weight.item() == 3.25
    run.session.optimizer.scales["phase"] = 0.5
    run.step()
    assert model.weight.item() == 3.0


def test_a_step_of_adam_by_hand(run_of: RunOf) -> None:
    # g = 2 from the first step on: m_hat = 2, v_hat = 4, a step of lr 2 / (2 + eps) and one of lr lambda / (2 + eps)
    model = single([4.0, 0.5, -1.0])
    run = run_of(text(L1, 1.0), model, optimizer=Adam(model.parameters(), lr=0.5, eps=2.0))
    run.gradient = 2.0
    run.epoch(0)
    assert model.weight.flatten().tolist() == pytest.approx([4 - 0.25 - 0.125, 0.5 - 0.25 - 0.125, -1.25 + 0.125])


def test_a_clipped_step_by_hand(schedule_of: ScheduleOf) -> None:
    session = session_of(schedule_of, text(L1, 0.5), lambda p: SGD(p, lr=0.5), clip_norm=0.5)
    with torch.no_grad():
        session.model.weight.copy_(torch.tensor([[2.0, 0, 0, 0], [0] * 4, [0] * 4]))
    with session.epoch(0), session.step() as step:
        step.backward(session.model.weight[0, 0])  # the gradient 1, clipped to 1/2
    assert session.model.weight[0, 0].item() == pytest.approx(2 - 0.5 * 0.5 - 0.5 * 0.5 * 0.5, abs=1e-5)


# --- what the optimizer leaves alone ----------------------------------------------------------------------------------

MAKE_ZEROS = {"proximal": "proximal: true", "threshold": "threshold: 10"}


@pytest.mark.parametrize("more", MAKE_ZEROS.values(), ids=MAKE_ZEROS)
@pytest.mark.parametrize("why", ["no gradient", "skipped"])
def test_a_weight_that_the_optimizer_leaves_alone_keeps_its_value(schedule_of: ScheduleOf, why: str, more: str) -> None:
    penalty = f"{{class: L1Regularizer, reg_regims: {{weight: 0.25}}, {more}}}"
    session = session_of(schedule_of, text(penalty), lambda p: SGD(p, lr=0.5))
    before = session.model.weight.detach().clone()
    with session.epoch(0), session.step() as step:
        if why == "skipped":
            step.backward(session.model.weight.sum())
            session.optimizer.skip_step()
    assert torch.equal(session.model.weight, before)


@pytest.mark.parametrize("more", MAKE_ZEROS.values(), ids=MAKE_ZEROS)
def test_a_frozen_bias_keeps_its_value(run_of: RunOf, more: str) -> None:
    penalty = f"{{class: L1Regularizer, reg_regims: {{bias: 0.25, weight: 0.25}}, {more}}}"
    model = nn.Linear(3, 2)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    run_of(text(penalty, more="  - {freeze: {weights: weight}}\n"), model).epoch(0)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def test_a_batch_in_parts_has_one_penalty(schedule_of: ScheduleOf) -> None:
    both = "  - {regularizer: {class: L2Regularizer, reg_regims: {weight: 0.125}}}\n"
    penalty = "{class: L1Regularizer, reg_regims: {weight: 0.25}}"
    session = session_of(schedule_of, text(penalty, more=both), lambda p: SGD(p, lr=0.5))
    with torch.no_grad():
        session.model.weight.fill_(2.0)
    with session.epoch(0), session.step() as step:
        for _ in range(4):
            step.backward(session.model.weight.sum(), share=0.25)
    assert (session.model.weight == 2 - 0.5 * (1 + 0.25 + 2 * 0.125 * 2)).all()


def test_averages_are_of_the_weights_after_the_proximal_step(schedule_of: ScheduleOf) -> None:
    session = session_of(schedule_of, text(L1, 0.5), lambda p: SGD(p, lr=0.5), average_decay=0.5)
    with torch.no_grad():
        session.model.weight.fill_(2.0)
    with session.epoch(0):
        for _ in range(2):
            with session.step() as step:
                step.backward(0 * session.model.weight.sum())
    # 1.75, 1.5: (1/2 * 1/2 * 1.75 + 1/2 * 1.5) / (1 - 1/4)
    with session.as_shipped():
        assert session.model.weight.flatten().tolist() == pytest.approx([(0.25 * 1.75 + 0.5 * 1.5) / 0.75] * 12)


def test_a_penalty_on_hashed_weights_acts_in_either_order(run_of: RunOf) -> None:
    penalty = "  - {regularizer: {class: L1Regularizer, reg_regims: {weight: 0.5}}}\n"
    hashed = "  - {gate: {class: HashedWeights, weights: weight, compression: 0.5}}\n"
    after = []
    for order in (penalty + hashed, hashed + penalty, hashed):
        torch.manual_seed(0)
        run = run_of(f"version: 2\npolicies:\n{order}", nn.Linear(4, 3))
        run.gradient = 0.25
        run.epoch(0)
        after.append(run.model.weight.detach())
    assert torch.equal(after[0], after[1])
    assert not torch.equal(after[0], after[2])


# --- filters that are set to zero, and their companions ---------------------------------------------------------------


def network() -> nn.Sequential:
    """A convolution of four filters, of which 0 and 2 are small, a batch norm, and readers; all other values are 1 or
    more.
    """
    model = nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(1, 4, 2), bn=nn.BatchNorm2d(4), act=nn.ReLU(), next=nn.Conv2d(4, 3, 2), pool=nn.Flatten(),
            fc=nn.Linear(12, 2),
        )
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
        model.conv.weight.copy_(torch.tensor([0.01, 2.0, 0.01, 3.0])[:, None, None, None].expand(4, 1, 2, 2))
        model.conv.bias.fill_(1.5)
    return model


SSL = """\
version: {version}
regularizers:
  ssl: {{class: GroupLassoRegularizer, reg_regims: {{conv.weight: [0.001, Filters]}}, {how}}}
extensions:
  thinner: {{class: FilterRemover, thinning_func_str: remove_filters}}
policies:
  - regularizer: {{instance_name: ssl, args: {{keep_mask: {keep}}}}}
    starting_epoch: 0
    ending_epoch: 2
    frequency: 1
  - extension: {{instance_name: thinner}}
    epochs: [2]
"""
HOW = {
    "largest": "threshold_criteria: Max, threshold: 0.5",
    "mean": "threshold_criteria: Mean_Abs, threshold: 0.5",
    "proximal": "proximal: true",
}


def ssl(run_of: RunOf, how: str, *, keep: bool, version: int, strength: str = "0.001") -> Any:
    """Two epochs of group lasso and one step of the third, in which the filters are removed."""
    text = SSL.format(version=version, how=how, keep=str(keep).lower()).replace("0.001", strength)
    run = run_of(text, network(), steps=2, lr=0.01, momentum=0.9, images=torch.ones(2, 1, 4, 4))
    run.gradient = 0.25  # every parameter moves in each step
    for epoch in range(2):
        run.epoch(epoch)
    return run


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("keep", [True, False], ids=["masked", "not masked"])
@pytest.mark.parametrize("how", [how for how in HOW if how != "proximal"])
def test_in_one_schedule_a_threshold_makes_filters_zero_and_they_are_removed(
    run_of: RunOf, how: str, keep: bool, version: int
) -> None:
    run = ssl(run_of, HOW[how], keep=keep, version=version)
    conv, bn = run.model.conv, run.model.bn
    alive = torch.tensor([False, True, False, True])
    for value in (conv.weight.flatten(1).any(1), conv.bias, bn.weight, bn.bias):
        assert (value != 0).tolist() == alive.tolist()
    run.epoch(2)
    shapes = {name: list(parameter.shape) for name, parameter in run.model.named_parameters()}
    assert shapes == {
        "conv.weight": [2, 1, 2, 2], "conv.bias": [2], "bn.weight": [2], "bn.bias": [2],
        "next.weight": [3, 2, 2, 2], "next.bias": [3], "fc.weight": [2, 12], "fc.bias": [2],
    }  # fmt: skip
    assert run.model.conv.weight.flatten(1).all()


@pytest.mark.parametrize("keep", [True, False], ids=["masked", "not masked"])
def test_after_proximal_steps_the_companions_go_where_a_mask_keeps_the_zeros(run_of: RunOf, keep: bool) -> None:
    # Without a mask the minimum of loss + penalty is wanted, and the penalty is not on the bias.
    run = ssl(run_of, HOW["proximal"], keep=keep, version=2, strength="1.0")
    assert (run.model.conv.weight.flatten(1).any(1)).tolist() == [False, True, False, True]
    for value in (run.model.conv.bias, run.model.bn.weight, run.model.bn.bias):
        assert (value != 0).tolist() == ([False, True, False, True] if keep else [True] * 4)
    run.epoch(2)
    assert len(run.model.conv.weight) == (2 if keep else 4)


def test_a_filter_that_comes_back_has_companions_that_come_back(run_of: RunOf) -> None:
    run = ssl(run_of, HOW["largest"], keep=False, version=2)
    run.gradient = -100.0  # a step above the threshold: filter 0 and 2 live again
    run.begin(1)
    run.step()
    run.step()
    assert all((value != 0).all() for value in (run.model.conv.weight, run.model.bn.weight, run.model.bn.bias))


@pytest.mark.parametrize("moment", [(0, 2), (1, 0), (1, 2)])
def test_a_run_resumed_under_a_threshold_ends_in_the_same_bits(moment: tuple[int, int]) -> None:
    def loop(seed: int) -> Loop:
        torch.manual_seed(seed)
        model = nn.Sequential(
            OrderedDict(conv=nn.Linear(3, 6), bn=nn.BatchNorm1d(6), drop=nn.Dropout(0.2), fc=nn.Linear(6, 3))
        )
        schedule = SSL.format(version=2, how="threshold_criteria: Max, threshold: 0.4", keep="true")
        settings: dict[str, Any] = {"optimizer": {"lr": 0.1, "momentum": 0.9}, "seed": seed}
        return Loop(model, random_batches([5] * 3), schedule, epochs=3, **settings)

    whole = loop(0).run()
    assert 0 < len(whole.model.bn.bias) < 6
    assert difference(loop(5).resume(whole.at(moment)).at((3, 0)), whole.at((3, 0))) is None


def test_a_threshold_on_parts_of_filters_leaves_the_companions_alone(run_of: RunOf) -> None:
    for regims in ("[0.001, Channels]", "[0.001, 4D]", "[0.001, Shapes]"):
        schedule = SSL.format(version=2, how=HOW["largest"], keep="true").replace("[0.001, Filters]", regims)
        run = run_of(schedule, network(), images=torch.ones(2, 1, 4, 4))
        run.epoch(0)
        assert run.model.bn.bias.all()


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_an_optimizer_whose_step_size_is_not_known_is_refused(schedule_of: ScheduleOf) -> None:
    with pytest.raises(
        UserError, match=r"^0\.L1Regularizer: no proximal step: .* SGD, Adam and AdamW, not for RMSprop$"
    ):
        session_of(schedule_of, text(L1), lambda p: torch.optim.RMSprop(p, lr=0.1))


def test_group_lasso_has_no_proximal_step_under_adam(schedule_of: ScheduleOf) -> None:
    with pytest.raises(UserError, match="no proximal step: Adam"):
        session_of(schedule_of, text(ROWS), lambda p: Adam(p, lr=0.1))


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_validate_refuses_it_with_its_line(schedule_of: ScheduleOf, name: str) -> None:
    model, faults = nn.Linear(4, 3, bias=False), Faults()
    config = OptimizerConfig.model_validate({"name": name, "lr": 0.1})
    view = view_of(model, groups=optimizers.settings(model, config))
    schedule_of(text(ROWS)).bind(model, 1, faults).check(view, faults)
    place = text(ROWS).splitlines()[2].index("true") + 1
    said = f"s.yaml:3:{place}: {OF_ADAM}"
    assert faults.lines == ([] if name == "sgd" else [said])


HASHED = "  - gate: {{class: HashedWeights, weights: weight, compression: 0.5}}\n    {gate}\n"


@pytest.mark.parametrize("more", MAKE_ZEROS.values(), ids=MAKE_ZEROS)
@pytest.mark.parametrize(
    ("gate", "own", "refused"),
    [
        ("ending_epoch: 2", "starting_epoch: 1", True),
        ("ending_epoch: 2", "starting_epoch: 2", False),
        ("ending_epoch: 2", "epochs: [0, 3]", True),
        ("starting_epoch: 2", "starting_epoch: 1\n    frequency: 4", False),
        ("ending_step: 11", "starting_epoch: 1", True),
        ("ending_step: 10", "starting_epoch: 1", False),
        ("starting_epoch: 1", "ending_step: 11", True),
        ("starting_epoch: 1", "ending_step: 10", False),
    ],
)
def test_what_a_gate_computes_after_each_step_has_no_proximal_step_and_no_threshold(
    schedule_of: ScheduleOf, gate: str, own: str, refused: bool, more: str
) -> None:
    model, faults = nn.Linear(4, 3), Faults()
    penalty = f"{{class: L1Regularizer, {more}, reg_regims: {{weight: 0.25, bias: 0.1}}}}"
    given = text(penalty, more=f"    {own}\n" + HASHED.format(gate=gate))
    schedule_of(given).bind(model, 4, faults).check(view_of(model, epochs=4, steps=10), faults)
    place = given.splitlines()[2].index("{weight") + 1
    said = [f"s.yaml:3:{place}: {name}: {OF_COMPUTED}" for name in ("weight", "bias")]
    assert faults.lines == (said if refused else [])


def test_a_penalty_by_gradient_is_no_fault_there(schedule_of: ScheduleOf) -> None:
    model, faults = nn.Linear(4, 3), Faults()
    given = text("{class: L1Regularizer, reg_regims: {weight: 0.25}}", more=HASHED.format(gate="ending_epoch: 2"))
    schedule_of(given).bind(model, 4, faults).check(view_of(model, epochs=4, steps=10), faults)
    assert faults.lines == []
