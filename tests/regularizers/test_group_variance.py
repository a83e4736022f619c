"""Group variance: lambda / Var of the groups' norms, its gradient in closed form, what has no variance."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import compress, metrics, succeed, write_tiny
from torch import Tensor, nn

from compressor.errors import UserError

RunOf = Callable[..., Any]

TEXT = "version: 2\npolicies:\n  - regularizer: {{class: GroupVarianceRegularizer, reg_regims: {regims}}}\n"


def text(regims: str) -> str:
    return TEXT.format(regims=regims)


def layer(values: Any) -> nn.Linear:
    values = torch.as_tensor(values)
    model = nn.Linear(values.shape[1], values.shape[0], bias=False)
    model.weight = nn.Parameter(values.clone())
    return model


def value(run: Any) -> float:
    (found,) = run.events.losses().values()
    return float(found)


# Rows of norm 1, 2, 6: mean 3, distances -2, -1, 3, unbiased variance (4 + 1 + 9) / 2 = 7.
MATRIX = [[1.0, 0.0], [0.0, -2.0], [-3.6, 4.8]]


def test_the_value_is_lambda_over_the_unbiased_variance_of_the_norms(run_of: RunOf) -> None:
    assert value(run_of(text("{weight: [49, Rows]}"), layer(MATRIX))) == pytest.approx(7)
    # Columns of norm 3 and 4 apart: ([3, 0], [0, 4]) has (0.25 + 0.25) / 1.
    assert value(run_of(text("{weight: [1, Cols]}"), layer([[3.0, 0.0], [0.0, 4.0]]))) == pytest.approx(2)


def test_the_gradient_by_hand(run_of: RunOf) -> None:
    # -2 * 49 * distance / (2 * 7^2) = -distance, times w / norm
    run = run_of(text("{weight: [49, Rows]}"), layer(MATRIX), lr=1.0)
    run.gradient = 10.0
    run.epoch(0)
    gradient = run.model.weight.grad
    assert gradient.flatten().tolist() == pytest.approx([12, 10, 10, 9, 10 + 1.8, 10 - 2.4])


def test_a_group_that_is_zero_has_gradient_0(run_of: RunOf) -> None:
    # Norms 0 and 5: variance 12.5, -2 * 31.25 * 2.5 / 12.5^2 = -1.
    run = run_of(text("{weight: [31.25, Rows]}"), layer([[0.0, -0.0], [3.0, 4.0]]))
    run.epoch(0)
    assert run.model.weight.grad.flatten().tolist() == pytest.approx([0, 0, -0.6, -0.8])


@pytest.mark.parametrize(
    ("kind", "group", "dims"),
    [
        (nn.Conv2d, "Filters", (1, 2, 3)),
        (nn.Conv2d, "3D", (1, 2, 3)),
        (nn.Conv2d, "Channels", (0, 2, 3)),
        (nn.Conv2d, "2D", (2, 3)),
        (nn.Conv2d, "Shapes", (0,)),
        (nn.Linear, "Rows", (1,)),
        (nn.Linear, "Cols", (0,)),
    ],
)
def test_gradient_and_value_are_those_of_autograd(
    run_of: RunOf, kind: type[nn.Module], group: str, dims: tuple[int, ...]
) -> None:
    torch.manual_seed(1)
    model = kind(3, 4, 3) if kind is nn.Conv2d else kind(3, 4)
    weight = model.weight
    assert isinstance(weight, Tensor)
    free = weight.detach().clone().requires_grad_()
    penalty = 1e-4 / free.square().sum(dims).sqrt().var()
    penalty.backward()
    assert free.grad is not None
    assert free.grad.abs().max() > 1e-5
    run = run_of(text(f"{{weight: [1e-4, {group}]}}"), model)
    assert value(run) == pytest.approx(float(penalty.detach()), rel=1e-4)
    run.begin(0)
    run.step()
    torch.testing.assert_close(run.model.weight.grad, free.grad, rtol=1e-3, atol=1e-6)


def test_groups_joined_by_a_plus_and_lambdas_of_their_own_add_up(run_of: RunOf) -> None:
    values = [[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]]  # rows 3, 4, 0: 13/3; columns 3, 4: 1/2
    rows, columns = 3 / 13, 2
    assert value(run_of(text("{weight: [1, Rows+Cols]}"), layer(values))) == pytest.approx(rows + columns)
    both = run_of(text("{weight: [[13, Rows], [0.5, Cols]]}"), layer(values))
    assert value(both) == pytest.approx(13 * rows + 0.5 * columns)


def test_rows_of_a_matrix_are_the_columns_of_its_transpose(run_of: RunOf) -> None:
    rows = run_of(text("{weight: [49, Rows]}"), layer(MATRIX))
    columns = run_of(text("{weight: [49, Cols]}"), layer(torch.tensor(MATRIX).T))
    rows.epoch(0)
    columns.epoch(0)
    torch.testing.assert_close(rows.model.weight.grad, columns.model.weight.grad.T)


def test_steps_drive_the_norms_apart(run_of: RunOf) -> None:
    run = run_of(text("{weight: [1, Rows]}"), layer(MATRIX), steps=20, lr=0.1)
    before = value(run)
    run.epoch(0)
    assert value(run) < before
    lengths = run.model.weight.detach().norm(dim=1)
    assert lengths[0] < 1  # below the mean: shorter
    assert lengths[2] > 6


@pytest.mark.parametrize(
    "values",
    [
        [[3.0, 4.0], [-4.0, 3.0]],
        [[0.0, 0.0], [0.0, -0.0]],
        [[5.0, 0.0], [5.0 + 2**-21, 0.0]],  # the next number there is
    ],
    ids=["equal", "all zero", "equal but for rounding"],
)
def test_where_the_norms_are_equal_the_penalty_is_infinite_and_has_no_direction(run_of: RunOf, values: Any) -> None:
    run = run_of(text("{weight: [1, Rows]}"), layer(values))
    assert value(run) == math.inf
    run.epoch(0)
    assert run.model.weight.grad.tolist() == [[0, 0], [0, 0]]
    assert value(run_of(text("{weight: [0, Rows]}"), layer(values))) == 0


def test_norms_that_differ_by_more_than_rounding_have_a_direction(run_of: RunOf) -> None:
    run = run_of(text("{weight: [1e-9, Rows]}"), layer([[5.0, 0.0], [5.001, 0.0]]))
    run.epoch(0)
    assert run.model.weight.grad[0, 0] > 0
    assert run.model.weight.grad[1, 0] < 0


def test_nan_weights_do_not_hide(run_of: RunOf) -> None:
    run = run_of(text("{weight: [1, Rows]}"), layer([[math.nan, 1.0], [3.0, 4.0]]))
    assert math.isnan(value(run))
    run.epoch(0)
    assert run.model.weight.grad.isnan().all()


def test_a_weight_without_a_gradient_is_left_alone(run_of: RunOf) -> None:
    run = run_of(text("{weight: [1, Rows]}"), layer(MATRIX))
    run.events.fire("penalty_gradients")
    assert run.model.weight.grad is None


def test_a_weight_of_which_one_group_is_left_is_left_alone(run_of: RunOf) -> None:
    run = run_of(text("{weight: [1, Rows]}"), layer(MATRIX))
    run.model.weight.data = torch.tensor([[3.0, 4.0]])  # as after a thinning
    run.epoch(0)
    assert run.model.weight.tolist() == [[3, 4]]


@pytest.mark.parametrize(
    ("regims", "words"),
    [
        ("{0.weight: [1, 4D]}", "0.weight: one group has no variance: 4D of 4x1x3x3"),
        ("{0.weight: [1, Channels]}", "0.weight: one group has no variance: Channels of 4x1x3x3"),
        ("{0.weight: [1, Rows]}", "0.weight: Rows are structures of weights of linear layers"),
        ("{1.weight: [1, Rows+4D]}", "1.weight: one group has no variance: 4D of 2x5"),
        ("{1.weight: [1, Row]}", "did you mean 'Rows'"),
        ("{1.weight: 1}", r"should be \[lambda, group\]"),
        ("{1.weight: [-1, Rows]}", "greater than or equal to 0"),
        ("{1.weight: [1, Rows]}, threshold: 1", "unknown key 'threshold'"),
        ("{1.weight: [1, Rows]}, args: {keep_mask: true}", "makes no zeros"),
    ],
)
def test_what_has_no_variance_is_refused(run_of: RunOf, regims: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        run_of(text(regims), nn.Sequential(nn.Conv2d(1, 4, 3), nn.Linear(5, 2)))


DISTILLER = """\
version: 1

regularizers:
  apart:
    class: GroupVarianceRegularizer
    reg_regims:
      module.fc1.weight: [0.0001, Rows]

policies:
  - regularizer:
      instance_name: apart
    starting_epoch: 0
    ending_epoch: 4
    frequency: 1
"""


def test_a_file_in_distillers_format_trains_and_a_single_group_is_said_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path)
    (tmp_path / "s.yaml").write_text(DISTILLER)
    succeed("train", "-s", "s.yaml", "-c", "tiny", "--out", "run", "--device", "cpu")
    losses = [line["losses"]["apart"] for line in metrics(tmp_path / "run")]
    assert len(losses) == 4
    assert losses[3] < losses[0]
    (tmp_path / "s.yaml").write_text(DISTILLER.replace("Rows", "4D"))
    result = compress("validate", "s.yaml", "-c", "tiny")
    assert result.code == 2
    assert result.err == "s.yaml:5:5: fc1.weight: one group has no variance: 4D of 16x64\n"
