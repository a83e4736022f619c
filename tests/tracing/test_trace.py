"""The record of one forward pass: what each operation reads and makes, and which modules are called."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from channel_nets import Net, images, residual
from helpers import difference
from torch import Tensor, nn
from torch.nn import Conv2d, Linear
from torch.nn import functional as F
from torch.nn.modules import module as torch_module

from compressor.tracing.activations import Place, places
from compressor.tracing.calls import Call
from compressor.tracing.layer_calls import layer_calls
from compressor.tracing.trace import Trace, trace
from compressor.tracing.watching import Watching

IMAGES = torch.ones(2, 1, 6, 6)


def made(trace: Trace) -> list[tuple[str, list[int | None]]]:
    """The operations by name, with the operations that they read."""
    return [(one.call.function, [read.maker for read in one.reads]) for one in trace.operations]


def test_one_trace_answers_for_activations_and_for_shortcuts() -> None:
    found = trace(residual(norm=True), images()[0][0])
    assert {name: place.call for name, place in places(found).items()} == {
        "stem.weight": Call("relu", 0),
        "one1.weight": Call("relu", 1),
        "one2.weight": Call("relu", 2),
        "two1.weight": Call("relu", 3),
        "two2.weight": Call("relu", 4),
        "fc.weight": Call("linear", 0),
    }
    layers = {layer.name: layer for layer in layer_calls(found, places(found))}
    additions = {name: (layer.addition, layer.other) for name, layer in layers.items() if layer.addition}
    assert additions == {"one2.weight": (Call("add", 0), 1), "two2.weight": (Call("add", 1), 1)}
    assert [layer.calls for layer in layers.values()] == [
        *[[Call("conv2d", number)] for number in range(5)],
        [Call("linear", 0)],
    ]


def test_each_operation_reads_what_made_or_changed_its_arguments_last() -> None:
    net = Net(lambda s, x: (lambda y: y.relu_() + y + x)(s.a(x)).flatten(1), a=Conv2d(1, 3, 1))
    found = trace(net, IMAGES)
    assert made(found) == [
        *[("conv2d", [None, None, None]), ("relu_", [0]), ("add", [1, 1]), ("add", [2, None]), ("flatten", [3])]
    ]
    conv = found.operations[0]
    assert [read.of_images for read in conv.reads] == [True, False, False]
    assert [(read.weight, read.is_weight) for read in conv.reads] == [
        *[(None, False), ("a.weight", True), (None, False)]
    ]
    assert [one.shapes for one in found.operations] == [((2, 3, 6, 6),)] * 4 + [((2, 108),)]
    assert places(found) == {"a.weight": Place(Call("relu_", 0), activation=True)}


def test_lists_of_tensors_are_read_and_made() -> None:
    net = Net(lambda s, x: torch.cat(list(s.a(x).chunk(2, 1)), dim=1), a=Conv2d(1, 4, 1))
    found = trace(net, IMAGES)
    assert made(found)[1:] == [("chunk", [0]), ("cat", [1, 1])]
    assert found.operations[1].shapes == ((2, 2, 6, 6), (2, 2, 6, 6))


def shared() -> Net:
    """Two convolutions of one weight, the second one called twice."""
    net = Net(
        lambda s, x: s.fc(torch.tanh(s.b(torch.sigmoid(s.b(torch.relu(s.a(x)))))).mean((2, 3))),
        a=Conv2d(1, 1, 3, padding=1), b=Conv2d(1, 1, 3, padding=1), fc=Linear(1, 2),
    )  # fmt: skip
    net.get_submodule("b").weight = net.get_submodule("a").weight
    return net


def test_a_weight_that_layers_share_is_applied_in_each_call() -> None:
    found = trace(shared(), IMAGES)
    applied = [one.applied.weight for one in found.operations if one.applied is not None]
    assert applied == ["a.weight", "a.weight", "a.weight", "fc.weight"]
    assert places(found)["a.weight"] == Place(Call("relu", 0), activation=True)
    (layer,) = layer_calls(found, ["a.weight"])
    assert layer.calls == [Call("conv2d", 0), Call("conv2d", 1), Call("conv2d", 2)]


def test_modules_are_recorded_call_by_call_in_the_order_in_which_they_begin() -> None:
    model = nn.Sequential(shared(), nn.ReLU())
    found = trace(model, IMAGES)
    assert [(call.path, call.weight, call.shapes) for call in found.modules] == [
        *[("", None, ((2, 2),)), ("0", None, ((2, 2),)), ("0.a", "0.a.weight", ((2, 1, 6, 6),))],
        *[("0.b", "0.a.weight", ((2, 1, 6, 6),))] * 2,
        *[("0.fc", "0.fc.weight", ((2, 2),)), ("1", None, ((2, 2),))],
    ]
    assert all(call.module is model.get_submodule(call.path) for call in found.modules)


class Tries(nn.Module):
    """It tries what fails, asks for shapes, and has a module that belongs to nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong, self.fc = nn.Linear(7, 2), nn.Linear(36, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(x.shape[0], -1)
        try:
            x = self.wrong(x)
        except RuntimeError:
            x = self.fc(nn.Dropout(0.5)(x))
        return x


def shown(call: Call, model: nn.Module) -> list[tuple[int, ...]]:
    """The shapes of what a call gives in one forward pass."""
    found: list[tuple[int, ...]] = []

    def look(args: Any, named: Any, result: Tensor) -> None:
        found.append(tuple(result.shape))

    with Watching([], [(call, look)]):
        model(IMAGES)
    return found


def test_calls_have_the_same_numbers_when_they_are_recorded_and_when_they_are_shown() -> None:
    found = trace(Tries(), IMAGES)
    # The first linear one failed; shapes that the record asks for are no operations of the network.
    expected = [Call("__get__", 0), Call("reshape", 0), Call("dropout", 0), Call("linear", 1)]
    assert [one.call for one in found.operations] == expected
    assert [(call.path, call.shapes) for call in found.modules] == [
        *[("", ((2, 2),)), ("wrong", ()), ("fc", ((2, 2),))],
    ]
    assert shown(places(found)["fc.weight"].call, Tries().eval()) == [(2, 2)]


def hooks() -> list[int]:
    return [len(torch_module._global_forward_pre_hooks), len(torch_module._global_forward_hooks)]


@pytest.mark.parametrize("fails", [False, True])
def test_tracing_a_network_changes_nothing_of_it(fails: bool) -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(48, 2))
    model[1].eval()  # as where statistics are frozen
    before, random, hooked = copy.deepcopy(model.state_dict()), torch.random.get_rng_state(), hooks()
    if fails:
        with pytest.raises(RuntimeError):
            trace(model, torch.ones(2, 1, 9, 9))
    else:
        trace(model, IMAGES)
    assert [module.training for module in model.modules()] == [True, True, False, True, True, True]
    assert difference(dict(model.state_dict()), dict(before)) is None
    assert torch.equal(random, torch.random.get_rng_state())
    assert torch.is_grad_enabled()
    assert hooks() == hooked


@pytest.mark.parametrize("change", [lambda w: w * 2, lambda w: torch.stack([w, w])[0], lambda w: w - w.mean()])
def test_what_is_made_of_a_weight_alone_stands_for_it(change: Callable[[Tensor], Tensor]) -> None:
    net = Net(lambda s, x: F.linear(x.flatten(1), change(s.fc.weight)), fc=Linear(36, 2))
    last = trace(net, IMAGES).operations[-1]
    assert last.applied is not None
    assert (last.applied.weight, last.applied.is_weight) == ("fc.weight", False)


def test_in_place_the_weight_stays_the_weight_and_a_buffer_of_images_is_of_images() -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        s.fc.weight.mul_(1.0)
        x = torch.zeros(2, 36).add_(x.flatten(1))
        return s.fc(x)

    found = trace(Net(forward, fc=Linear(36, 2)), IMAGES)
    last = found.operations[-1]
    assert last.applied is not None
    assert (last.applied.weight, last.applied.is_weight, last.applied.maker) == ("fc.weight", True, 0)
    assert last.reads[0].of_images
