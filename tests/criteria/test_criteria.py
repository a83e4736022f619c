"""By what structures are ranked: every criterion's numbers and the pruners that use them, worked by hand."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.component import REGISTRY
from compressor.criteria import BatchNorm, Criterion, Given
from compressor.errors import CompressError, UserError
from compressor.pruners.general import Pruner
from compressor.pruners.pruner import Request
from compressor.sparsity.normal import expected_relu
from compressor.sparsity.structures import plain_structures
from compressor.timing.window import Window

RunOf = Callable[..., Any]

BY_NAME = plain_structures()


class Fixed(Given):
    """Whatever a criterion looks at is what stands here for the weight."""

    def __init__(self, weights: dict[str, Tensor], statistics: dict[str, Tensor]) -> None:
        super().__init__(weights, "any")
        self.gradient_sums = self.activation_sums = self.running_statistics = statistics.__getitem__
        self._statistics = statistics

    def batch_norms(self, name: str) -> list[BatchNorm]:
        gamma = self._statistics[name]
        return [BatchNorm(gamma.double(), torch.zeros(len(gamma), dtype=torch.float64), torch.arange(len(gamma)))]


def score(weight: Tensor, statistic: Tensor, structure: str, criterion: str) -> Tensor:
    """A criterion's numbers where the statistic is known."""
    cls = REGISTRY["criteria"][criterion]
    assert issubclass(cls, Criterion)
    return cls().score(Fixed({"w": weight}, {"w": statistic}), "w", BY_NAME[structure])


ROWS = [[1.0, -1], [-2, -2], [0, 1]]
X = torch.tensor([[1.0, 0], [0, 1], [1, 1], [-1, 2]])
"""Before the activation: 1 -2 0, -1 -2 1, 0 -4 1, -3 -2 2; behind it: 1 0 0, 0 0 1, 0 0 1, 0 0 2."""
LABELS = torch.tensor([0, 1, 1, 0])


def mlp() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor(ROWS))
        model[2].weight.copy_(torch.tensor([[1.0, 2, 0], [0, -1, 3]]))
    return model


def schedule(arguments: str, weights: str = "0.weight", window: str = "epochs: [0]") -> str:
    component = f"class: Pruner, weights: {weights}, structure: Rows, {arguments}"
    return f"version: 2\npolicies:\n  - {{pruner: {{{component}}}, {window}}}\n"


def started(run_of: RunOf, text: str, model: nn.Module, images: Tensor = X, labels: Tensor = LABELS) -> Any:
    """A run with these images in two batches of unequal size."""
    every = [(images[:3], labels[:3]), (images[3:], labels[3:])]
    return run_of(text, model, batches=every)


def gone(weight: Tensor) -> set[int]:
    return {place for place, row in enumerate(weight.detach().flatten(1)) if not row.any()}


@pytest.mark.parametrize("order", ["smallest", "largest"])
@pytest.mark.parametrize(
    ("criterion", "ranking"),
    [
        ("l1", (2, 0, 1)),  # 2 4 1
        ("l2", (2, 0, 1)),  # sqrt 2, sqrt 8, 1
        ("apoz", (1, 0, 2)),  # not zero: 1/4, 0, 3/4
        ("mean_activation", (1, 0, 2)),  # 1/4, 0, 1
        ("feature_map", (2, 0, 1)),  # |x|: 5/4, 10/4, 1
        ("running_feature_map", (2, 0, 1)),  # before the first step: as it is now
        ("taylor", (1, 0, 2)),  # .067 0 1.567, as test_statistics.py has them
        ("gradient", (1, 0, 2)),  # .067 0 1.425: of a relu w dL/dw = a dL/da, here summed with its sign
    ],
)
def test_the_smallest_by_a_criterion_go_first_and_the_largest_by_order(
    run_of: RunOf, criterion: str, ranking: tuple[int, ...], order: str
) -> None:
    for count in (1, 2):
        model = mlp()
        text = schedule(f"criterion: {criterion}, order: {order}, rate: {{sparsity: {(count + 0.1) / 3}}}")
        started(run_of, text, model).begin(0)
        ranked = ranking if order == "smallest" else ranking[::-1]
        assert gone(model[0].weight) == set(ranked[:count]), count


