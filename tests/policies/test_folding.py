"""`fold_batchnorm: true`: ranked by w gamma / sqrt(var + eps). Weights and batch norms by hand."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import UserError

RunOf = Callable[..., Any]

L1 = "class: L1RankedStructureParameterPruner, group_type: Filters"
POLICY = """\
version: {version}
policies:
  - {{pruner: {{{component}, args: {{fold_batchnorm: {fold}}}}}, {when}}}
"""


def schedule(component: str, fold: bool = True, version: int = 1, when: str = "epochs: [0]") -> str:
    return POLICY.format(component=component, fold=str(fold).lower(), version=version, when=when)


def conv(weights: Sequence[float], inputs: int = 1) -> nn.Conv2d:
    """1x1 filters; where there are more inputs, each reads them all alike."""
    layer = nn.Conv2d(inputs, len(weights), 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weights).reshape(-1, 1, 1, 1).expand_as(layer.weight))
        layer.bias.zero_()
    return layer


def norm(gamma: Sequence[float] | None, variance: Sequence[float], eps: float = 1.0) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(len(variance), eps=eps, affine=gamma is not None)
    if gamma is not None:
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(gamma))
    layer.running_var.copy_(torch.tensor(variance))
    return layer


def net(*layers: nn.Module, channels: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 2))


def three() -> nn.Sequential:
    """3 2 1 behind a batch norm of gamma 1 -4 2 and variance + eps 9 4 1: 1 -4 2. Without eps 1.06 -4.6 infinity."""
    return net(conv([3.0, 2, 1]), norm([1.0, -4, 2], [8.0, 3, 0]), nn.ReLU(), channels=3)


IMAGES = torch.rand(4, 1, 3, 3, generator=torch.Generator().manual_seed(0))
BATCHES = [(IMAGES, torch.tensor([0, 1, 1, 0]))]


def begun(run_of: RunOf, text: str, model: nn.Module, images: Tensor = IMAGES, **options: Any) -> Any:
    run = run_of(text, model, **({"batches": BATCHES} if images is IMAGES else {"images": images}), **options)
    run.begin(0)
    return run


def gone(run: Any, name: str = "0.weight") -> list[int]:
    return torch.where(~run.masks.keep(name).flatten(1).any(1))[0].tolist()


@pytest.mark.parametrize(
    ("fold", "count", "expected"),
    [(True, 1, [0]), (True, 2, [0, 2]), (False, 1, [2]), (False, 2, [1, 2])],
)
@pytest.mark.parametrize("criterion", ["L1", "L2"])
def test_filters_are_ranked_by_what_they_are_behind_the_batch_norm(
    run_of: RunOf, criterion: str, fold: bool, count: int, expected: list[int]
) -> None:
    model = three()
    component = f"{L1.replace('L1', criterion)}, desired_sparsity: {(count + 0.1) / 3}, weights: [module.0.weight]"
    run = begun(run_of, schedule(component, fold), model)
    assert gone(run) == expected
    # What stays is as it was, and so are the statistics.
    left = [weight * (place not in expected) for place, weight in enumerate([3.0, 2, 1])]
    assert model[0].weight.flatten().tolist() == left
    assert model[1].weight.tolist() == [w * (place not in expected) for place, w in enumerate([1.0, -4, 2])]
    assert model[1].running_var.tolist() == [8, 3, 0]


@pytest.mark.parametrize("fold", [True, False])
def test_a_batch_norm_without_gamma_divides_alone(run_of: RunOf, fold: bool) -> None:
    model = net(conv([3.0, 2, 1]), norm(None, [99.0, 0, 0]), nn.ReLU(), channels=3)  # 0.3 2 1
    run = begun(run_of, schedule(f"{L1}, desired_sparsity: 0.4, weights: [0.weight]", fold), model)
    assert gone(run) == [0 if fold else 2]


@pytest.mark.parametrize(("fold", "expected"), [(True, [[0, 0], [2, 2], [1, 1]]), (False, [[3, 3], [2, 2], [0, 0]])])
@pytest.mark.parametrize(
    "component",
    [
        "class: MagnitudeParameterPruner, thresholds: {0.weight: 1.5}",
        "class: SparsityLevelParameterPruner, levels: {0.weight: 0.35}",
        "class: StructureParameterPruner, threshold_criteria: Mean_Abs, reg_regims: {0.weight: [1.5, 3D]}",
    ],
)
def test_every_pruner_sees_the_folded_weights(
    run_of: RunOf, component: str, fold: bool, expected: list[list[float]]
) -> None:
    model = net(conv([3.0, 2, 1], 2), *list(three())[1:3], channels=3)
    begun(run_of, schedule(component, fold), model, torch.zeros(2, 2, 3, 3))
    assert model[0].weight.flatten(1).tolist() == expected


def test_the_neurons_of_a_linear_layer_have_batch_norms_too(run_of: RunOf) -> None:
    one = nn.BatchNorm1d(2, eps=1.0)
    one.running_var.copy_(torch.tensor([99.0, 0]))
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 2), one, nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[5.0], [1.0]]).expand(2, 9))
    run = begun(run_of, schedule(f"{L1}, desired_sparsity: 0.5, weights: [1.weight]"), model)
    assert gone(run, "1.weight") == [0]


def test_it_is_the_batch_norm_as_it_is_at_each_event_and_what_is_gone_stays_gone(run_of: RunOf) -> None:
    # Folded 1 -4 2. AGP: 1/3, then 2/3 of three filters; in between the second's gamma falls to 0.1: |.1|.
    agp = L1.replace("Pruner", "Pruner_AGP") + ", initial_sparsity: 0.34, final_sparsity: 0.67, weights: [0.weight]"
    model = three()
    run = begun(run_of, schedule(agp, when="ending_epoch: 2"), model)
    assert gone(run) == [0]
    run.step()
    run.end()
    with torch.no_grad():
        model[1].weight[1] = 0.1
    run.begin(1)
    assert gone(run) == [0, 1]


# --- where there is nothing to fold -----------------------------------------------------------------------------------


class Branched(nn.Module):
    """A convolution that a batch norm reads, and an addition, too: as it is and behind the batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = conv([3.0, 2, 1]), norm([1.0, -4, 2], [8.0, 3, 0]), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        logits: Tensor = self.fc((x + torch.relu(self.bn(x))).mean((2, 3)))
        return logits


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (lambda: net(conv([3.0, 2, 1]), nn.ReLU(), channels=3), "0"),
        (lambda: net(conv([3.0, 2, 1]), nn.ReLU(), norm([1.0, -4, 2], [8.0, 3, 0]), channels=3), "0"),
        (lambda: net(conv([3.0, 2, 1]), nn.GroupNorm(1, 3), nn.ReLU(), channels=3), "0"),
        (lambda: net(conv([3.0, 2, 1]), nn.BatchNorm2d(3, track_running_stats=False), channels=3), "0"),
        (Branched, "conv"),
    ],
    ids=["none", "behind the activation", "a group norm", "without statistics", "others read it, too"],
)
def test_without_a_batch_norm_right_behind_it_is_said_before_training(
    run_of: RunOf, model: Callable[[], nn.Module], name: str
) -> None:
    text = schedule(f"{L1}, desired_sparsity: 0.5, weights: [{name}.weight]")
    with pytest.raises(UserError, match=r"0\.L1\w+: fold_batchnorm: no batch norm follows any of its"):
        begun(run_of, text, model())


