"""Group lasso: the closed-form gradient, groups that overlap, the proximal step, thresholds, faults."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import compress, metrics, saved, succeed, write_tiny
from torch import Tensor, nn

from compressor.errors import UserError

RunOf = Callable[..., Any]

TEXT = "version: 2\npolicies:\n  - regularizer: {{class: GroupLassoRegularizer, reg_regims: {regims}{more}}}\n"


def text(regims: str, more: str = "") -> str:
    return TEXT.format(regims=regims, more=more)


def layer(values: Any, dtype: torch.dtype = torch.float32) -> nn.Linear:
    values = torch.as_tensor(values, dtype=dtype)
    model = nn.Linear(values.shape[1], values.shape[0], bias=False)
    model.weight = nn.Parameter(values.clone())
    return model


def conv(values: Any) -> nn.Conv2d:
    values = torch.as_tensor(values)
    model = nn.Conv2d(values.shape[1], values.shape[0], tuple(values.shape[2:]), bias=False)
    model.weight = nn.Parameter(values.clone())
    return model


def stepped(run: Any) -> Tensor:
    """The weights after one step of one epoch."""
    run.epoch(0)
    return run.model.weight.detach()


def slices(group: str, weight: Tensor) -> list[Tensor]:
    """The groups of a weight, written down one by one."""
    filters, channels = weight.shape[:2]
    every = {
        "Filters": lambda: [weight[n] for n in range(filters)],
        "Channels": lambda: [weight[:, c] for c in range(channels)],
        "2D": lambda: [weight[n, c] for n in range(filters) for c in range(channels)],
        "Shapes": lambda: list(weight.flatten(1).T),
        "4D": lambda: [weight],
    }
    same = {"3D": "Filters", "Rows": "Filters", "Cols": "Channels", "Kernels": "2D", "Layer": "4D"}
    return [part for name in group.split("+") for part in every[same.get(name, name)]()]


CONVOLUTION = [
    "2D",
    "Kernels",
    "3D",
    "Filters",
    "Channels",
    "4D",
    "Layer",
    "Shapes",
    "Channels+4D",
    "3D+Channels+Shapes",
]
LINEAR = ["Rows", "Cols", "4D", "Rows+Cols", "Filters", "Channels"]
CASES = [
    *[pytest.param((3, 2, 3, 3), group, id=f"conv {group}") for group in CONVOLUTION],
    *[pytest.param((3, 4, 5), group, id=f"conv1d {group}") for group in ("2D", "Filters", "Channels+4D")],
    *[pytest.param((4, 3), group, id=f"linear {group}") for group in LINEAR],
]


def module(weight: Tensor) -> nn.Module:
    kinds: dict[int, type[nn.Module]] = {2: nn.Linear, 3: nn.Conv1d, 4: nn.Conv2d}
    n, c, *kernel = weight.shape
    made = kinds[weight.dim()](c, n, *([tuple(kernel)] if kernel else []), bias=False)
    made.weight = nn.Parameter(weight.clone())
    return made


# --- the gradient and the value ---------------------------------------------------------------------------------------


def test_the_gradient_is_lambda_times_the_direction_and_0_where_the_group_is_0(run_of: RunOf) -> None:
    # norms 5, 0, 13
    run = run_of(text("{weight: [0.5, Rows]}"), layer([[3.0, -4.0], [0.0, -0.0], [-5.0, 12.0]]), lr=1.0)
    run.gradient = 2.0
    after = stepped(run)
    assert run.model.weight.grad.tolist() == [
        pytest.approx([2.3, 1.6]),
        [2.0, 2.0],
        pytest.approx([2 - 2.5 / 13, 2 + 6 / 13]),
    ]
    assert after[0].tolist() == pytest.approx([0.7, -5.6])


def test_the_value_is_lambda_times_the_sum_of_the_norms(run_of: RunOf) -> None:
    values = [[3.0, -4.0], [0.0, 0.0], [-5.0, 12.0]]
    assert run_of(text("{weight: [0.5, Rows]}"), layer(values)).events.losses() == {
        "GroupLassoRegularizer": pytest.approx(0.5 * 18)
    }
    columns = math.sqrt(34) + math.sqrt(160)
    assert run_of(text("{weight: [0.5, Cols]}"), layer(values)).events.losses() == {
        "GroupLassoRegularizer": pytest.approx(0.5 * columns)
    }


@pytest.mark.parametrize(("shape", "group"), CASES)
@pytest.mark.parametrize("normalized", [False, True], ids=["plain", "size_normalized"])
def test_gradient_and_value_are_those_of_autograd_over_groups_written_down(
    run_of: RunOf, shape: tuple[int, ...], group: str, normalized: bool
) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    free = weight.clone().requires_grad_()
    parts = slices(group, free)
    penalty = sum(0.25 * (math.sqrt(part.numel()) if normalized else 1) * part.square().sum().sqrt() for part in parts)
    penalty.backward()
    run = run_of(text(f"{{weight: [0.25, {group}]}}", f", size_normalized: {normalized}"), module(weight))
    assert sum(run.events.losses().values()) == pytest.approx(float(penalty.detach()), rel=1e-6)
    run.begin(0)
    run.step()
    torch.testing.assert_close(run.model.weight.grad, free.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("group", ["Filters", "Channels", "Shapes", "2D"])
def test_a_weight_in_another_memory_format_has_the_same_gradient(run_of: RunOf, group: str) -> None:
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    gradients = []
    for memory in (torch.contiguous_format, torch.channels_last):
        run = run_of(text(f"{{weight: [0.25, {group}]}}"), conv(weight).to(memory_format=memory))
        stepped(run)
        gradients.append(run.model.weight.grad.contiguous())
    torch.testing.assert_close(*gradients)


def test_rows_of_a_matrix_are_the_columns_of_its_transpose(run_of: RunOf) -> None:
    weight = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    rows = run_of(text("{weight: [0.25, Rows]}"), layer(weight))
    columns = run_of(text("{weight: [0.25, Cols]}"), layer(weight.T))
    assert sum(rows.events.losses().values()) == pytest.approx(sum(columns.events.losses().values()), rel=1e-6)
    torch.testing.assert_close(stepped(rows), stepped(columns).T)


@pytest.mark.parametrize("version", [1, 2])
def test_row_rows_are_the_stored_rows_in_both_versions(run_of: RunOf, version: int) -> None:
    schedule = text("{weight: [1, Rows]}").replace("version: 2", f"version: {version}")
    run = run_of(schedule, layer([[3.0, 4.0], [0.0, 0.0]]))
    assert run.events.losses() == {"GroupLassoRegularizer": pytest.approx(5)}  # columns: 3 + 4


def test_permuting_inside_a_group_leaves_the_value_and_across_groups_does_not(run_of: RunOf) -> None:
    def value(weight: Tensor) -> float:
        return float(sum(run_of(text("{weight: [1, Filters]}"), conv(weight)).events.losses().values()))

    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    order = torch.randperm(27, generator=torch.Generator().manual_seed(2))
    inside = weight.flatten(1)[:, order].reshape(weight.shape)
    across = torch.cat([weight.flatten()[1:], weight.flatten()[:1]]).reshape(weight.shape)
    assert value(inside) == pytest.approx(value(weight), rel=1e-6)
    assert value(across) != pytest.approx(value(weight), rel=1e-3)


@pytest.mark.parametrize("tiny", [0.0, 1e-25, 1e-40], ids=["zero", "its square is 0", "denormal"])
@pytest.mark.parametrize("group", ["Rows", "Cols", "4D"])
def test_a_group_at_or_next_to_zero_has_a_finite_gradient(run_of: RunOf, group: str, tiny: float) -> None:
    run = run_of(text(f"{{weight: [1e4, {group}]}}"), layer(torch.full((3, 2), tiny)))
    stepped(run)
    assert run.model.weight.grad.isfinite().all()
    assert run.model.weight.grad.abs().max() <= 1e4
    assert tiny or not run.model.weight.grad.any()


def test_nan_weights_do_not_hide(run_of: RunOf) -> None:
    run = run_of(text("{weight: [1, Rows]}"), layer([[math.nan, 1.0], [3.0, 4.0]]))
    assert math.isnan(sum(run.events.losses().values()))
    stepped(run)
    assert run.model.weight.grad[0].isnan().all()
    assert run.model.weight.grad[1].tolist() == pytest.approx([0.6, 0.8])


def test_a_weight_without_a_gradient_is_left_alone(run_of: RunOf) -> None:
    run = run_of(text("{weight: [1, Rows]}"), layer([[3.0, 4.0]]))
    run.events.fire("penalty_gradients")
    assert run.model.weight.grad is None


# --- groups that overlap, lambdas of their own ------------------------------------------------------------------------


def test_filters_channels_shapes_and_depth_have_lambdas_of_their_own(run_of: RunOf) -> None:
    # One channel, kernels of 1x2: filters of norm 5 and 0, channel 5, shapes 3 and 4, layer 5.
    regims = "{weight: [[1, 3D], [10, Channels], [100, Shapes], [1000, 4D]]}"
    run = run_of(text(regims), conv([[[[3.0, 4.0]]], [[[0.0, 0.0]]]]), lr=1.0)
    assert run.events.losses() == {"GroupLassoRegularizer": pytest.approx(5 + 50 + 700 + 5000)}
    stepped(run)
    # (1 + 10 + 1000) * 0.6 + 100 * 3/3 and (1 + 10 + 1000) * 0.8 + 100 * 4/4
    assert run.model.weight.grad.flatten().tolist() == pytest.approx([706.6, 908.8, 0, 0])


def test_a_plus_gives_both_groups_the_same_lambda(run_of: RunOf) -> None:
    values = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    joined = run_of(text("{weight: [0.25, Rows+Cols]}"), layer(values))
    listed = run_of(text("{weight: [[0.25, Cols], [0.25, Rows]]}"), layer(values))
    torch.testing.assert_close(stepped(joined), stepped(listed))
    one = run_of(text("{weight: [0.25, Rows]}"), layer(values))
    assert not torch.allclose(stepped(one), stepped(joined))


def test_size_normalized_is_the_root_of_the_size_of_each_group(run_of: RunOf) -> None:
    values = [[1.0, 1.0, 1.0, 1.0], [0.0, 3.0, 0.0, 4.0]]  # norms 2 and 5, size 4
    run = run_of(text("{weight: [0.5, Rows]}", ", size_normalized: true"), layer(values))
    assert run.events.losses() == {"GroupLassoRegularizer": pytest.approx(0.5 * 2 * 7)}
    stepped(run)
    assert run.model.weight.grad.flatten().tolist() == pytest.approx([0.5] * 4 + [0, 0.6, 0, 0.8])
    shrunk = stepped(
        run_of(text("{weight: [0.5, Rows]}", ", size_normalized: true, proximal: true"), layer(values), lr=1.0)
    )
    assert shrunk.flatten().tolist() == pytest.approx([0.5] * 4 + [0, 2.4, 0, 3.2])


# --- the proximal step ------------------------------------------------------------------------------------------------


def proximal(run_of: RunOf, values: Any, step: float, group: str = "Rows") -> Tensor:
    """The proximal step by `step` from `values`, in double precision."""
    run = run_of(text(f"{{weight: [{step!r}, {group}]}}", ", proximal: true"), layer(values, torch.float64), lr=1.0)
    return stepped(run)


def test_a_proximal_step_shortens_each_group_by_lr_times_lambda(run_of: RunOf) -> None:
    # lr lambda = 0.5 * 2; norms 5, 0.5, 1, 0
    values = [[3.0, -4.0], [-0.3, 0.4], [-1.0, 0.0], [0.0, -0.0]]
    run = run_of(text("{weight: [2, Rows]}", ", proximal: true"), layer(values), lr=0.5)
    after = stepped(run)
    assert after.flatten().tolist() == pytest.approx([2.4, -3.2, 0, 0, 0, 0, 0, 0])
    assert not torch.signbit(after[after == 0]).any()
    assert not run.model.weight.grad.any()  # instead of the gradient, not on top of it


def test_a_proximal_step_goes_by_the_rate_of_the_weights_own_group(run_of: RunOf) -> None:
    model = nn.Sequential(layer([[3.0, 4.0]]), layer([[3.0, 4.0]]))
    groups = [{"params": [model[0].weight], "lr": 0.5}, {"params": [model[1].weight], "lr": 0.25}]
    run = run_of(text("{'*': [4, Rows]}", ", proximal: true"), model, optimizer=torch.optim.SGD(groups, lr=1.0))
    run.epoch(0)
    assert model[0].weight.tolist() == [pytest.approx([1.8, 2.4])]
    assert model[1].weight.tolist() == [pytest.approx([2.4, 3.2])]


@pytest.mark.parametrize("step", [0.25, 1.0, 2.0])
def test_a_proximal_step_is_the_numeric_argmin(run_of: RunOf, step: float) -> None:
    values = torch.randn(1, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 2
    assert values.norm() > step
    free = values.clone().requires_grad_()
    for _ in range(500):
        ((free - values).square().sum() / 2 + step * free.norm()).backward()
        assert free.grad is not None
        free.data -= 0.4 * free.grad
        free.grad = None
    torch.testing.assert_close(proximal(run_of, values, step), free.detach(), rtol=0, atol=1e-8)


def test_a_proximal_step_reaches_zero_if_and_only_if_the_norm_is_at_most_lr_lambda(run_of: RunOf) -> None:
    values = torch.randn(1, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    norm = float(values.norm())
    assert not proximal(run_of, values, norm).any()
    assert not proximal(run_of, values, norm * (1 + 1e-9)).any()
    assert proximal(run_of, values, norm * (1 - 1e-9)).all()
    for whole in range(1, 60):  # whole numbers over themselves are 1, whatever 1 / n is rounded to
        assert not proximal(run_of, [[float(whole)]], float(whole)).any()


@pytest.mark.parametrize("order", ["[[1, Rows], [1, 4D]]", "[[1, 4D], [1, Rows]]", "[1, Rows+4D]"])
def test_of_nested_groups_the_smaller_ones_come_first(run_of: RunOf, order: str) -> None:
    # Rows: [2.4, 3.2] and 0; the layer of norm 4 then becomes 3/4 of it. It is the argmin: in the first row
    # z - v + z / ||z_row|| + z / ||z|| = [1.8 - 3 + 0.6 + 0.6, 2.4 - 4 + 0.8 + 0.8] = 0.
    run = run_of(text(f"{{weight: {order}}}", ", proximal: true"), layer([[3.0, 4.0], [0.0, 1.0]]), lr=1.0)
    assert stepped(run).flatten().tolist() == pytest.approx([1.8, 2.4, 0, 0])


@pytest.mark.parametrize(
    ("group", "words"),
    [("Rows+Cols", "Rows and Cols"), ("Filters+Channels", "Filters and Channels"), ("2D+Shapes", "2D and Shapes")],
)
def test_a_proximal_step_of_groups_that_overlap_otherwise_is_refused(run_of: RunOf, group: str, words: str) -> None:
    with pytest.raises(UserError, match=rf"^s\.yaml:3:.*no proximal step: {words} overlap"):
        run_of(text(f"{{weight: [1, {group}]}}", ", proximal: true"), layer([[1.0]]))


@pytest.mark.parametrize("group", ["Channels+4D", "Shapes+Channels+4D", "2D+Filters+Layer", "Filters+3D"])
def test_nested_groups_may_take_proximal_steps_and_a_group_stands_once(run_of: RunOf, group: str) -> None:
    weight = torch.randn(2, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    schedule = text(f"{{weight: [1e-3, {group}]}}", ", proximal: true")
    if group == "Filters+3D":
        with pytest.raises(UserError, match="names a group twice"):
            run_of(schedule, conv(weight))
    else:
        assert stepped(run_of(schedule, conv(weight))).norm() < weight.norm()


def test_two_regularizers_take_their_proximal_steps_one_after_the_other(run_of: RunOf) -> None:
    one, other = (text(f"{{weight: [1, {group}]}}", ", proximal: true") for group in ("Rows", "Cols"))
    run = run_of(one + other.partition("policies:\n")[2], layer([[3.0, 4.0], [0.0, 0.0]]), lr=1.0)
    assert stepped(run).flatten().tolist() == pytest.approx([1.4, 2.2, 0, 0])  # by way of [2.4, 3.2]


def fitted(run: Any, images: Tensor, targets: Tensor, steps: int, rate: Callable[[int], float]) -> Tensor:
    """Least squares under the run's policies: 1/2 ||Y - X W^T||^2."""
    run.begin(0)
    for step in range(steps):
        run.optimizer.param_groups[0]["lr"] = rate(step)
        run.optimizer.zero_grad()
        ((run.model(images) - targets).square().sum() / 2).backward()
        run.events.fire("penalty_gradients")
        run.optimizer.step()
        run.events.fire("on_minibatch_end")
    return run.model.weight.detach()


