"""Which activation stands behind a weight, and what goes into it: compared with hooks on the modules, set by hand."""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
import torchvision
from helpers import difference
from torch import Tensor, nn
from torch.nn import functional as F

from compressor import models
from compressor.sparsity.weights import prunable
from compressor.tracing import activations
from compressor.tracing.activations import Place, at_places
from compressor.tracing.calls import Call
from compressor.tracing.trace import trace
from compressor.tracing.watching import Watching, watch

IMAGES = torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))


def places(model: nn.Module, images: Tensor) -> dict[str, Place]:
    return activations.places(trace(model, images))


class Seen:
    """Copies of what was shown, by weight."""

    def __init__(self) -> None:
        self.into: dict[str, Tensor] = {}
        self.out: dict[str, Tensor] = {}

    def before(self, name: str, value: Tensor) -> None:
        assert name not in self.into
        self.into[name] = value.detach().clone()

    def after(self, name: str, value: Tensor) -> None:
        assert name not in self.out
        self.out[name] = value.detach().clone()


@contextmanager
def calls(model: nn.Module) -> Iterator[dict[str, list[tuple[Tensor, Tensor]]]]:
    """What goes into each module and what comes out, call by call; copied at once, for much is overwritten in place."""
    found: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)
    handles, given = [], dict[str, Tensor]()
    for path, module in model.named_modules():

        def before(_: nn.Module, inputs: tuple[Tensor, ...], path: str = path) -> None:
            given[path] = inputs[0].detach().clone() if isinstance(inputs[0], Tensor) else torch.empty(0)

        def after(_: nn.Module, inputs: object, output: Tensor, path: str = path) -> None:
            found[path].append((given[path], output.detach().clone()))

        handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def looked(
    model: nn.Module, images: Tensor, training: bool = False
) -> tuple[Seen, dict[str, list[tuple[Tensor, Tensor]]]]:
    """One forward pass, as the code under test and as the hooks see it."""
    found, seen = places(model, images), Seen()
    model.train(training)
    torch.manual_seed(0)
    with torch.no_grad(), calls(model) as by_hooks, at_places(found, seen):
        model(images)
    assert set(seen.into) == set(seen.out) == set(found)
    return seen, by_hooks


class Net(nn.Module):
    """conv - bn - an activation - fc."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.bn, self.fc = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Linear(3, 2)
        nn.init.normal_(self.bn.bias)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.activation(self.bn(self.conv(x))).mean((2, 3)))
        return logits


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "module": nn.ReLU(),
    "module in place": nn.ReLU(inplace=True),
    "functional": F.relu,
    "functional in place": lambda x: F.relu(x, inplace=True),
    "functional by keyword": lambda x: F.relu(input=x),
    "torch": torch.relu,
    "torch in place": torch.relu_,
    "method": lambda x: x.relu(),
    "method in place": lambda x: x.relu_(),
    "behind a pooling": lambda x: F.relu(F.max_pool2d(x, 2)),
    "behind dropout in eval mode": nn.Sequential(nn.Dropout(0.5), nn.ReLU()),
}


@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_the_relu_behind_a_convolution_and_its_batch_norm_however_it_is_written(
    activation: Callable[[Tensor], Tensor],
) -> None:
    model = Net(activation).eval()
    seen, _ = looked(model, IMAGES)
    with torch.no_grad():
        normed = model.bn(model.conv(IMAGES))
        into = F.max_pool2d(normed, 2) if activation is ACTIVATIONS["behind a pooling"] else normed
        assert (into < 0).any()
        assert torch.equal(seen.into["conv.weight"], into)
        assert torch.equal(seen.out["conv.weight"], into.clamp_min(0))
        assert torch.equal(seen.out["fc.weight"], model(IMAGES))
        assert torch.equal(seen.into["fc.weight"], model(IMAGES))
    assert places(model, IMAGES)["fc.weight"] == Place(Call("linear", 0), activation=False)


@pytest.mark.parametrize(
    "activation",
    [
        *[nn.ReLU6(), nn.LeakyReLU(0.1), nn.GELU(), nn.SiLU(), nn.Tanh(), nn.PReLU(3), torch.sigmoid, F.hardswish],
        *[nn.Threshold(0.1, 0.0), nn.Threshold(0.1, 0.0, inplace=True), lambda x: torch.threshold(x, 0.1, 0.0)],
        *[nn.Hardshrink(), nn.Softshrink(), nn.LogSigmoid(), F.logsigmoid, nn.Softsign(), F.softsign],
        *[lambda x: x.clamp(min=0), lambda x: torch.clamp(x, 0, 6), lambda x: x.clamp_(0), lambda x: x.clamp_min(0)],
        *[lambda x: x.clamp_min_(0), lambda x: F.threshold_(x, 0.1, 0.0)],
    ],
)
def test_other_activations_are_found_too(activation: Callable[[Tensor], Tensor]) -> None:
    model = Net(activation).eval()
    seen, _ = looked(model, IMAGES)
    with torch.no_grad():
        normed = model.bn(model.conv(IMAGES))
        assert torch.equal(seen.into["conv.weight"], normed)
        assert torch.equal(seen.out["conv.weight"], activation(normed))


def test_without_an_activation_it_is_the_batch_norm_and_without_one_the_layer_itself() -> None:
    model = Net(nn.Identity()).eval()
    seen, by_hooks = looked(model, IMAGES)
    for tensors in (seen.into, seen.out):
        assert torch.equal(tensors["conv.weight"], by_hooks["bn"][0][1])
    model.bn = nn.Identity()
    seen, by_hooks = looked(model, IMAGES)
    for tensors in (seen.into, seen.out):
        assert torch.equal(tensors["conv.weight"], by_hooks["conv"][0][1])


class Residual(nn.Module):
    """As a pre-activation ResNet: x = stem(image); x = x + b(relu(bn(x))); the classifier of relu(final(x))."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.b = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1)
        self.bn, self.final, self.fc = nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.b(torch.relu(self.bn(x)))
        logits: Tensor = self.fc(torch.relu(self.final(x)).mean((2, 3)))
        return logits


