"""What a network does on images, in numbers worked by hand; and that taking them leaves no trace."""

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from helpers import difference
from loop import Batch, Loop
from torch import Tensor, nn

from compressor.criteria import ActivationCriterion
from compressor.errors import CompressError
from compressor.masking.statistics import RunningMeans, activations, gradients
from compressor.schedule.registry import components

RunOf = Callable[..., Any]


def gather(model: nn.Module, kind: str, batches: Iterable[Batch]) -> dict[str, Tensor]:
    """What a criterion of that name is given."""
    if kind == "gradient":
        return gradients(model, batches)
    criterion = components("criteria")[kind]()
    assert isinstance(criterion, ActivationCriterion)
    return activations(model, criterion, batches)


X = torch.tensor([[1.0, 0], [0, 1], [1, 1], [-1, 2]])
LABELS = torch.tensor([0, 1, 1, 0])
BATCHES = [(X[:3], LABELS[:3]), (X[3:], LABELS[3:])]
"""Of unequal size: means are over images, not over batches."""


def mlp() -> nn.Sequential:
    """Before the activation: 1 -2 0, -1 -2 1, 0 -4 1, -3 -2 2; behind it: 1 0 0, 0 0 1, 0 0 1, 0 0 2."""
    model = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -1], [-2, -2], [0, 1]]))
        model[2].weight.copy_(torch.tensor([[1.0, 2, 0], [0, -1, 3]]))
    return model


def maps(inplace: bool = False) -> nn.Sequential:
    """Two 1x1 filters, 1 and -1; on the images below maps of 1 -2, 3 4 and -1 2, -3 -4."""
    model = nn.Sequential(
        nn.Conv2d(1, 2, 1, bias=False), nn.ReLU(inplace=inplace), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)
    )
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, -1]).reshape(2, 1, 1, 1))
    return model


MAPS = [(torch.tensor([[[[1.0, -2]]], [[[3, 4]]]]), torch.tensor([0, 1]))]


@pytest.mark.parametrize(
    ("kind", "of_rows", "of_maps"),
    [
        ("apoz", [3 / 4, 1, 1 / 4], [1 / 4, 3 / 4]),
        ("mean_activation", [1 / 4, 0, 1], [(1 / 2 + 7 / 2) / 2, (2 / 2 + 0) / 2]),
        ("feature_map", [5 / 4, 10 / 4, 4 / 4], [(3 + 7) / 2, (3 + 7) / 2]),
    ],
)
@pytest.mark.parametrize("inplace", [False, True])
def test_statistics_of_activations_are_means_over_images(
    kind: str, of_rows: list[float], of_maps: list[float], inplace: bool
) -> None:
    model = mlp()
    model[1] = nn.ReLU(inplace=inplace)
    found = gather(model, kind, BATCHES)
    assert found["0.weight"].tolist() == of_rows
    assert set(found) == {"0.weight", "2.weight"}
    assert gather(maps(inplace), kind, MAPS)["0.weight"].tolist() == of_maps


def test_equal_numbers_of_zeros_are_equal_shares_in_whatever_order_they_come() -> None:
    model = maps()
    model[0] = nn.Conv2d(2, 2, 1, bias=False)
    model[0].weight.data = torch.eye(2).reshape(2, 2, 1, 1)
    images = torch.ones(6, 2, 49)
    for channel, counts in enumerate(([44, 39, 33, 10, 13, 29], [39, 13, 10, 33, 29, 44])):  # 168 of 294
        for image, count in zip(images, counts, strict=True):
            image[channel, :count] = -1
    found = gather(model, "apoz", [(images.reshape(6, 2, 7, 7), torch.zeros(6, dtype=torch.long))])
    assert found["0.weight"].tolist() == [168 / 294, 168 / 294]