@pytest.mark.parametrize("group", ["Rows", "Cols"])
@pytest.mark.parametrize("strength", [0.25, 1.0, 2.0])
@pytest.mark.parametrize("more", ["", ", proximal: true"], ids=["gradient", "proximal"])
def test_with_orthonormal_inputs_the_solution_is_the_group_soft_threshold_of_least_squares(
    run_of: RunOf, group: str, strength: float, more: str
) -> None:
    draws = torch.Generator().manual_seed(5)
    images = torch.linalg.qr(torch.randn(20, 4, dtype=torch.float64, generator=draws))[0]
    truth = torch.randn(4, 4, dtype=torch.float64, generator=draws) * torch.tensor([0.1, 0.5, 1.0, 2.0])
    targets = images @ (truth if group == "Cols" else truth.T).T
    least = targets.T @ images
    dim = 1 if group == "Rows" else 0
    solution = least * (1 - strength / least.norm(dim=dim, keepdim=True)).clamp(min=0)
    assert 0 < int((solution.norm(dim=dim) > 0).sum()) < 4
    run = run_of(text(f"{{weight: [{strength}, {group}]}}", more), layer(torch.zeros(4, 4) + 1, torch.float64))
    # Gradient steps cross zero by lr * lambda each time: their rate has to fall.
    found = fitted(run, images, targets, 1500, lambda step: 0.5 if more else 0.5 * 0.99**step)
    assert (found - solution).abs().max() <= 1e-4
    if more:
        torch.testing.assert_close(found, solution, rtol=0, atol=1e-12)
        assert torch.equal(found == 0, solution == 0)


