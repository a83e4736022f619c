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
    torch.nn.utils.parametrizations.spectral_norm(model.conv)  # in training each look at its weight changes its vectors
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


def test_attention_by_hand() -> None:
    """5 tokens of 8: three projections and one back, and for each token 5 products with keys and 5 with values."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, images: Tensor) -> Tensor:
            tokens = images[:, 0]
            return self.mix(tokens, tokens, tokens, need_weights=False)[0]

    before = torch.backends.mha.get_fastpath_enabled()
    assert macs(Net().eval(), (1, 5, 8))[0] == 5 * 4 * 8 * 8 + 2 * 5 * 5 * 8
    assert torch.backends.mha.get_fastpath_enabled() == before


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent_layers_by_hand(kind: type[nn.RNNBase], gates: int) -> None:
    """Two layers of 6 units in both directions, 5 steps of 8 numbers, then of 12."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = kind(8, 6, num_layers=2, bidirectional=True, batch_first=True)

        def forward(self, images: Tensor) -> Tensor:
            return self.layer(images[:, 0])[0][:, -1]

    assert macs(Net(), (1, 5, 8))[0] == 5 * 2 * gates * 6 * ((8 + 6) + (12 + 6))
