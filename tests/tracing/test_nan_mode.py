"""What single operations make of unknown values, by pencil."""

from collections.abc import Callable
from contextlib import suppress

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.tracing.nan_mode import NaNMode

N = None
"""What is not known."""


def put(y: Tensor, where: Tensor, value: float | Tensor) -> Tensor:
    y[where] = value
    return y


def through_a_view(mask: Tensor) -> Tensor:
    mask.view(3, 1).logical_not_()
    return mask


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape or (3,))


# x is (unknown, 0, 2).
CASES: dict[str, tuple[Callable[[Tensor], Tensor], list[float | None]]] = {
    "a choice": (lambda x: torch.where(x > 1, x, 0.5), [N, 0.5, 2]),
    "a choice between equals": (lambda x: torch.where(x > 1, 5.0, 5.0), [5, 5, 5]),
    "filled": (lambda x: torch.ones(3).masked_fill(x > 1, 7.0), [N, 1, 7]),
    "filled with the same": (lambda x: zeros().masked_fill(x > 1, 0.0), [0, 0, 0]),
    "filled in place with the same": (lambda x: zeros().masked_fill_(x > 1, 0.0), [0, 0, 0]),
    "put": (lambda x: put(zeros(), x > 1, 1.0), [N, 0, 1]),
    "the same put": (lambda x: put(zeros(), x > 1, 0.0), [0, 0, 0]),
    "taken and put": (lambda x: put(torch.ones(3), x > 1, x[x > 1]), [N, 1, N]),
    "and": (lambda x: (x > 1) & torch.tensor([False, True, True]), [0, 0, 1]),
    "or": (lambda x: (x > 1) | torch.tensor([True, False, False]), [1, 0, 1]),
    "two unknown": (lambda x: (x > 1) ^ (x > 1), [N, 0, 0]),
    "not": (lambda x: torch.logical_not(x), [N, 1, 0]),
    "a mask that is written": (lambda x: put(x > 1, torch.tensor([0]), 1), [1, 0, 1]),
    "a mask that is written through a view": (lambda x: through_a_view(x > 1), [N, 1, 0]),
    "any, where one is known to be": (lambda x: (x > 1).any(), [1]),
    "any": (lambda x: (x > 3).any(), [N]),
    "all, where one is known not to be": (lambda x: (x > 1).all(), [0]),
    "all": (lambda x: (x < 3).all(), [N]),
    "a count": (lambda x: (x > 1).cumsum(0), [N, N, N]),
    "a count of the known": (lambda x: (x > 1).flip(0).cumsum(0), [1, 1, N]),
    "an integer times 0": (lambda x: (x > 1).int() * torch.tensor([0, 1, 1]), [0, 0, 1]),
    "an integer": (lambda x: (x > 1).int() // 2, [N, 0, 0]),
    "moved integers": (lambda x: torch.cat([x.int(), torch.ones(1, dtype=torch.int)]).roll(1), [1, N, 0, 2]),
    "the largest of integers": (lambda x: (x.int() + 1).amax(), [N]),
    "an integer as an index": (lambda x: torch.tensor([1.0, 2.0])[(x > 1).long()], [N, N, N]),
    "an integer as an index of equals": (lambda x: torch.tensor([2.0, 2.0])[(x > 1).long()], [2, 2, 2]),
    "rows in an order that is not known": (
        lambda x: torch.tensor([[0.0, 1.0, 3.0], [0.0, 2.0, 3.0]])[torch.randperm(2)][0],
        [0, N, 3],
    ),
    "rows at indices that are not known": (
        lambda x: torch.tensor([[0.0, 1.0], [0.0, 2.0]]).index_select(0, x.int()[:1])[0],
        [0, N],
    ),
    "gathered": (lambda x: torch.tensor([[0.0, 1.0], [0.0, 2.0]]).gather(0, x[:1].long().expand(1, 2))[0], [0, N]),
    "a place that is not known": (lambda x: zeros().scatter(0, x.argmax(0, keepdim=True), 1.0), [N, N, N]),
    "sorted": (lambda x: x.sort().values, [N, N, N]),
    "rows that are sorted": (lambda x: torch.stack([x, zeros()]).sort(1).indices[1], [0, 1, 2]),
    "sign in place": (lambda x: x.sign_(), [N, 0, 1]),
    "0 times": (lambda x: zeros().mul_(x), [0, 0, 0]),
    "times 0": (lambda x: x.mul_(0.0), [0, 0, 0]),
    "0 divided": (lambda x: torch.tensor([0.0, 3.0, 3.0]) / x, [0, float("inf"), 1.5]),
    "0 times, added": (lambda x: torch.addcmul(torch.ones(3), zeros(), x), [1, 1, 1]),
    "gated": (lambda x: F.glu(torch.cat([zeros(), x]), 0), [0, 0, 0]),
    "a norm of order 0": (lambda x: torch.linalg.vector_norm(x, 0), [N]),
    "scattered": (lambda x: zeros().masked_scatter(x > 1, torch.ones(3)), [N, N, N]),
    "places in a list": (lambda x: torch.searchsorted(torch.tensor([1.0, 3.0]), x), [N, N, N]),
    "sampled": (lambda x: F.grid_sample(torch.ones(1, 1, 3, 3), x.mean().expand(1, 1, 1, 2)).flatten(), [N]),
    "sampled zeros": (lambda x: F.grid_sample(zeros(1, 1, 3, 3), x.mean().expand(1, 1, 1, 2)).flatten(), [0]),
    "unpooled zeros": (
        lambda x: F.max_unpool2d(zeros(1, 1, 1, 1), x.argmax().view(1, 1, 1, 1), 2).flatten(),
        [0, 0, 0, 0],
    ),
    "a sum that leaves NaN out": (lambda x: x.nansum(), [N]),
    "drawn": (lambda x: torch.rand(3) * torch.tensor([0.0, 1.0, 1.0]), [0, N, N]),
    "like it": (lambda x: torch.ones_like(x), [1, 1, 1]),
    "in place": (lambda x: x.abs_().eq_(2), [N, 0, 1]),
    "a layer norm": (
        lambda x: F.layer_norm(x, (3,), torch.tensor([0.0, 1, 0]), torch.tensor([0.5, 0, 0])),
        [0.5, N, 0],
    ),
    "a group norm": (
        lambda x: F.group_norm(x.view(1, 3), 1, torch.tensor([0.0, 1, 0]), torch.tensor([0.5, 0, 0])).flatten(),
        [0.5, N, 0],
    ),
    "a written result": (lambda x: torch.mul(x, zeros(), out=torch.ones(3)), [0, 0, 0]),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Default grid_sample")
@pytest.mark.parametrize("name", CASES)
def test_an_operation(name: str) -> None:
    operation, expected = CASES[name]
    mode = NaNMode(False)
    x = torch.tensor([torch.nan, 0.0, 2.0])
    with mode:
        found = operation(x).to(torch.float64) + 0.0  # of a bool or an integer, too, NaN is what is not known
    assert not mode.lost
    assert [N if one != one else one for one in found.reshape(-1).tolist()] == expected


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: bool((x > 1)[0]),
        lambda x: int(x.argmax()),
        lambda x: float(x[0]),
        lambda x: torch.equal(x, x),
        lambda x: (x > 1).nonzero(),
        lambda x: x.masked_select(x > 1),
        lambda x: (x > 1).unique(),
        lambda x: (x > 1).long().view(torch.int32),
        lambda x: x.view(torch.int32),
    ],
)
def test_what_python_reads_is_lost(operation: Callable[[Tensor], object]) -> None:
    for first in (torch.nan, 5.0):
        mode = NaNMode(False)
        x = torch.tensor([first, 0.0, 2.0])
        with mode, suppress(ValueError):  # no integer is NaN
            operation(x)
        assert mode.lost == (first != 5.0)


def test_an_operator_of_another_library_is_not_given_nan() -> None:
    """It may take places from its input, as a deformable convolution does: it reads outside of its memory for NaN."""
    with torch.library._scoped_library("compressor_tests", "FRAGMENT") as library:
        library.define("places(Tensor x) -> Tensor")
        given: list[bool] = []

        def places(x: Tensor) -> Tensor:
            given.append(bool(torch.isnan(x).any()))
            return x + 1

        library.impl("places", places, "CPU")
        with NaNMode(training=False):
            out = torch.ops.compressor_tests.places(torch.full((2,), torch.nan))
    assert given == [False]
    assert bool(torch.isnan(out).all())