# --- thresholds -------------------------------------------------------------------------------------------------------

MATRIX = [[1.0, -2.0, 3.0], [-4.0, 5.0, -6.0], [7.0, -8.0, 9.0], [-10.0, 11.0, -12.0]]


def thresholded(run_of: RunOf, values: Any, regims: str, more: str) -> Tensor:
    return stepped(run_of(text(regims, more), layer(values), lr=1e-12))


@pytest.mark.parametrize(
    ("group", "criteria", "threshold", "rows", "columns"),
    [
        ("Rows", "Max", 7, "0011", "111"),  # the grammar's reference vector
        ("Rows", "Max", 6, "0011", "111"),  # maxima 3, 6, 9, 12: not above 6 goes
        ("Rows", "Max", 5.5, "0111", "111"),
        ("Rows", "Mean_Abs", 5.5, "0011", "111"),  # means 2, 5, 8, 11
        ("Rows", "Mean_Abs", 5, "0011", "111"),
        ("Rows", "Mean_Abs", 4.9, "0111", "111"),
        ("Cols", "Max", 10, "1111", "011"),  # maxima 10, 11, 12
        ("Cols", "Mean_Abs", 6.5, "1111", "001"),  # means 5.5, 6.5, 7.5
        ("4D", "Max", 11.9, "1111", "111"),
        ("4D", "Max", 12, "0000", "000"),
        ("4D", "Mean_Abs", 6.5, "0000", "000"),
        ("4D", "Mean_Abs", 6.4, "1111", "111"),
        ("Rows+Cols", "Mean_Abs", 5.6, "0011", "011"),
    ],
)
def test_groups_at_or_below_the_threshold_become_zero(
    run_of: RunOf, group: str, criteria: str, threshold: float, rows: str, columns: str
) -> None:
    more = f", threshold_criteria: {criteria}, threshold: {threshold}"
    after = thresholded(run_of, MATRIX, f"{{weight: [0.001, {group}]}}", more)
    kept = torch.tensor([[int(a) * int(b) for b in columns] for a in rows])
    assert after.tolist() == (torch.tensor(MATRIX) * kept).tolist()
    assert not torch.signbit(after[after == 0]).any()