def test_before_an_activation_is_behind_the_batch_norm_in_eval_mode() -> None:
    model = maps()
    model.insert(1, nn.BatchNorm2d(2, eps=0.0))
    model.train()
    with torch.no_grad():
        model[1].running_mean.copy_(torch.tensor([1.0, 0]))
        model[1].running_var.copy_(torch.tensor([4.0, 1]))
        model[1].weight.copy_(torch.tensor([2.0, 1]))
        model[1].bias.copy_(torch.tensor([0.0, -1]))
    # (x - 1) / 2 * 2: 0 -3, 2 3; x - 1: -2 1, -4 -5
    assert gather(model, "feature_map", MAPS)["0.weight"].tolist() == [(3 + 5) / 2, (3 + 9) / 2]
    assert gather(model, "apoz", MAPS)["0.weight"].tolist() == [1 / 2, 3 / 4]


def softmax_gradient(logits: list[float], label: int) -> list[float]:
    exponentials = [math.exp(logit) for logit in logits]
    return [e / sum(exponentials) - (place == label) for place, e in enumerate(exponentials)]


@pytest.mark.parametrize("inplace", [False, True])
def test_taylor_is_the_mean_of_a_dl_da_without_its_sign_image_by_image(inplace: bool) -> None:
    # dL/da = W^T (p - y), W = (1 2 0, 0 -1 3); logits of a: (a0 + 2 a1, 3 a2 - a1).
    expected = [0.0, 0.0, 0.0]
    for image, label in zip([[1, 0, 0], [0, 0, 1], [0, 0, 1], [0, 0, 2]], LABELS.tolist(), strict=True):
        first, second = softmax_gradient([image[0] + 2 * image[1], 3 * image[2] - image[1]], label)
        gradient = [first, 2 * first - second, 3 * second]
        for unit in range(3):
            expected[unit] += abs(image[unit] * gradient[unit]) / 4
    assert expected[0] == pytest.approx((1 - math.e / (1 + math.e)) / 4)
    model = mlp()
    model[1] = nn.ReLU(inplace=inplace)
    found = gather(model, "taylor", BATCHES)
    assert found["0.weight"].tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("inplace", [False, True])
def test_taylor_of_a_map_is_the_mean_over_its_positions_before_the_sign_is_dropped(inplace: bool) -> None:
    model = nn.Sequential(*maps(inplace)[:2], nn.Flatten(), nn.Linear(4, 2, bias=False))
    rows = torch.tensor([[1.0, -1, 0, 2], [0.5, 1, -1, 0]])
    with torch.no_grad():
        model[3].weight.copy_(rows)
    expected = torch.zeros(2)
    for image, label in zip([[1.0, 0, 0, 2], [3.0, 4, 0, 0]], [0, 1], strict=True):  # both maps behind the relu
        a = torch.tensor(image)
        residual = torch.tensor(softmax_gradient((rows @ a).tolist(), label))
        products = (a * (rows.T @ residual)).reshape(2, 2)  # channels, positions
        expected += products.mean(1).abs() / 2
    torch.testing.assert_close(gather(model, "taylor", MAPS)["0.weight"].float(), expected)


def test_taylor_goes_by_the_activation_as_it_was_before_the_network_went_on_in_place() -> None:
    class GoesOn(nn.Module):
        def __init__(self, inplace: bool) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.last, self.inplace = nn.Linear(2, 3), nn.Linear(3, 2), inplace

        def forward(self, x: Tensor) -> Tensor:
            x = nn.functional.gelu(self.first(x))
            logits: Tensor = self.last(x.add_(1) if self.inplace else x + 1)
            return logits

    plain = gather(GoesOn(inplace=False), "taylor", BATCHES)
    assert difference(gather(GoesOn(inplace=True), "taylor", BATCHES), plain) is None


@pytest.mark.parametrize("kind", ["gradient", "taylor"])
def test_gradients_are_of_the_mean_loss_over_all_images_whatever_the_batches(kind: str) -> None:
    whole = gather(mlp(), kind, [(X, LABELS)])
    for parts in ([1, 3], [2, 2], [1, 1, 1, 1]):
        split = list(zip(X.split(parts), LABELS.split(parts), strict=True))
        torch.testing.assert_close(gather(mlp(), kind, split), whole)
    if kind == "gradient":
        model = mlp()
        nn.functional.cross_entropy(model(X), LABELS).backward()
        torch.testing.assert_close(whole, {name: p.grad for name, p in model.named_parameters()})


