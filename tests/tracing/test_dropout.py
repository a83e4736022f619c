"""The weight before each dropout module, by the order of calls."""

from collections import OrderedDict

import torch
import torchvision
from torch import Tensor, nn

from compressor import models
from compressor.tracing.dropout import before_dropout
from compressor.tracing.trace import trace


def before(model: nn.Module, *shape: int) -> dict[str, str]:
    return before_dropout(trace(model, torch.zeros(1, *shape)))


def test_networks_without_dropout_have_none() -> None:
    assert before(models.build("lenet_5", num_classes=10), 1, 28, 28) == {}
    assert before(torchvision.models.resnet18(weights=None), 3, 32, 32) == {}


def test_networks_with_dropout() -> None:
    linear = [nn.Linear(16, 8), nn.ReLU(), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Dropout(0.1), nn.Linear(8, 3)]
    assert before(nn.Sequential(nn.Dropout(0.2), *linear), 16) == {"3": "1.weight", "5": "1.weight"}
    alexnet = {"classifier.0": "features.10.weight", "classifier.3": "classifier.1.weight"}
    assert before(torchvision.models.alexnet(weights=None), 3, 64, 64) == alexnet


class Wrapped(nn.Linear):
    """A linear layer with a dropout of its own, as LoRA's have it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.drop, self.down = nn.Dropout(0.5), nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = super().forward(x) + self.down(self.drop(x))
        return out


def test_dropout_inside_a_layer_is_behind_that_layer_s_beginning() -> None:
    model = nn.Sequential(OrderedDict(first=nn.Linear(4, 4), second=Wrapped(4, 4)))
    assert before(model, 4) == {"second.drop": "second.weight"}


class Reused(nn.Module):
    """One dropout behind two layers that share a weight with a third, and behind a function."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three, self.drop = *(nn.Linear(4, 4) for _ in range(3)), nn.Dropout(0.5)
        self.three.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.two(self.drop(self.one(x))))
        return self.drop(nn.functional.linear(self.three(x), self.two.weight))


def test_the_last_call_of_a_dropout_counts_and_functions_are_no_layers() -> None:
    assert before(Reused(), 4) == {"drop": "one.weight"}
