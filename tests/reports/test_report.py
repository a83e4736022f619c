"""The report of a two-layer net that was worked out by hand."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from compressor.reports.report import measure, sparsities


@pytest.fixture
def net() -> nn.Sequential:
    """conv 2 x 1 x 3 x 3 on 4 x 4 images, fc 3 x 8; filter 1, and six weights of fc, are zero."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.BatchNorm1d(8), nn.Linear(8, 3))
    with torch.no_grad():
        model[0].weight.fill_(0.5)
        model[0].weight[1] = 0.0
        model[3].weight.copy_(torch.arange(1.0, 25).view(3, 8))
        model[3].weight[0, :5] = 0.0
        model[3].weight[1, 0] = -0.0
    return model


def test_the_totals_by_hand(net: nn.Sequential) -> None:
    totals = measure(net, (1, 4, 4)).totals
    assert totals.weights == 18 + 24
    assert totals.nonzero == 9 + 18
    assert totals.sparsity == pytest.approx(15 / 42)
    assert totals.parameters == 18 + 2 + 16 + 24 + 3
    assert totals.macs == 2 * 2 * 2 * 9 + 24
    assert totals.macs_nonzero == 36 + 18
    assert (totals.top1, totals.top5) == (None, None)


def test_the_rows_by_hand(net: nn.Sequential) -> None:
    conv, fc = measure(net, (1, 4, 4)).tensors
    assert (conv.name, conv.shape, conv.weights, conv.nonzero, conv.sparsity) == ("0.weight", [2, 1, 3, 3], 18, 9, 0.5)
    assert (conv.filters, conv.channels, conv.kernels, conv.rows, conv.cols) == (0.5, 0, 0.5, None, None)
    assert (conv.mean, conv.mean_abs) == (0.25, 0.25)
    assert conv.std == pytest.approx((18 * 0.0625 / 17) ** 0.5)
    assert (fc.name, fc.shape, fc.weights, fc.nonzero, fc.sparsity) == ("3.weight", [3, 8], 24, 18, 0.25)
    assert (fc.rows, fc.cols, fc.filters, fc.channels, fc.kernels) == (0, 0, None, None, None)
    # 6 + 7 + 8 + (10 + ... + 16) + (17 + ... + 24) = 21 + 91 + 164
    assert fc.mean == pytest.approx(276 / 24)


def test_measured_accuracies_are_taken_over(net: nn.Sequential) -> None:
    totals = measure(net, (1, 4, 4), {"loss": 0.1, "top1": 91.5, "top5": 99.0}).totals
    assert (totals.top1, totals.top5) == (91.5, 99.0)


def test_macs_with_a_nonzero_weight_count_a_shared_weight_in_both_of_its_layers() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    with torch.no_grad():
        model[1].weight.fill_(1.0)
        model[1].weight[:2] = 0.0
    model[2].weight = model[1].weight
    totals = measure(model, (1, 2, 2)).totals
    assert (totals.weights, totals.nonzero, totals.parameters) == (16, 8, 16)
    assert (totals.macs, totals.macs_nonzero) == (32, 16)


def test_a_dense_model_saves_nothing_and_an_empty_one_everything(net: nn.Sequential) -> None:
    with torch.no_grad():
        net[0].weight.fill_(1.0)
        net[3].weight.fill_(1.0)
    totals = measure(net, (1, 4, 4)).totals
    assert (totals.sparsity, totals.macs_nonzero) == (0, 96)
    with torch.no_grad():
        net[0].weight.zero_()
        net[3].weight.zero_()
    totals = measure(net, (1, 4, 4)).totals
    assert (totals.sparsity, totals.nonzero, totals.macs, totals.macs_nonzero) == (1, 0, 96, 0)


def test_the_rates_of_a_thinned_network_are_against_the_dense_one(net: nn.Sequential) -> None:
    with torch.device("meta"):
        dense = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 3))
    totals = measure(net, (1, 4, 4), dense=dense).totals
    assert totals.dense_weights == 36 + 48
    assert totals.rates is not None
    assert totals.stored_bits is not None
    assert totals.rates.weights == 84 / 27
    assert totals.rates.parameters == (36 + 4 + 32 + 48 + 3) / (27 + 2 + 16 + 3)
    # Running mean and variance, and how many batches were seen, as 64 bits.
    assert totals.rates.bits == ((36 + 4 + 32 + 48 + 3 + 32) * 32 + 64) / totals.stored_bits.relative


def test_the_sparsity_is_that_of_the_totals(net: nn.Sequential) -> None:
    assert sparsities(net).prunable == pytest.approx(15 / 42)
    assert sparsities(nn.BatchNorm2d(3)).prunable == 0