def test_only_so_many_batches_are_looked_at(run_of: RunOf) -> None:
    asked: list[int] = []
    model = mlp()
    run = started(run_of, schedule("criterion: apoz, batches: 5, rate: {sparsity: 0.4}"), model)
    run.data.batches = lambda count: asked.append(count) or [(X, LABELS)]
    run.begin(0)
    assert asked[-1] == 5
    first = started(run_of, schedule("criterion: mean_activation, batches: 1, rate: {sparsity: 0.4}"), model := mlp())
    first.begin(0)  # of the first three images: 1/3, 0, 2/3
    assert gone(model[0].weight) == {1}


@pytest.mark.parametrize("structure", ["Elements", "Rows", "Cols", "Filters"])
def test_gradient_is_the_sum_of_w_dl_dw_by_autograd(structure: str) -> None:
    model = mlp()
    loss = nn.functional.cross_entropy(model(X), LABELS)
    loss.backward()
    weight = model[0].weight
    product = (weight * weight.grad).detach()
    expected = {"Elements": product, "Rows": product.sum(1), "Filters": product.sum(1), "Cols": product.sum(0)}
    assert weight.grad is not None
    found = score(weight, weight.grad, structure, "gradient")
    torch.testing.assert_close(found, expected[structure].abs())


def test_the_products_of_a_structure_are_added_before_the_sign_is_dropped() -> None:
    weight, gradient = torch.tensor([[1.0, 2], [3, -1]]), torch.tensor([[1.0, -1], [1, 1]])  # 1 -2, 3 -1
    assert score(weight, gradient, "Rows", "gradient").tolist() == [1, 2]
    assert score(weight, gradient, "Cols", "gradient").tolist() == [4, 3]
    assert score(weight, gradient, "Elements", "gradient").tolist() == [[1, 2], [3, 1]]


def test_single_weights_of_the_smallest_w_dl_dw_go(run_of: RunOf) -> None:
    model = mlp()
    nn.functional.cross_entropy(model(X), LABELS).backward()
    product = (model[0].weight * model[0].weight.grad).abs().detach().flatten()
    for parameter in model.parameters():
        parameter.grad = None
    text = schedule("criterion: gradient, rate: {sparsity: 0.7}").replace("Rows", "Elements")
    run = started(run_of, text, model)
    run.begin(0)
    # The second unit never fires and one weight is 0: their products are 0, and of equals the first goes first.
    order = sorted(range(6), key=lambda place: (round(float(product[place]), 6), place))
    assert {i for i, w in enumerate(model[0].weight.flatten().tolist()) if w == 0} == {4, *order[:4]}
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        ("l1", "b"),  # divided by the size: 1.5 2 of a, .5 .75 1 of b
        ("l2", "b"),  # by its root
        ("taylor", "b"),  # by the layer's L2 norm: .6 .8 of a, 5/85 12/85 84/85 of b
        ("feature_map", "b"),
        ("running_feature_map", "b"),
        ("apoz", "a"),  # as they are, 1 - 3 and 1 - 4, 1 - 5 ...: the last of b go first
        ("mean_activation", "ab"),  # 3 4 and 5 12 84: a keeps one
        ("bn_scale", "ab"),  # as they are (Liu et al. 2017)
        ("expected_activation", "ab"),
        ("gradient", "b"),  # by the layer's L2 norm, as taylor
    ],
)
def test_over_all_layers_together_scores_do_not_favour_large_ones(criterion: str, expected: str) -> None:
    statistics = {"a": torch.tensor([3.0, 4]), "b": torch.tensor([5.0, 12, 84])}
    if criterion == "apoz":
        statistics = {"a": torch.tensor([0.9, 0.8]), "b": torch.tensor([0.7, 0.6, 0.1])}
    weights = {
        "a": torch.tensor([[1.0, 2], [2, 2]]),
        "b": torch.tensor([[0.5] * 8, [0.75] * 8, [1.0] * 8]),
    }
    if criterion == "gradient":  # sums of w dL/dw: 3 4, and 4 * 1.25, 6 * 2, 8 * 10.5
        statistics = {"a": torch.ones(2, 2), "b": torch.tensor([[1.25], [2], [10.5]]).expand(3, 8)}
    arguments = {"criterion": criterion, "structure": "Rows", "scope": "global", "weights": ["a", "b"]}
    pruner = Pruner.model_validate({**arguments, "rate": {"sparsity": 0.4}})
    targets = {"weights": ["a", "b"]}
    request = Request(weights, targets, Window(epochs=[0]), 0, given=lambda criterion: Fixed(weights, statistics))
    masks = pruner.keep(request)
    found = "".join(name for name in masks for keep in masks[name].all(1) if not keep)
    assert found == {"b": "bb", "a": "ab", "ab": "ab"}[expected]


