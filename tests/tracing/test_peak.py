"""The peak memory of activations, by hand: float32, so 4 bytes an entry."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.tracing import peak_activations


class Net(nn.Module):
    """Layers, and what is done with them."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self._forward = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def chain(*, inplace: bool) -> nn.Sequential:
    """1x8x8, then 4x6x6 twice, then 10."""
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace), nn.Flatten(), nn.Linear(144, 10))


CONV = {"a": nn.Conv2d(4, 4, 3, padding=1), "b": nn.Conv2d(4, 4, 3, padding=1)}
MAP = 4 * 8 * 8 * 4
"""Bytes of a map of 4x8x8."""


@pytest.mark.parametrize(
    ("network", "shape", "expected"),
    [
        (chain(inplace=False), (1, 8, 8), 4 * (144 + 144)),  # input and output of the ReLU; the image is read no more
        (chain(inplace=True), (1, 8, 8), 4 * (64 + 144)),  # at the convolution: the ReLU needs no second map
        (Net(lambda s, x: s.b(s.a(x)), **CONV), (4, 8, 8), 2 * MAP),
        (Net(lambda s, x: s.b(s.a(x)) + x, **CONV), (4, 8, 8), 3 * MAP),  # the shortcut waits for the sum
        (Net(lambda s, x: s.a(x).view(1, 256)[:, :10], **CONV), (4, 8, 8), 2 * MAP),  # views are the map itself
        (Net(lambda s, x: torch.cat([x, s.a(x)], 1), **CONV), (4, 8, 8), 4 * MAP),
        (Net(lambda s, x: (s.a(x), s.b(s.b(x)))[0], **CONV), (4, 8, 8), 3 * MAP),  # the result waits for the end
    ],
    ids=["chain", "in place", "two", "shortcut", "views", "cat", "early result"],
)
def test_the_peak_of_a_small_network(network: nn.Module, shape: tuple[int, int, int], expected: int) -> None:
    assert peak_activations(network, shape) == expected


def test_a_network_in_training_mode_is_traced_in_eval_mode_and_left_as_it_was() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Dropout(0.5), nn.Flatten())
    network.train()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    assert peak_activations(network, (1, 4, 4)) == 4 * 2 * 2 * 16
    assert network[1].training
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_where_tensors_have_no_storage_nothing_is_known() -> None:
    assert peak_activations(Net(lambda s, x: s.a(x).to_sparse().to_dense(), **CONV), (4, 8, 8)) is None