@pytest.mark.parametrize("kind", ["taylor", "gradient"])
@pytest.mark.parametrize("frozen", ["0.weight", "all"])
def test_frozen_weights_have_the_same_gradients_and_stay_frozen(kind: str, frozen: str) -> None:
    model = mlp()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(frozen not in (name, "all"))
    needed = [parameter.requires_grad for parameter in model.parameters()]
    assert difference(gather(model, kind, BATCHES), gather(mlp(), kind, BATCHES)) is None
    assert [parameter.requires_grad for parameter in model.parameters()] == needed
    assert all(parameter.grad is None for parameter in model.parameters())


class Everything(nn.Module):
    """Batch norm, dropout, an unused layer, parts of it frozen: what could be changed by looking."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.bn, self.drop = nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.Dropout(0.5)
        self.fc, self.unused = nn.Linear(3, 2), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.drop(torch.relu_(self.bn(self.conv(x)))).mean((2, 3)))
        return logits


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("kind", ["apoz", "mean_activation", "feature_map", "taylor", "gradient"])
def test_nothing_of_the_network_is_changed(kind: str, grad: bool) -> None:
    model = Everything().train()
    model.bn.eval()
    model.fc.weight.grad = torch.full_like(model.fc.weight, 3.0)
    before = copy.deepcopy(model.state_dict())
    random, grads = torch.random.get_rng_state(), {name: p.grad for name, p in model.named_parameters()}
    images = [(torch.rand(4, 1, 5, 5, generator=torch.Generator().manual_seed(1)), LABELS)]
    copied = images[0][0].clone()
    with torch.set_grad_enabled(grad):
        first = gather(model, kind, images)
        again = gather(model, kind, iter(images))
        assert torch.is_grad_enabled() == grad
    assert difference(first, again) is None
    assert difference(dict(before), dict(model.state_dict())) is None
    assert [m.training for m in (model, model.conv, model.bn, model.drop)] == [True, True, False, True]
    assert {name: p.grad for name, p in model.named_parameters()} == grads
    assert torch.equal(model.fc.weight.grad, torch.full_like(model.fc.weight, 3.0))
    assert torch.equal(random, torch.random.get_rng_state())
    assert torch.equal(images[0][0], copied)
    assert not any(value.requires_grad for value in first.values())
    assert all(len(module._forward_hooks) + len(module._forward_pre_hooks) == 0 for module in model.modules())


# --- the running mean -------------------------------------------------------------------------------------------------

TEXT = """\
version: 2
policies:
  - pruner:
      {{class: Pruner, criterion: running_feature_map, structure: Filters, weights: conv.weight, rate: {rate}}}
    epochs: [{epochs}]
"""
ADAM = {"name": "adam", "lr": 0.01}


def small_images(count: int, seed: int = 0, size: int = 6) -> list[Batch]:
    draws = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(size, 1, 5, 5, generator=draws), torch.randint(0, 2, (size,), generator=draws))
        for _ in range(count)
    ]


class Spied(nn.Module):
    """conv - bn - relu - dropout - fc; in training mode it notes sum |x| of what goes into the relu, by channel."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv, self.bn, self.drop = nn.Conv2d(1, channels, 2), nn.BatchNorm2d(channels), nn.Dropout(0.2)
        self.fc = nn.Linear(channels, 2)
        nn.init.normal_(self.bn.bias)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        if self.training:
            self.seen.append(x.detach().double().abs().sum((0, 2, 3)))
        logits: Tensor = self.fc(self.drop(torch.relu(x)).mean((2, 3)))
        return logits