# --- every criterion, with ties, by every rate and scope --------------------------------------------------------------

PIXELS = torch.tensor([[1.0, -1, 2, -2], [-1, 1, -2, 2]]).reshape(2, 1, 1, 4)
WEIGHTS, GAMMAS, BETAS = [1.0, 4, 0.5, -1, 0.5], [1.0, 0.5, 2, 1, -1], [0.0, 0, -1, 0, 1]
READ = [1.0, 0.5, 0.5, -1, 1]
"""Before the relu, on the first image: 1 -1 2 -2, 2 -2 4 -4, 0 -2 1 -3, -1 1 -2 2, 1/2 3/2 0 2; mirrored on the second.

The first class reads the means by `READ`, less their sum; the second reads nothing. So p = 1/2, and all is exact.
"""

SCORES: dict[str, list[float]] = {
    "l1": [1, 4, 0.5, 1, 0.5],
    "l2": [1, 4, 0.5, 1, 0.5],
    "apoz": [1 / 2, 1 / 2, 1 / 4, 1 / 2, 3 / 4],  # not zero
    "mean_activation": [3 / 4, 6 / 4, 1 / 4, 3 / 4, 4 / 4],
    "feature_map": [6, 12, 6, 6, 4],
    "running_feature_map": [6, 12, 6, 6, 4],  # before the first step
    "bn_scale": [1, 0.5, 2, 1, 1],
    # beta Phi(beta / |gamma|) + |gamma| phi(..): .3989, half of it, -.3085 + 2 * .3521, .3989, .8413 + .2420
    "expected_activation": [0.3989, 0.1995, 0.3956, 0.3989, 1.0833],
    "taylor": [3 / 4, 6 / 8, 1 / 8, 3 / 4, 1],  # mean a |v|, times what is the same for all
    "gradient": [3, 6 / 2, 2 / 2, 3, 1],  # |v| times the sum of what is above 0, less beta: the last -1/2 + 1/2 + 1
}


class Five(nn.Module):
    """Five filters, their batch norm and a relu; or, with `right`, two of each, whose outputs add up to the same."""

    def __init__(self, right: list[float] | None = None) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(1, 5, 1, bias=False), nn.Conv2d(1, 5, 1, bias=False)
        self.bn, self.joined = nn.BatchNorm2d(5, eps=0.0), right is not None
        with torch.no_grad():
            self.bn.weight.copy_(torch.tensor(GAMMAS))
            self.bn.bias.copy_(torch.tensor(BETAS))
            self.right.weight.copy_(torch.tensor(right or [0.0] * 5).reshape(5, 1, 1, 1))
            self.left.weight.copy_(torch.tensor(WEIGHTS).reshape(5, 1, 1, 1) - self.right.weight)

    def forward(self, x: Tensor) -> Tensor:
        means: Tensor = torch.relu(self.bn(self.left(x) + self.right(x) if self.joined else self.left(x))).mean((2, 3))
        return means


class Sides(nn.Module):
    """One or more of them side by side, and a classifier."""

    def __init__(self, *sides: Five) -> None:
        super().__init__()
        self.sides, self.fc = nn.ModuleList(sides), nn.Linear(5 * len(sides), 2)
        with torch.no_grad():
            self.fc.weight.copy_(torch.tensor([READ * len(sides), [0.0] * 5 * len(sides)]))
            self.fc.bias.copy_(torch.tensor([-1.875 * len(sides), 0]))  # 3/4 + 3/4 + 1/8 - 3/4 + 1

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(torch.cat([side(x) for side in self.sides], 1))
        return logits


def by_filters(run_of: RunOf, model: Sides, arguments: str, weights: str, window: str = "epochs: [0]") -> Any:
    assert not model.eval()(PIXELS).any()
    text = schedule(arguments, weights, window).replace("Rows", "Filters")
    return started(run_of, text, model.train(), PIXELS, torch.tensor([0, 0]))


