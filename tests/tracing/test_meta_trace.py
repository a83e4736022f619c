"""A forward pass on the meta device: what it tells, and what it cannot."""

import copy
from typing import Any

import pytest
import torch
from helpers import difference
from torch import Tensor, nn

from compressor.models.checking import shapes
from compressor.tracing.activations import places
from compressor.tracing.meta_trace import expected_channels, trace_on_meta
from compressor.tracing.trace import trace


class Net(nn.Module):
    """A convolution and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 20, 3), nn.Linear(20, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(torch.relu(self.conv(x)).mean((2, 3)))
        return logits


class ByValue(Net):
    """It cannot be run without storage."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if float(x.sum()) == 0 else super().forward(x * 2)


def test_without_storage_the_operations_are_the_same() -> None:
    net = Net()
    before = copy.deepcopy(net.state_dict())
    rehearsed, traced = trace_on_meta(net, (1, 6, 6)), trace(net, torch.ones(2, 1, 6, 6))
    assert rehearsed is not None
    for name in ("call", "reads", "shapes"):
        assert [getattr(one, name) for one in rehearsed.operations] == [getattr(one, name) for one in traced.operations]
    assert places(rehearsed) == places(traced)
    assert difference(dict(net.state_dict()), dict(before)) is None


def test_a_network_that_asks_for_values_cannot_be_rehearsed() -> None:
    assert trace_on_meta(ByValue(), (1, 6, 6)) is None
    assert expected_channels(ByValue(), (3, 6, 6)) is None


@pytest.mark.parametrize(("shape", "wanted"), [((1, 6, 6), None), ((3, 6, 6), 1), ((3, 2, 2), None), ((1, 2, 2), None)])
def test_how_many_channels_a_network_wants(shape: Any, wanted: int | None) -> None:
    assert expected_channels(Net(), shape) == wanted
    assert expected_channels(shapes(Net), shape) == wanted


MEAN, LAST = torch.tensor([0.1, 0.2, 0.3]).reshape(3, 1, 1), nn.Linear(4, 7)


class WithValuesBeside(nn.Module):
    """A network that uses tensors and a layer that are not its own, reads their values, and makes some."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.scales = nn.Conv2d(3, 4, 3), [torch.ones(4, 1, 1)]

    def forward(self, x: Tensor) -> Tensor:
        x = self.first((x - MEAN) / MEAN.max().item()) * self.scales[0]
        x = x[:, torch.tensor([0, 2, 1, 3])] + torch.arange(4.0).reshape(4, 1, 1)
        return LAST(x.mean((2, 3)))


def test_tensors_with_values_beside_the_network_are_taken_by_their_shapes() -> None:
    found = trace_on_meta(WithValuesBeside(), (3, 8, 8))
    assert found is not None
    assert found.outputs[0].shape == (2, 7)
    assert not MEAN.is_meta
