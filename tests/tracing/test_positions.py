"""The number of positions at which each layer works."""

import torch
import torchvision
from torch import Tensor, nn

from compressor import models
from compressor.tracing.positions import positions
from compressor.tracing.trace import trace


def found(model: nn.Module, *shape: int) -> dict[str, list[int]]:
    return positions(trace(model, torch.zeros(1, *shape)))


def test_lenet_5() -> None:
    expected = {"conv1.weight": [24 * 24], "conv2.weight": [8 * 8], "fc1.weight": [1], "fc2.weight": [1]}
    assert found(models.build("lenet_5", num_classes=10), 1, 28, 28) == expected


def test_a_resnet_18_on_images_of_64_by_64() -> None:
    counts = found(torchvision.models.resnet18(weights=None), 3, 64, 64)
    assert list(counts)[:3] == ["conv1.weight", "layer1.0.conv1.weight", "layer1.0.conv2.weight"]
    stages = {"conv1": 32 * 32, "layer1": 16 * 16, "layer2": 8 * 8, "layer3": 4 * 4, "layer4": 2 * 2, "fc": 1}
    assert counts == {name: [stages[name.partition(".")[0]]] for name in counts}
    assert len(counts) == 21


class Net(nn.Module):
    """Layers that are called twice or share a weight, over lines and tokens; one that is not called."""

    def __init__(self) -> None:
        super().__init__()
        self.line, self.one, self.two = nn.Conv1d(1, 2, 3), nn.Linear(2, 2), nn.Linear(2, 2)
        self.up, self.unused = nn.ConvTranspose1d(2, 2, 2), nn.Linear(2, 2)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.one(self.line(x).transpose(1, 2))  # [images, 8 tokens, 2]
        x = self.up(tokens.transpose(1, 2))
        logits: Tensor = nn.functional.linear(self.two(self.one(x.mean(2))), self.one.weight)
        return logits


def test_each_call_of_a_layer_has_its_positions_and_functions_are_no_layers() -> None:
    assert found(Net(), 1, 10) == {"line.weight": [8], "one.weight": [8, 1, 1]}


def test_a_batch_of_images_changes_nothing() -> None:
    assert positions(trace(Net(), torch.zeros(5, 1, 10))) == found(Net(), 1, 10)