class Attention(nn.Module):
    """Tokens of 4 numbers: a patch convolution, positions, attention, an LSTM of 3 units, a linear layer; 4 x 4 images.

    Convolutions and linear layers: 4 * 1 * 2 * 2 + 4 * 4 + 2 * 3 = 38 weights. Others of two or more dims: 4 * 4
    positions, 12 * 4 of attention, 12 * 4 + 12 * 3 of the LSTM: 148. Biases: 4 + 12 + 4 + 12 + 12 + 2 = 46.
    """

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.ones(1, 4, 4))
        self.patch = nn.Conv2d(1, 4, 2, 2)
        self.mix = nn.MultiheadAttention(4, 2, batch_first=True)
        self.lstm = nn.LSTM(4, 3, batch_first=True)
        self.head = nn.Linear(3, 2)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.fill_(0.5)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patch(images).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.lstm(self.mix(tokens, tokens, tokens, need_weights=False)[0])[0][:, -1])


@torch.no_grad()
def test_every_weight_has_a_row_and_sparsity_all_counts_every_parameter() -> None:
    model = Attention().eval()
    model.positions[0, 0] = 0  # 4 of 16
    model.mix.in_proj_weight[:6] = 0  # 24 of 48
    model.lstm.weight_hh_l0[:, 0] = 0  # 12 of 36
    model.head.weight[0] = 0  # 3 of 6
    model.mix.in_proj_bias[:5] = 0  # 5 of 46
    report = measure(model, (1, 4, 4))
    assert {row.name: (row.weights, row.nonzero, row.prunable) for row in report.tensors} == {
        "positions": (16, 12, False),
        "patch.weight": (16, 16, True),
        "mix.in_proj_weight": (48, 24, False),
        "mix.out_proj.weight": (16, 16, True),
        "lstm.weight_ih_l0": (48, 48, False),
        "lstm.weight_hh_l0": (36, 24, False),
        "head.weight": (6, 3, True),
    }
    assert report.others.model_dump() == {"parameters": 46, "nonzero": 41, "sparsity": pytest.approx(5 / 46)}
    totals = report.totals
    assert (totals.weights, totals.nonzero, totals.parameters) == (38, 35, 38 + 148 + 46)
    assert totals.sparsity == pytest.approx(3 / 38)
    assert totals.sparsity_all == pytest.approx((4 + 24 + 12 + 3 + 5) / 232)
    assert sparsities(model).prunable == pytest.approx(3 / 38)
    assert sparsities(model).everything == pytest.approx(48 / 232)
    assert totals.rates is not None
    assert totals.rates.parameters == pytest.approx(232 / (232 - 43))


@torch.no_grad()
def test_of_a_removal_of_channels_sparsity_all_refers_to_the_dense_shapes(net: nn.Sequential) -> None:
    dense = {"0.weight": [4, 1, 3, 3], "0.bias": [4], "2.weight": [16], "2.bias": [16], "3.weight": [3, 16]}
    for name, parameter in net.named_parameters():
        if parameter.dim() == 1:
            parameter.fill_(1.0)
            if name != "3.bias":
                parameter[0] = 0.0
    # 36 + 4 + 16 + 16 + 48 + 3 entries; left are 9 + 1 + 7 + 7 + 18 + 3
    assert sparsities(net, dense).everything == pytest.approx(1 - 45 / 123)
    assert sparsities(net, dense).prunable == pytest.approx(1 - 27 / 84)


@torch.no_grad()
def test_a_computed_weight_has_the_zeros_with_which_the_layer_computes() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Linear(3, 2)).eval()
    nn.init.ones_(model[1].bias)
    nn.init.ones_(model[2].bias)
    prune.custom_from_mask(model[1], "weight", torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]))
    report = measure(model, (1, 2, 2))
    assert [(row.name, row.nonzero, row.prunable) for row in report.tensors] == [
        ("1.weight", 3, False),
        ("2.weight", 6, True),
    ]
    assert (report.totals.sparsity, report.totals.sparsity_all) == (0, pytest.approx(9 / 23))


def test_measuring_changes_nothing(net: nn.Sequential) -> None:
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assert measure(net, (1, 4, 4)) == measure(net, (1, 4, 4))
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert torch.signbit(net[3].weight[1, 0])
    assert net.training


def test_a_network_of_convolutions_in_channels_last_has_the_same_report() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.Flatten(), nn.Linear(16, 2))
    plain = measure(net, (3, 5, 5))
    assert measure(net.to(memory_format=torch.channels_last), (3, 5, 5)).tensors == plain.tensors