def test_before_an_activation_and_behind_it_in_a_preactivation_block() -> None:
    seen, by_hooks = looked(Residual().eval(), IMAGES)
    assert torch.equal(seen.into["stem.weight"], by_hooks["bn"][0][1])
    assert torch.equal(seen.into["b.weight"], by_hooks["final"][0][1])  # of the sum, normalized


def test_layers_used_twice_count_at_their_first_use_and_those_not_used_not_at_all() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.unused, self.fc = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 2, 1), nn.Linear(1, 2)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.fc(torch.tanh(self.conv(torch.relu(self.conv(x)))).mean((2, 3)))
            return logits

    model = Twice()
    assert places(model, IMAGES) == {
        "conv.weight": Place(Call("relu", 0), activation=True),
        "fc.weight": Place(Call("linear", 0), activation=False),
    }
    seen, by_hooks = looked(model, IMAGES)
    assert torch.equal(seen.into["conv.weight"], by_hooks["conv"][0][1])


@pytest.mark.parametrize("features", [5, 6])  # and 6 tokens
def test_the_outputs_of_a_linear_layer_over_tokens_are_no_channels(features: int) -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.fc = nn.Linear(6, features), nn.Linear(features, 2)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.fc(torch.relu(self.inner(x.flatten(1, 2))).mean(1))
            return logits

    found = places(Tokens(), IMAGES)
    assert {name: place.channels for name, place in found.items()} == {"inner.weight": False, "fc.weight": True}
    assert all(place.channels for place in places(Net(F.relu).eval(), IMAGES).values())


