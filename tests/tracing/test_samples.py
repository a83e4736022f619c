"""What layers read and give at some positions: one times the weight is the other, and the draws stay as they are."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.tracing.layer_calls import Layer, layer_calls
from compressor.tracing.samples import Samples, sample_inputs, sample_outputs
from compressor.tracing.trace import trace

BATCHES = [(torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(seed)), torch.zeros(2)) for seed in (0, 1)]


def net() -> nn.Sequential:
    torch.manual_seed(0)
    first, second = nn.Conv2d(1, 3, 3, stride=2, padding=1), nn.Conv2d(3, 2, 3, padding="same", dilation=2)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(32, 2))


@torch.no_grad()
def sampled(model: nn.Module, points: int = 3) -> tuple[list[Layer], dict[str, Samples]]:
    names = ["0.weight", "2.weight", "5.weight"]
    layers = layer_calls(trace(model, BATCHES[0][0]), names)
    assert [layer.name for layer in layers] == names
    return layers, sample_outputs(model, BATCHES, layers, points, np.random.default_rng([1707, 0]))


def test_positions_are_drawn_batch_by_batch_layer_by_layer() -> None:
    # As channel pruning has always drawn them: results of published runs hang on it.
    _, found = sampled(net())
    assert [drawn.tolist() for drawn in found["0.weight"].positions] == [
        [[[3, 1], [2, 3], [3, 2]], [[3, 1], [3, 3], [2, 2]]],
        [[[1, 0], [3, 3], [3, 1]], [[3, 3], [1, 3], [0, 1]]],
    ]
    assert [drawn.tolist() for drawn in found["2.weight"].positions] == [
        [[[0, 2], [2, 1], [2, 0]], [[0, 1], [3, 3], [2, 1]]],
        [[[2, 2], [3, 2], [0, 2]], [[3, 0], [1, 0], [2, 3]]],
    ]
    assert [len(drawn) for drawn in found["5.weight"].positions] == [0, 0]


@pytest.mark.parametrize("points", [3, 16, 100])  # of a map of 4 x 4
def test_what_a_layer_reads_times_its_weight_is_what_it_gives(points: int) -> None:
    model = net()
    layers, found = sampled(model, points)
    for layer in layers:
        given, others = sample_inputs(model, BATCHES, layer, found[layer.name].positions)
        module = model.get_submodule(layer.name.removesuffix(".weight"))
        rows = 4 * min(points, 16) if isinstance(module, nn.Conv2d) else 4
        assert given.shape == (rows, module.weight.shape[1], module.weight[0, 0].numel())
        assert others == []
        expected = given.flatten(1) @ module.weight.flatten(1).T + module.bias
        assert torch.allclose(torch.cat(found[layer.name].outputs), expected, atol=1e-6)


class Block(nn.Module):
    """A convolution with a shortcut that it is added to in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = 2 * x
        shortcut += self.conv(x)
        return shortcut


def test_what_is_added_is_taken_before_it_is_overwritten_at_the_same_positions() -> None:
    model = Block()
    (layer,) = layer_calls(trace(model, BATCHES[0][0]), ["conv.weight"])
    found = sample_outputs(model, BATCHES, [layer], 5, np.random.default_rng(0))["conv.weight"]
    given, others = sample_inputs(model, BATCHES, layer, found.positions)
    centre = given[:, :, 4]  # the image itself
    assert torch.equal(torch.cat(found.others), 2 * centre)
    assert torch.equal(torch.cat(others), 2 * centre)
