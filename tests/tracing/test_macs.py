"""Multiply-accumulates of one image: by hand, and of the nets whose counts are published."""

import pytest
import torch
from torch import Tensor, nn

from compressor import models
from compressor.tracing.macs import macs


class Net(nn.Module):
    """A convolution, a grouped one, a linear layer; 1 x 6 x 6 images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)  # 4 x 4 x 4 out
        self.bn = nn.BatchNorm2d(4)
        self.grouped = nn.Conv2d(4, 6, 2, stride=2, groups=2, bias=False)  # 6 x 2 x 2 out
        self.fc = nn.Linear(24, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.grouped(torch.relu(self.bn(self.conv(images)))).flatten(1))


def test_a_small_net_by_hand() -> None:
    total, by_weight = macs(Net(), (1, 6, 6))
    # volume(output) * C_in / groups * kh * kw: 64 * 1 * 9; 24 * 2 * 4; in * out: 24 * 5
    assert by_weight == {"conv.weight": 576, "grouped.weight": 192, "fc.weight": 120}
    assert total == 888


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [("resnet20_cifar", (3, 32, 32), 40_813_184), ("lenet_5", (1, 28, 28), 2_293_000)],
)
def test_reference_vector_dense_macs(name: str, shape: tuple[int, int, int], expected: int) -> None:
    total, by_weight = macs(models.build(name, num_classes=10), shape)
    assert total == expected
    assert sum(by_weight.values()) == expected


def test_a_layer_that_is_used_twice_works_twice_and_one_that_is_not_used_does_not() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(4, 4))
            self.unused = nn.Linear(4, 9)

        def forward(self, images: Tensor) -> Tensor:
            return self.inner(self.inner(images.flatten(1)))

    assert macs(Twice(), (1, 2, 2)) == (32, {"inner.0.weight": 32, "unused.weight": 0})


def test_a_weight_that_two_layers_share_works_in_both() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Linear(4, 4))
    model[2].weight = model[1].weight
    assert macs(model, (1, 2, 2)) == (32, {"1.weight": 32})


def test_a_layer_by_itself_is_a_model_too() -> None:
    assert macs(nn.Conv2d(1, 2, 3), (1, 4, 4)) == (72, {"weight": 72})


def test_counting_leaves_the_model_as_it_was() -> None:
    model = Net()
    model.bn.eval()  # frozen while the rest trains
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    macs(model, (1, 6, 6))
    assert model.training
    assert model.conv.training
    assert not model.bn.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    model.eval()
    macs(model, (1, 6, 6))
    assert not model.training


def test_a_net_of_doubles_is_counted_too() -> None:
    assert macs(Net().double(), (1, 6, 6))[0] == 888