class Standardized(nn.Conv2d):
    """A convolution that normalizes its weight first, as in big transfer's ResNets."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, torch.relu(weight))


def test_what_a_layer_makes_of_its_weight_alone_is_not_its_output() -> None:
    model = Net(F.relu).eval()
    model.conv = Standardized(1, 3, 3, bias=False)
    norms: list[Tensor] = []
    model.register_forward_pre_hook(lambda module, given: norms.append(module.conv.weight.detach().norm()))
    assert places(model, IMAGES)["conv.weight"] == Place(Call("relu", 1), activation=True)
    seen, by_hooks = looked(model, IMAGES)
    assert torch.equal(seen.into["conv.weight"], by_hooks["bn"][0][1])


def test_lenet_s_convolutions_have_no_activation_and_its_linear_layer_has_one() -> None:
    model = models.build("lenet_5", num_classes=10)
    seen, by_hooks = looked(model, torch.randn(2, 1, 28, 28))
    layers = list(seen.into)
    assert len(layers) == 4
    for name in (*layers[:2], layers[3]):
        for tensors in (seen.into, seen.out):
            assert torch.equal(tensors[name], by_hooks[name.removesuffix(".weight")][0][1])
    into = by_hooks[layers[2].removesuffix(".weight")][0][1]
    assert torch.equal(seen.into[layers[2]], into)
    assert torch.equal(seen.out[layers[2]], into.clamp_min(0))


# --- torchvision ------------------------------------------------------------------------------------------------------


def resnet18() -> dict[str, tuple[str, int]]:
    where = {"conv1.weight": ("relu", 0), "fc.weight": ("fc", 0)}
    for block in (f"layer{stage}.{number}" for stage in (1, 2, 3, 4) for number in (0, 1)):
        where |= {f"{block}.conv1.weight": (f"{block}.relu", 0), f"{block}.conv2.weight": (f"{block}.relu", 1)}
    for stage in (2, 3, 4):
        where[f"layer{stage}.0.downsample.0.weight"] = (f"layer{stage}.0.relu", 1)
    return where


def densenet121() -> dict[str, tuple[str, int]]:
    where = {"features.conv0.weight": ("features.relu0", 0), "classifier.weight": ("classifier", 0)}
    for block, layers in enumerate((6, 12, 24, 16), 1):
        for layer in range(1, layers + 1):
            path = f"features.denseblock{block}.denselayer{layer}"
            where[f"{path}.conv1.weight"] = (f"{path}.relu2", 0)
            where[f"{path}.conv2.weight"] = (f"{path}.conv2", 0)  # joined with others before anything else
        if block < 4:
            behind = f"features.denseblock{block + 1}.denselayer1.relu1"
            where[f"features.transition{block}.conv.weight"] = (behind, 0)
    return where


def mobilenet_v2() -> dict[str, tuple[str, int]]:
    where = {"features.0.0.weight": ("features.0.2", 0), "features.18.0.weight": ("features.18.2", 0)}
    where |= {
        "features.1.conv.0.0.weight": ("features.1.conv.0.2", 0),
        "features.1.conv.1.weight": ("features.1.conv.2", 0),
    }
    for block in (f"features.{number}.conv" for number in range(2, 18)):
        where |= {f"{block}.{part}.0.weight": (f"{block}.{part}.2", 0) for part in (0, 1)}
        where[f"{block}.2.weight"] = (f"{block}.3", 0)  # a linear bottleneck: its batch norm
    return {**where, "classifier.1.weight": ("classifier.1", 0)}


def squeezenet1_1() -> dict[str, tuple[str, int]]:
    where = {"features.0.weight": ("features.1", 0), "classifier.1.weight": ("classifier.2", 0)}
    for path in (f"features.{number}" for number in (3, 4, 6, 7, 9, 10, 11, 12)):
        for part in ("squeeze", "expand1x1", "expand3x3"):
            where[f"{path}.{part}.weight"] = (f"{path}.{part}_activation", 0)
    return where


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("where", [resnet18, densenet121, mobilenet_v2, squeezenet1_1])
def test_the_activations_of_torchvision_s_networks(
    where: Callable[[], dict[str, tuple[str, int]]], training: bool
) -> None:
    torch.manual_seed(0)
    model = torchvision.models.get_model(where.__name__, weights=None, num_classes=5)
    seen, by_hooks = looked(model, torch.randn(2, 3, 32, 32), training)
    expected = where()
    assert set(seen.into) == set(expected) == set(prunable(model))
    for name, (path, number) in expected.items():
        into, out = by_hooks[path][number]
        is_activation = isinstance(model.get_submodule(path), (nn.ReLU, nn.ReLU6))
        assert torch.equal(seen.out[name], out), (name, path)
        assert torch.equal(seen.into[name], into if is_activation else out), (name, path)


def test_googlenet_s_activations_are_functions_in_place() -> None:
    torch.manual_seed(0)
    model = torchvision.models.googlenet(weights=None, num_classes=5, aux_logits=False, init_weights=False)
    seen, by_hooks = looked(model, torch.randn(2, 3, 32, 32))
    assert set(seen.into) == set(prunable(model))
    for name in set(seen.into) - {"fc.weight"}:
        normed = by_hooks[name.replace("conv.weight", "bn")][0][1]
        assert torch.equal(seen.into[name], normed)
        assert torch.equal(seen.out[name], normed.clamp_min(0))


# --- that nothing is changed by it ------------------------------------------------------------------------------------


def test_following_the_network_changes_nothing_of_it() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(48, 2))
    model.train()
    model[1].eval()  # as where statistics are frozen
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before, random = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    places(model, IMAGES)
    assert [module.training for module in model.modules()] == [True, True, False, True, True, True]
    assert difference(dict(model.state_dict()), dict(before)) is None
    assert torch.equal(random, torch.random.get_rng_state())
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert torch.is_grad_enabled()


def test_what_is_shown_is_what_the_network_would_have_computed_anyway() -> None:
    model = Net(nn.ReLU(inplace=True)).eval()
    plain = model(IMAGES)
    with at_places(places(model, IMAGES), Seen()):
        assert torch.equal(model(IMAGES), plain)


def test_a_watched_network_is_looked_at_when_that_is_armed_and_never_else() -> None:
    model = Net(nn.ReLU())
    seen: list[Seen] = []
    armed = False

    def arm() -> Watching | None:
        if not armed:
            return None
        seen.append(Seen())
        return at_places(where, seen[-1])

    where = places(model, IMAGES)
    watch(model, arm)
    model(IMAGES)
    assert seen == []
    armed = True
    for number in (1, 2):
        model(IMAGES)
        torch.relu(IMAGES)  # nobody's
        assert [set(each.into) for each in seen] == [{"conv.weight", "fc.weight"}] * number
    with pytest.raises(RuntimeError):
        model(torch.zeros(2, 5, 6, 6))  # five channels: it fails in the midst of a look
    F.linear(torch.zeros(1, 2), torch.zeros(2, 2))
    assert (len(seen), seen[-1].into) == (3, {})
    armed = False
    model(IMAGES)
    assert len(seen) == 3
