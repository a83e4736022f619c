"""The calls of layers, the batch norm behind each, and the shortcut that is added to its outputs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from channel_nets import ADDITIONS, Net, images, residual, seeded
from torch import Tensor, nn
from torch.nn import BatchNorm2d, Conv2d, Linear

from compressor.tracing.calls import Call
from compressor.tracing.layer_calls import Layer, layer_calls
from compressor.tracing.trace import trace


def layers(net: nn.Module) -> dict[str, Layer]:
    found = layer_calls(trace(net, images()[0][0]), [name for name, _ in net.named_parameters()])
    return {layer.name: layer for layer in found}


@pytest.mark.parametrize("how", ADDITIONS)
def test_only_the_last_convolutions_of_blocks_are_found_before_an_addition(how: str) -> None:
    net = residual(norm=True, how=how)
    found = layers(net)
    assert found.pop("fc.weight").scale is None
    assert list(found) == [f"{path}.weight" for path in ("stem", "one1", "one2", "two1", "two2")]
    assert [name for name, layer in found.items() if layer.addition] == ["one2.weight", "two2.weight"]
    assert [name for name, layer in found.items() if layer.scale is not None] == ["one2.weight", "two2.weight"]


JOINED: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], bool]] = {
    "as it is": (lambda branch, x: branch + x, True),
    "behind dropout, which does nothing": (lambda branch, x: F.dropout(branch, 0.5, training=False) + x, True),
    "behind a ReLU": (lambda branch, x: F.relu(branch) + x, False),
    "behind a ReLU in place": (lambda branch, x: F.relu(branch, inplace=True) + x, False),
    "twice": (lambda branch, x: torch.add(x, branch, alpha=2), False),
    "to a number": (lambda branch, x: branch + 1, False),
    "to one channel": (lambda branch, x: branch + x[:, :1], False),
    "as a factor": (lambda branch, x: branch * x, False),
}


@pytest.mark.parametrize(("join", "found"), JOINED.values(), ids=JOINED)
def test_a_shortcut_is_what_is_added_to_the_outputs_themselves(
    join: Callable[[Tensor, Tensor], Tensor], found: bool
) -> None:
    seeded()
    net = Net(lambda s, x: join(s.b(s.a(x)), s.a(x)).mean((2, 3)), a=Conv2d(1, 4, 3), b=Conv2d(4, 4, 1))
    (layer,) = layer_calls(trace(net, images()[0][0]), ["b.weight"])
    assert (layer.addition is not None) == found


def test_a_batch_norm_that_reads_the_outputs_beside_the_addition_does_not_weigh_them() -> None:
    seeded()

    def forward(s: Any, x: Tensor) -> Tensor:
        y = s.a(x)
        branch = s.b(y)
        return (branch + y).mean((2, 3)) + s.bn(branch).mean((2, 3))

    net = Net(forward, a=Conv2d(1, 4, 3), b=Conv2d(4, 4, 1), bn=BatchNorm2d(4))
    (layer,) = layer_calls(trace(net, images()[0][0]), ["b.weight"])
    assert layer.addition is not None
    assert layer.scale is None


def test_the_factors_of_a_batch_norm_are_gamma_by_the_deviation_and_only_in_eval_mode() -> None:
    net = residual(norm=True)
    norm = net.get_submodule("bn2")
    expected = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    scale = layers(net)["two2.weight"].scale
    assert scale is not None
    assert torch.allclose(scale, expected.detach(), rtol=1e-12)
    by_batch = Net(
        lambda s, x: F.batch_norm(s.a(x), torch.zeros(4), torch.ones(4), training=True).mean((2, 3)), a=Conv2d(1, 4, 3)
    )
    assert layers(by_batch)["a.weight"].scale is None


def test_each_call_of_a_layer_is_kept_also_of_two_layers_that_share_a_weight() -> None:
    net = Net(
        lambda s, x: s.fc(s.b(F.relu(s.a(s.a(x)))).mean((2, 3))), a=Conv2d(1, 1, 3), b=Conv2d(1, 1, 3), fc=Linear(1, 2)
    )
    assert [call.number for call in layers(net)["a.weight"].calls] == [0, 1]
    net.get_submodule("b").weight = net.get_submodule("a").weight
    found = layers(net)
    assert list(found) == ["a.weight", "fc.weight"]
    assert found["a.weight"].calls == [Call("conv2d", 0), Call("conv2d", 1), Call("conv2d", 2)]


def test_a_weight_that_is_changed_before_it_is_applied_or_was_not_asked_for_is_left_out() -> None:
    net = Net(lambda s, x: F.conv2d(s.a(x), s.b.weight * 2).mean((2, 3)), a=Conv2d(1, 4, 3), b=Conv2d(4, 4, 1))
    assert list(layers(net)) == ["a.weight"]
    assert layer_calls(trace(net, images()[0][0]), ["b.weight"]) == []