def test_of_several_weights_those_that_have_one_are_folded(run_of: RunOf) -> None:
    model = net(*list(three())[:3], conv([3.0, 2, 1], 3), nn.ReLU(), channels=3)
    text = schedule(f"{L1}, desired_sparsity: 0.4, weights: [0.weight, 3.weight]")
    run = begun(run_of, text, model)
    assert gone(run) == [0]
    assert gone(run, "3.weight") == [2]


class Residual(nn.Module):
    """relu(bn(stem)) + bn(b(...)): filters of 1 3 2 and 3 1 2, their batch norms divide by 1, 10, 1 and 1, 1, 10."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn1 = conv([1.0, 3, 2]), norm([1.0] * 3, [0.0, 99, 0])
        self.b, self.bn2 = conv([1.0, 1 / 3, 2 / 3], 3), norm([1.0] * 3, [0.0, 0, 99])
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.stem(x)))
        logits: Tensor = self.fc(torch.relu(x + self.bn2(self.b(x))).mean((2, 3)))
        return logits


GENERAL = "class: Pruner, criterion: l1, structure: Filters, rate: {sparsity: 0.4}"


@pytest.mark.parametrize(
    ("component", "first"),
    [
        # Folded 1 .3 2 and 3 1 .2: together 4 1.3 2.2. Not folded 4 4 4; b alone folded 4 4 2.2, stem alone 4 1.3 4.
        (f"{L1}, desired_sparsity: 0.4, weights: [stem.weight, b.weight]", 1),
        (f"{L1}, desired_sparsity: 0.4, group_dependency: Leader, weights: [b.weight, stem.weight]", 2),
        (f"{GENERAL}, scope: coupled, weights: [b.weight]", 1),
        (f"{GENERAL}, scope: coupled, weights: [stem.weight]", 1),
    ],
)
def test_weights_that_share_channels_are_all_folded(run_of: RunOf, component: str, first: int) -> None:
    run = begun(run_of, schedule(component), Residual())
    assert gone(run, "stem.weight") == gone(run, "b.weight") == [first]


@pytest.mark.parametrize(
    "component",
    [
        "class: GradientRankedFilterPruner, group_type: Filters, desired_sparsity: 0.5, weights: [0.weight]",
        "class: Pruner, criterion: gradient, structure: Elements, rate: {sparsity: 0.5}, weights: [0.weight]",
    ],
)
def test_w_dl_dw_is_the_same_on_either_side_of_a_batch_norm(run_of: RunOf, component: str) -> None:
    # d(w f) dL/d(w f) = w dL/dw: the factor f has no say, though by f times that another one would go.
    def model() -> nn.Sequential:
        made = net(conv([1.0, -1, 2, 0.5]), norm([1.0, 100, -1, 0.01], [0.0] * 4), channels=4)
        with torch.no_grad():
            made[-1].weight.copy_(torch.tensor([[2.0, 0.01, -1, 100], [0, 0, 0, 0]]))
            made[-1].bias.zero_()
        return made.eval()

    plain = model()
    nn.functional.cross_entropy(plain(IMAGES), BATCHES[0][1]).backward()
    score = (plain[0].weight * plain[0].weight.grad).flatten().abs()
    factor = torch.tensor([1.0, 100, 1, 0.01])
    expected = sorted(score.argsort()[:2].tolist())
    assert sorted((score * factor).argsort()[:2].tolist()) != expected
    for fold in (True, False):
        run = begun(run_of, schedule(component, fold), model())
        assert gone(run) == expected