def pruned(run: Any, name: str) -> set[int]:
    return set(torch.where(~run.masks.keep(name).flatten(1).any(1))[0].tolist())


def ranked(scores: list[float], order: str = "smallest") -> list[int]:
    """Of equals the first goes first, at either end."""
    return sorted(range(len(scores)), key=lambda place: (scores[place] * (-1 if order == "largest" else 1), place))


@pytest.mark.parametrize(
    ("rate", "counts"),
    [
        ("sparsity: 0.4", (2, 2, 2)),
        ("agp: {initial_sparsity: 0.2, final_sparsity: 0.8}", (1, 3, 4)),  # .2, .8 - .6 / 8 = .725, .8 of 5
        ("events: 0.8", (1, 2, 4)),  # 1 + ceil(4 (3 - i) / 3) are left: 4, 3, 1
    ],
)
@pytest.mark.parametrize("order", ["smallest", "largest"])
@pytest.mark.parametrize("criterion", SCORES)
def test_each_criterion_at_each_rate_and_of_equal_scores_the_lower_index(
    run_of: RunOf, criterion: str, order: str, rate: str, counts: tuple[int, ...]
) -> None:
    arguments = f"criterion: {criterion}, order: {order}, rate: {{{rate}}}"
    run = by_filters(run_of, Sides(Five()), arguments, "sides.0.left.weight", "ending_epoch: 3")
    for epoch, count in enumerate(counts):
        run.begin(epoch)
        assert pruned(run, "sides.0.left.weight") == set(ranked(SCORES[criterion], order)[:count])


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 8])
@pytest.mark.parametrize("criterion", SCORES)
def test_over_all_layers_together_of_equal_scores_the_earlier_layer_s_go_first(
    run_of: RunOf, criterion: str, count: int
) -> None:
    # Two layers of the same scores: at each score first all of the first layer; the last of the best stays.
    arguments = f"criterion: {criterion}, scope: global, rate: {{sparsity: {(count + 0.1) / 10}}}"
    names = ["sides.0.left.weight", "sides.1.left.weight"]
    run = by_filters(run_of, Sides(Five(), Five()), arguments, f"[{', '.join(names)}]")
    run.begin(0)
    scores = SCORES[criterion]
    best = max(place for place in range(5) if scores[place] == max(scores))
    going = sorted((scores[place], layer, place) for layer in (0, 1) for place in range(5) if place != best)[:count]
    assert [pruned(run, name) for name in names] == [{p for _, la, p in going if la == layer} for layer in (0, 1)]


RIGHT = [0.0, 0, -0.5, 0, -1]
"""With 1 4 1 -1 1.5 on the left the sums of absolute values are 1 4 1.5 1 2.5, those without their sign as above."""

JOINED = {**SCORES, "l1": [1, 4, 1.5, 1, 2.5], "l2": [1, 4, 1.5, 1, 2.5], "gradient": [3, 3, 3, 3, 5]}
"""dL/dw is the same on either side: 3 and 5 times what it was. The other scores are twice what they were."""


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("selected", ["left", "right"])
@pytest.mark.parametrize("criterion", SCORES)
def test_weights_that_share_channels_are_ranked_by_the_sum_of_each_criterion(
    run_of: RunOf, criterion: str, selected: str, count: int
) -> None:
    arguments = f"criterion: {criterion}, scope: coupled, rate: {{sparsity: {(count + 0.1) / 5}}}"
    run = by_filters(run_of, Sides(Five(RIGHT)), arguments, f"sides.0.{selected}.weight")
    run.begin(0)
    expected = set(ranked(JOINED[criterion])[:count])
    assert [pruned(run, f"sides.0.{side}.weight") for side in ("left", "right")] == [expected, expected]


