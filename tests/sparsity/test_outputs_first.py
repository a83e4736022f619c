"""Weights with their outputs first: against what torch's transposed convolutions compute, and by hand."""

import pytest
import torch
from torch import nn

from compressor.sparsity import outputs_first, shape_outputs_first, summarize, turned_layers


def test_a_weight_with_two_groups_by_hand() -> None:
    layer = nn.ConvTranspose1d(4, 6, 1, groups=2)  # inputs 0, 1 make outputs 0, 1, 2; inputs 2, 3 the others
    stored = torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12]])[..., None]
    turned = torch.tensor([[1, 4], [2, 5], [3, 6], [7, 10], [8, 11], [9, 12]])[..., None]
    assert torch.equal(outputs_first(stored, layer), turned)
    assert torch.equal(outputs_first(turned, layer), stored)
    assert shape_outputs_first(stored.shape, layer) == (6, 2, 1)


@pytest.mark.parametrize(("inputs", "outputs", "groups"), [(4, 6, 1), (4, 6, 2), (4, 4, 4)])
def test_without_a_row_an_output_is_zero_and_all_others_are_the_same(inputs: int, outputs: int, groups: int) -> None:
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(inputs, outputs, 3, stride=2, groups=groups, bias=False)
    x = torch.randn(2, inputs, 3, 3)
    whole = layer(x)
    for row in range(outputs):
        turned = outputs_first(layer.weight, layer).clone()
        assert turned.shape == shape_outputs_first(layer.weight.shape, layer) == (outputs, inputs // groups, 3, 3)
        turned[row] = 0
        less = nn.functional.conv_transpose2d(x, outputs_first(turned, layer), stride=2, groups=groups)
        expected = whole.clone()
        expected[:, row] = 0
        torch.testing.assert_close(less, expected)


def test_of_other_layers_the_tensor_itself_and_without_groups_a_view() -> None:
    conv, up = nn.Conv2d(4, 6, 3), nn.ConvTranspose2d(4, 6, 3)
    assert outputs_first(conv.weight, conv) is conv.weight
    assert outputs_first(conv.weight, None) is conv.weight
    outputs_first(up.weight, up)[5] = 7
    assert bool((up.weight[:, 5] == 7).all())
    assert outputs_first(up.weight, up).grad_fn is None


def test_the_layers_that_are_turned_by_the_names_of_their_weights() -> None:
    up = nn.ConvTranspose2d(2, 3, 3)
    assert turned_layers(nn.Sequential(nn.Conv2d(1, 2, 3), up)) == {"1.weight": up}
    assert turned_layers(up) == {"weight": up}


def test_a_report_counts_outputs_as_filters_and_inputs_as_channels() -> None:
    layer = nn.ConvTranspose2d(2, 4, 3, groups=2)  # input 0 makes outputs 0 and 1, input 1 the others
    weight = torch.ones(2, 2, 3, 3)
    weight[0, 1] = 0
    summary = summarize("w", weight, layer=layer)
    assert (summary.filters, summary.channels, summary.kernels) == (1 / 4, 0, 1 / 4)
    summary = summarize("w", weight, layer=nn.ConvTranspose2d(2, 2, 3))
    assert (summary.filters, summary.channels, summary.kernels) == (0, 0, 1 / 4)
    weight[1, 1] = 0
    summary = summarize("w", weight, layer=nn.ConvTranspose2d(2, 2, 3))
    assert (summary.filters, summary.channels, summary.shape) == (1 / 2, 0, [2, 2, 3, 3])