@pytest.mark.parametrize(("shape", "group"), [case for case in CASES if "+" not in case.values[1]])
@pytest.mark.parametrize("criteria", ["Max", "Mean_Abs"])
def test_the_criterion_is_that_of_each_group_written_down(
    run_of: RunOf, shape: tuple[int, ...], group: str, criteria: str
) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    expected = weight.clone()
    parts = slices(group, expected)  # views of it
    scores = [float(part.abs().max() if criteria == "Max" else part.abs().mean()) for part in parts]
    threshold = sorted(scores)[len(scores) // 2] + 1e-6
    for part, score in zip(parts, scores, strict=True):
        if score <= threshold:
            part.zero_()
    assert (expected == 0).any()
    more = f", threshold_criteria: {criteria}, threshold: {threshold}"
    assert torch.equal(stepped(run_of(text(f"{{weight: [0, {group}]}}", more), module(weight))), expected)


def test_row_the_threshold_is_its_own_argument_and_lambda_by_default(run_of: RunOf) -> None:
    by_default = thresholded(run_of, MATRIX, "{weight: [7, Rows]}", ", threshold_criteria: Max")
    assert (by_default != 0).all(1).tolist() == [False, False, True, True]
    # Each lambda is the threshold of its own group: rows at most 3, columns at most 10.
    both = thresholded(run_of, MATRIX, "{weight: [[3, Rows], [10, Cols]]}", ", threshold_criteria: Max")
    assert (both != 0).tolist() == [[False] * 3, *[[False, True, True]] * 3]
    plain = thresholded(run_of, MATRIX, "{weight: [100, Rows]}", "")
    assert plain.all()


def test_groups_that_overlap_are_judged_before_any_is_cut(run_of: RunOf) -> None:
    # Row and column means 1 and 3. Were the first row cut before, the second column's would be 2.5, and all would go.
    more = ", threshold_criteria: Mean_Abs, threshold: 2.6"
    after = thresholded(run_of, [[1.0, 1.0], [1.0, 5.0]], "{weight: [0.001, Rows+Cols]}", more)
    assert after.tolist() == [[0, 0], [0, 5]]


def test_keep_mask_keeps_the_groups_of_the_last_threshold_and_without_it_they_are_forgotten(run_of: RunOf) -> None:
    for keep in ("true", "false"):
        more = f", threshold_criteria: Max, threshold: 0.25, args: {{keep_mask: {keep}}}"
        schedule = text("{weight: [0, Rows]}", more) + "    ending_epoch: 2\n"
        run = run_of(schedule, layer([[1.0, 0.0], [0.1, 0.0]]), steps=3, lr=0.25)
        run.gradient = -0.5  # each step adds 0.125
        for epoch in (0, 1):
            run.epoch(epoch)
        assert run.model.weight.tolist() == [[1.75, 0.75], [0, 0]]
        run.epoch(2)
        assert run.model.weight.tolist() == [[2.125, 1.125], [0, 0] if keep == "true" else [0.375, 0.375]]


def test_wens_clamp_of_single_weights_is_an_l1_regularizer_of_lambda_0(run_of: RunOf) -> None:
    clamp = "  - regularizer: {class: L1Regularizer, reg_regims: {weight: 0}, threshold: 1e-4}\n"
    run = run_of(text("{weight: [0.5, Rows]}") + clamp, layer([[3.0, 4.0], [1e-4, -5e-5]]), lr=1e-4)
    assert stepped(run)[1].tolist() == [0, 0]  # a step of lr * lambda = 5e-5 is below the clamp
    assert run.model.weight[0].all()


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("regims", "more", "words"),
    [
        ("{weight: [0.1, Fliters]}", "", "did you mean 'Filters'"),
        ("{weight: [0.1, Elements]}", "", "no group 'Elements'"),
        ("{weight: [0.1, Rows+]}", "", "no group ''"),
        ("{weight: 0.1}", "", r"should be \[lambda, group\], or a list of such pairs"),
        ("{weight: []}", "", r"should be \[lambda, group\]"),
        ("{weight: [0.1]}", "", r"should be \[lambda, group\]"),
        ("{weight: [0.1, Rows, Cols]}", "", r"should be \[lambda, group\]"),
        ("{weight: [[0.1, Rows], 3]}", "", r"should be \[lambda, group\]"),
        ("{weight: [-0.1, Rows]}", "", "greater than or equal to 0"),
        ("{weight: [.inf, Rows]}", "", "finite"),
        ("{weight: [true, Rows]}", "", "should be a number"),
        ("{weight: [Rows, 0.1]}", "", "should be a number"),
        ("{}", "", "at least 1"),
        ("[weight]", "", "should be a dictionary"),
        ("{weight: [0.1, Rows]}", ", threshold: 0.1", "`threshold` needs `threshold_criteria`"),
        ("{weight: [0.1, Rows]}", ", threshold_criteria: Mean", "'Max' or 'Mean_Abs'"),
        ("{weight: [0.1, Rows]}", ", args: {keep_mask: true}", "makes no zeros"),
        (
            "{weight: [0.1, 2D]}",
            "",
            "weight: 2D are structures of .*convolutions, this weight's shape is 2x2",
        ),
        ("{bias: [0.1, 4D]}", "", "bias: 4D are structures of .*, this weight's shape is 2"),
    ],
)
def test_what_is_no_group_lasso_is_refused(run_of: RunOf, regims: str, more: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        run_of(text(regims, more), nn.Linear(2, 2))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a tiny experiment."""
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("model", "weight", "group", "words"),
    [
        (
            "lenet_5",
            "conv1.weight",
            "Rows",
            "Rows are structures of weights of linear layers, this weight's shape is 20x1x5x5",
        ),
        ("lenet_5", "fc1.weight", "Kernels", "2D are structures of"),
        ("lenet_5", "conv2.weight", "Filters+Cols", "Cols are structures of"),
        ("'given:network'", "up.weight", "Channels", None),
        ("'given:network'", "up.weight", "2D+4D", None),
    ],
)
def test_validate_says_which_weight_a_group_does_not_fit_and_where(
    folder: Path, monkeypatch: pytest.MonkeyPatch, model: str, weight: str, group: str, words: str | None
) -> None:
    (folder / "given.py").write_text(
        "from collections import OrderedDict\nfrom torch import nn\n\n\ndef network(num_classes):\n"
        "    up, fc = nn.ConvTranspose2d(1, 2, 3), nn.Linear(1800, num_classes)\n"
        "    return nn.Sequential(OrderedDict([('up', up), ('flat', nn.Flatten()), ('fc', fc)]))\n"
    )
    monkeypatch.setenv("COMPRESS_ALLOW_PLUGINS", "1")
    monkeypatch.syspath_prepend(str(folder))
    (folder / "c.yaml").write_text(
        f"model: {{name: {model}}}\ndata: {{name: digits}}\noptimizer: {{lr: 0.1}}\nepochs: 3\n"
    )
    (folder / "s.yaml").write_text(text(f"{{{weight}: [0.1, {group}]}}"))
    result = compress("validate", "s.yaml", "-c", "c", "--allow-plugins")
    assert result.code == (2 if words else 0), result.err
    assert "Traceback" not in result.err
    if words:
        (line,) = result.err.splitlines()
        assert line.startswith("s.yaml:3:")
        assert weight in line
        assert words in line


DISTILLER = """\
version: 1

regularizers:
  inputs_regularizer:
    class: GroupLassoRegularizer
    reg_regims:
      module.fc1.weight: [0.03, Cols]
    threshold_criteria: Max

lr_schedulers:
  training_lr:
    class: StepLR
    step_size: 2
    gamma: 0.50

policies:
  - regularizer:
      instance_name: inputs_regularizer
      args:
        keep_mask: True
    starting_epoch: 0
    ending_epoch: 3
    frequency: 1

  - lr_scheduler:
      instance_name: training_lr
    starting_epoch: 0
    ending_epoch: 4
    frequency: 1
"""


def test_a_file_in_distillers_format_trains_to_whole_zero_groups_that_stay(folder: Path) -> None:
    (folder / "s.yaml").write_text(DISTILLER)
    succeed("validate", "s.yaml", "-c", "tiny")
    succeed("train", "-s", "s.yaml", "-c", "tiny", "--out", "run", "--device", "cpu")
    model = saved(folder / "run" / "checkpoint.pt")["model"]
    dead = (model["fc1.weight"] == 0).all(0)
    assert 0 < int(dead.sum()) < 64
    assert model["fc1.weight"][:, ~dead].all()  # columns died as wholes
    losses = [line["losses"] for line in metrics(folder / "run")]
    assert [sorted(each) for each in losses] == [["data", "inputs_regularizer"]] * 3 + [["data"]]
    assert losses[2]["inputs_regularizer"] < losses[0]["inputs_regularizer"]