@pytest.mark.parametrize(
    ("groups", "count", "expected", "first"),
    [
        (1, 2, {1, 2}, {0, 1}),
        (2, 2, {1, 5}, {0, 3}),
        (2, 3, {1, 5}, {0, 3}),  # equally many of each
        (2, 4, {1, 2, 3, 5}, {0, 1, 3, 4}),
    ],
)
@pytest.mark.parametrize("criterion", [name for name in SCORES if name not in ("bn_scale", "expected_activation")])
def test_each_criterion_ranks_the_filters_of_a_grouped_convolution_within_its_groups(
    run_of: RunOf, criterion: str, groups: int, count: int, expected: set[int], first: set[int]
) -> None:
    # 2 1 1 and 4 5 3 by all but APoZ: none is ever silent, and of equals the first go.
    model = nn.Sequential(
        nn.Conv2d(1, 2, 1, bias=False),
        nn.Conv2d(2, 6, 1, groups=groups, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 2),
    )
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[1].weight.copy_(torch.tensor([2.0, 1, 1, 4, 5, 3]).reshape(6, 1, 1, 1).expand_as(model[1].weight))
        model[5].weight.copy_(torch.tensor([[0.125] * 6, [0.0] * 6]))
    text = schedule(f"criterion: {criterion}, rate: {{sparsity: {(count + 0.1) / 6}}}", "1.weight")
    run = started(run_of, text.replace("Rows", "Filters"), model, PIXELS.abs(), torch.tensor([0, 0]))
    run.begin(0)
    assert pruned(run, "1.weight") == (first if criterion == "apoz" else expected)


# --- of batch norms ---------------------------------------------------------------------------------------------------