def running(run: Loop) -> dict[str, Tensor]:
    return run.session.events.memory["0.Pruner"].running


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_running_mean_is_of_every_tenth_step_of_the_run(accumulate: int) -> None:
    # 3 epochs of 9 steps: steps 0, 10 and 20, whatever the epoch; the pruner comes behind them.
    text = TEXT.format(rate="{events: 0.5}", epochs="2")
    model = Spied()
    optimizer = {**ADAM, "accumulate": accumulate}
    run = Loop(model, lambda epoch: small_images(9, epoch), text, epochs=3, optimizer=optimizer).run()
    steps = [sum(parts) for parts in zip(*(model.seen[part::accumulate] for part in range(accumulate)), strict=True)]
    assert len(steps) == 27
    expected = 0.9 * (0.9 * steps[0] + 0.1 * steps[10]) + 0.1 * steps[20]
    torch.testing.assert_close(running(run)["conv.weight"], expected)
    # At epoch 2 the two of the smallest mean so far went, of steps 0 and 10.
    at_18 = 0.9 * steps[0] + 0.1 * steps[10]
    keep = run.masks.keep("conv.weight").flatten(1).any(1)
    assert set(torch.where(~keep)[0].tolist()) == set(at_18.argsort()[:2].tolist())


def test_it_begins_at_the_first_step_and_before_that_the_network_is_looked_at_as_it_is() -> None:
    run = Loop(model := Spied(), small_images(9), TEXT.format(rate="{sparsity: 0.5}", epochs="0, 1"), epochs=1)
    now = gather(model, "feature_map", small_images(8))["conv.weight"]
    run.run()
    keep = run.masks.keep("conv.weight").flatten(1).any(1)
    assert set(torch.where(~keep)[0].tolist()) == set(now.argsort()[:2].tolist())
    torch.testing.assert_close(running(run)["conv.weight"], model.seen[0])


@pytest.fixture(scope="module")
def whole() -> Loop:
    """A run of four epochs that was never stopped."""
    return resumable(0).run()


def resumable(seed: int) -> Loop:
    text = TEXT.format(rate="{events: 0.75}", epochs="1, 2, 3")
    return Loop(Spied(), lambda epoch: small_images(9, epoch), text, epochs=4, optimizer=ADAM, seed=seed)


@pytest.mark.parametrize("moment", [(0, 1), (0, 9), (1, 1), (1, 2), (2, 0), (2, 3)])
def test_a_resumed_run_goes_on_with_the_mean_to_the_same_bits(whole: Loop, moment: tuple[int, int]) -> None:
    again = resumable(7).resume(whole.at(moment))
    assert difference(again.at((4, 0)), whole.at((4, 0))) is None
    assert again.lines == whole.lines[moment[0] :]


def test_looking_changes_no_bit_of_a_run() -> None:
    text = TEXT.format(rate="{sparsity: 0.0}", epochs="1")
    settings: dict[str, Any] = {"epochs": 2, "optimizer": ADAM}
    looked = Loop(Spied(), small_images(9), text, **settings).run()
    assert running(looked)
    plain = Loop(Spied(), small_images(9), text.replace("running_feature_map", "l2"), **settings).run()
    assert difference(looked.after, plain.after) is None


def test_after_a_thinning_the_mean_begins_anew() -> None:
    text = (
        TEXT.format(rate="{events: 0.8}", epochs="0, 1, 2, 12, 13")
        + "  - {extension: {class: FilterRemover}, epochs: [1]}\n"
    )
    run = Loop(Spied(10), small_images(1), text, epochs=14, optimizer=ADAM).run()
    # floor(8 i / 5) of 10 in events 1 to 5; after the second 3 are cut off, in epoch 1; the next look is at step 10.
    at = {epoch: run.at((epoch, 0))["state"]["policies"]["0.Pruner"]["running"]["conv.weight"] for epoch in (2, 11)}
    assert [len(mean) for mean in at.values()] == [10, 7]
    assert run.model.conv.weight.shape[0] == 7
    assert int((~run.masks.keep("conv.weight").flatten(1).any(1)).sum()) == 8 - 3


def test_a_network_that_cannot_be_looked_into_is_an_error(run_of: RunOf) -> None:
    run = run_of(TEXT.format(rate="{events: 0.5}", epochs="1"), Spied(), batches=small_images(1))
    (substitution,) = run.session.substitutions
    assert isinstance(substitution, RunningMeans)
    substitution.before_forward()  # and no forward pass, as where a compiled copy is called
    with pytest.raises(CompressError, match="saw no forward pass: set `compile: false`"):
        substitution.after_backward()