class Branches(nn.Module):
    """One convolution read by two batch norms, as in a pre-activation or densely connected network."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.a, self.b = nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.left, self.right, self.fc = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1), nn.Linear(2, 2)
        with torch.no_grad():
            self.a.weight.copy_(torch.tensor([1.0, -5, 2]))
            self.b.weight.copy_(torch.tensor([-6.0, 1, 2]))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        logits: Tensor = self.fc((self.left(torch.relu(self.a(x))) + self.right(torch.relu(self.b(x)))).mean((2, 3)))
        return logits


def normed(gamma: list[float], beta: list[float]) -> nn.Sequential:
    model = nn.Sequential(
        nn.Conv2d(1, len(gamma), 1),
        nn.BatchNorm2d(len(gamma)),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(len(gamma), 2),
    )
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor(gamma))
        model[1].bias.copy_(torch.tensor(beta))
    return model


IMAGES = torch.arange(64.0).reshape(4, 1, 4, 4) / 64


def filters(criterion: str, sparsity: float, weights: str = "0.weight", more: str = "") -> str:
    text = schedule(f"criterion: {criterion}, rate: {{sparsity: {sparsity}}}{more}", weights)
    return text.replace("Rows", "Filters")


@pytest.mark.parametrize(
    ("criterion", "ranking"),
    [
        ("bn_scale", (1, 3, 0, 2)),  # 2 .5 3 1
        # phi(0) = .3989: 2 * .3989 = .798; relu(.5) and a bit: above .5; beta -9 of sd 3: nearly 0; .3989
        ("expected_activation", (2, 3, 1, 0)),
    ],
)
def test_by_the_batch_norm_behind(run_of: RunOf, criterion: str, ranking: tuple[int, ...]) -> None:
    for count in (1, 2, 3):
        model = normed([-2.0, 0.5, 3, 1], [0.0, 0.5, -9, 0])
        run = started(run_of, filters(criterion, (count + 0.1) / 4), model, IMAGES)
        run.begin(0)
        assert gone(model[0].weight) == set(ranking[:count])
        assert gone(model[1].weight[:, None]) == set(ranking[:count])


@pytest.mark.parametrize(("count", "expected"), [(1, {2}), (2, {1, 2})])
def test_where_two_batch_norms_read_a_layer_their_scales_are_added(
    run_of: RunOf, count: int, expected: set[int]
) -> None:
    model = Branches()  # 7 6 4; by the one alone 1 5 2, by the other 6 1 2
    run = started(run_of, filters("bn_scale", (count + 0.1) / 3, "conv.weight"), model, IMAGES)
    run.begin(0)
    assert gone(model.conv.weight) == expected


@pytest.mark.parametrize("criterion", ["bn_scale", "expected_activation"])
def test_without_a_batch_norm_it_is_said_before_training_begins(run_of: RunOf, criterion: str) -> None:
    model = normed([1.0, 2], [0.0, 0])
    model[1] = nn.Identity()
    with pytest.raises(UserError, match=rf"criterion {criterion}: no batch norm follows 0\.weight"):
        started(run_of, filters(criterion, 0.5), model, IMAGES)
    both = "[conv.weight, left.weight]"
    with pytest.raises(UserError, match=r"no batch norm follows left\.weight"):
        started(run_of, filters(criterion, 0.5, both), Branches(), IMAGES)


class Single:
    """A value with a tensor that cannot be copied."""

    def __init__(self) -> None:
        self.value = torch.zeros(1)

    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("there is only one")


def test_batch_norms_that_cannot_be_found_are_said_to_be_that(run_of: RunOf) -> None:
    model = normed([1.0, 2], [0.0, 0])
    model.single = Single()  # a network that cannot be copied is not followed
    with pytest.raises(UserError, match=r"which batch norm follows 0\.weight is not known"):
        started(run_of, filters("bn_scale", 0.5), model, IMAGES)


def quadrature(mean: float, deviation: float) -> float:
    """The integral of max(u, 0) over the normal law, by the trapezoidal rule from -12 to 12 deviations."""
    z = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    u = (mean + deviation * z).clamp_min(0)
    density = torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return float(torch.trapezoid(u * density, z))


@pytest.mark.parametrize("mean", [-4.0, -0.3, 0.0, 0.7, 5.0])
@pytest.mark.parametrize("deviation", [1e-3, 0.5, 2.0])
def test_the_expected_activation_is_the_integral(mean: float, deviation: float) -> None:
    found = expected_relu(torch.tensor(mean, dtype=torch.float64), torch.tensor(deviation, dtype=torch.float64))
    assert float(found) == pytest.approx(quadrature(mean, deviation), rel=1e-6, abs=1e-12)


def test_the_expected_activation_by_known_numbers() -> None:
    # mean 0: sd / sqrt(2 pi); mean 1 and sd 1: Phi(1) + phi(1) = .841345 + .241971; no deviation: relu itself.
    mean, deviation = torch.tensor([0.0, 0, 1, 3, -3, 0]), torch.tensor([1.0, 2, 1, 0, 0, 0])
    expected = torch.tensor([0.398942, 0.797885, 1.083315, 3, 0, 0])
    torch.testing.assert_close(expected_relu(mean, deviation), expected, atol=1e-5, rtol=0)
    draws = torch.randn(400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    by_chance = float((0.4 + 1.5 * draws).clamp_min(0).mean())
    assert float(expected_relu(torch.tensor(0.4), torch.tensor(1.5))) == pytest.approx(by_chance, rel=0.01)


# --- what cannot be ranked --------------------------------------------------------------------------------------------


def test_a_layer_that_the_forward_pass_does_not_use_is_said(run_of: RunOf) -> None:
    model = normed([1.0, 2], [0.0, 0])
    model[0].unused = nn.Linear(2, 2)
    for criterion in ("apoz", "taylor"):
        run = started(
            run_of, schedule(f"criterion: {criterion}, rate: {{sparsity: 0.5}}", "0.unused.weight"), model, IMAGES
        )
        with pytest.raises(
            UserError, match=rf"0.Pruner: criterion {criterion}: the forward pass does not use 0.unused"
        ):
            run.begin(0)


@pytest.mark.parametrize("features", [3, 4])  # and 4 tokens
@pytest.mark.parametrize("criterion", ["apoz", "running_feature_map"])
def test_outputs_that_are_no_channels_are_said(run_of: RunOf, criterion: str, features: int) -> None:
    class Tokens(nn.Module):
        """A linear layer over (images, tokens, features): its outputs stand last."""

        def __init__(self) -> None:
            super().__init__()
            self.inner, self.fc = nn.Linear(4, features), nn.Linear(features, 2)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.fc(torch.relu(self.inner(x.flatten(1, 2))).mean(1))
            return logits

    text = schedule(f"criterion: {criterion}, rate: {{sparsity: 0.5}}", "inner.weight")
    run = started(run_of, text, Tokens(), IMAGES)
    with pytest.raises(UserError, match=rf"criterion {criterion}: the outputs of inner\.weight are not channels"):
        run.begin(0)


@pytest.mark.parametrize("criterion", ["gradient", "taylor", "feature_map", "mean_activation"])
def test_scores_that_are_no_numbers_are_an_error(run_of: RunOf, criterion: str) -> None:
    model = mlp()
    run = started(run_of, schedule(f"criterion: {criterion}, rate: {{sparsity: 0.5}}"), model, X * math.inf)
    with pytest.raises(CompressError, match=f"criterion {criterion}: the scores of 0.weight are not finite"):
        run.begin(0)
