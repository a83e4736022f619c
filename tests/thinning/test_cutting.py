"""The cut itself: what stays of every tensor, by index; gradients, buffers and optimizers go along."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import BatchNorm2d, Conv2d, Linear

from compressor.thinning.cutting import Cut, cut_of
from compressor.thinning.reading import channel_graph
from compressor.thinning.removal import Removal


class Little(nn.Module):
    """conv 1 -> 4, BN, PReLU, a convolution under test 4 -> 4, flatten (2x2 places), linear."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.bn, self.p = Conv2d(1, 4, 3), BatchNorm2d(4), nn.PReLU(4)
        self.m, self.fc = middle, Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = F.adaptive_avg_pool2d(F.relu(self.m(self.p(self.bn(self.a(x))))), 2)
        out: Tensor = self.fc(torch.flatten(y, 1))
        return out


def cut(net: Little, before: list[int], behind: list[int]) -> Cut:
    """Of the outputs of `a` and of the middle these go."""
    graph = channel_graph(net, (1, 6, 6))
    gone = torch.zeros(graph.cells, dtype=torch.bool)
    gone[graph.by_path["a"].out[before]] = True
    gone[graph.by_path["m"].out[behind]] = True
    return cut_of(graph, net, Removal(gone))


def state(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def test_each_tensor_loses_the_entries_of_the_channels_that_went() -> None:
    net = Little(Conv2d(4, 4, 2))
    old = state(net)
    cut(net, [1], [0, 3]).model(net)
    new = net.state_dict()
    kept = [0, 2, 3]
    for name in ("a.weight", "a.bias", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var", "p.weight"):
        assert torch.equal(new[name], old[name][kept]), name
    assert torch.equal(new["m.weight"], old["m.weight"][1:3][:, kept])
    assert torch.equal(new["m.bias"], old["m.bias"][1:3])
    assert torch.equal(new["fc.weight"], old["fc.weight"][:, 4:12])
    assert torch.equal(new["fc.bias"], old["fc.bias"])
    assert new["bn.num_batches_tracked"] == old["bn.num_batches_tracked"]
    assert (net.a.out_channels, net.bn.num_features, net.p.num_parameters) == (3, 3, 3)
    assert (net.m.in_channels, net.m.out_channels, net.fc.in_features, net.fc.out_features) == (3, 2, 8, 3)
    assert net(torch.randn(2, 1, 6, 6)).shape == (2, 3)


def test_a_transposed_convolution_has_its_inputs_first() -> None:
    net = Little(nn.ConvTranspose2d(4, 4, 2))
    old = state(net)
    cut(net, [1], [0, 3]).model(net)
    assert torch.equal(net.m.weight, old["m.weight"][[0, 2, 3]][:, 1:3])
    assert torch.equal(net.m.bias, old["m.bias"][1:3])


def test_a_grouped_convolution_loses_of_each_group_its_own() -> None:
    net = Little(Conv2d(4, 4, 2, groups=2))
    old = state(net)
    cut(net, [1, 2], [0, 3]).model(net)  # input 0 and output 1 of the first group, 3 and 2 of the second
    assert torch.equal(net.m.weight, torch.stack([old["m.weight"][1, :1], old["m.weight"][2, 1:]]))
    assert (net.m.in_channels, net.m.out_channels, net.m.groups) == (2, 2, 2)


@pytest.mark.parametrize("kind", [Conv2d, nn.ConvTranspose2d])
def test_a_group_that_went_as_a_whole_is_one_group_less(kind: Any) -> None:
    net = Little(kind(4, 4, 2, groups=2))
    old = state(net)
    cut(net, [0, 1], [0, 1]).model(net)
    assert torch.equal(net.m.weight, old["m.weight"][2:])
    assert (net.m.in_channels, net.m.out_channels, net.m.groups) == (2, 2, 1)


def test_a_grouped_transposed_convolution_loses_of_each_group_its_own() -> None:
    net = Little(nn.ConvTranspose2d(4, 4, 2, groups=2))
    old = state(net)["m.weight"]  # inputs, outputs of a group
    cut(net, [0, 3], [1, 2]).model(net)
    assert torch.equal(net.m.weight, torch.stack([old[1, :1], old[2, 1:]]))


def test_a_depthwise_convolution_loses_filters_and_groups() -> None:
    net = Little(Conv2d(4, 4, 2, groups=4))
    old = state(net)
    cut(net, [2], []).model(net)
    assert torch.equal(net.m.weight, old["m.weight"][[0, 1, 3]])
    assert (net.m.in_channels, net.m.out_channels, net.m.groups) == (3, 3, 3)


def test_parameters_stay_the_same_objects_and_keep_their_gradients() -> None:
    net = Little(Conv2d(4, 4, 2))
    before = list(net.parameters())
    net(torch.randn(2, 1, 6, 6)).sum().backward()
    old = {name: parameter.grad.clone() for name, parameter in net.named_parameters()}
    net.p.weight.grad = None
    cut(net, [1], [0, 3]).model(net)
    assert all(one is other for one, other in zip(before, net.parameters(), strict=True))
    assert torch.equal(net.m.weight.grad, old["m.weight"][1:3][:, [0, 2, 3]])
    assert torch.equal(net.fc.weight.grad, old["fc.weight"][:, 4:12])
    assert net.p.weight.grad is None
    net.zero_grad()
    net(torch.randn(2, 1, 6, 6)).sum().backward()
    assert all(parameter.grad.shape == parameter.shape for parameter in net.parameters())


@pytest.mark.parametrize("amsgrad", [False, True])
def test_an_optimizer_s_buffers_lose_the_same_and_its_counters_nothing(amsgrad: bool) -> None:
    net = Little(Conv2d(4, 4, 2))
    optimizer = torch.optim.Adam(net.parameters(), amsgrad=amsgrad)
    net(torch.randn(2, 1, 6, 6)).sum().backward()
    optimizer.step()
    old = {key: value.clone() for key, value in optimizer.state[net.m.weight].items()}
    how = cut(net, [1], [0, 3])
    how.model(net)
    how.optimizer(optimizer, net.named_parameters())
    new = optimizer.state[net.m.weight]
    assert set(new) == {"step", "exp_avg", "exp_avg_sq"} | ({"max_exp_avg_sq"} if amsgrad else set())
    assert float(new["step"]) == float(old["step"]) == 1
    for key in set(new) - {"step"}:
        assert torch.equal(new[key], old[key][1:3][:, [0, 2, 3]])
    optimizer.step()


def test_channels_last_stays_channels_last() -> None:
    net = Little(Conv2d(4, 4, 2)).to(memory_format=torch.channels_last)
    old = state(net)["m.weight"]
    cut(net, [1], [0]).model(net)
    assert torch.equal(net.m.weight, old[1:][:, [0, 2, 3]])
    assert net.m.weight.is_contiguous(memory_format=torch.channels_last)


def test_memories_are_cut_where_a_parameter_s_name_and_shape_say_so() -> None:
    net = Little(Conv2d(4, 4, 2))
    how = cut(net, [1], [])
    mine, other = torch.arange(4.0), torch.arange(5.0)
    memory = {
        "a.bias": mine, "owner": "a.bias", "b.bias": mine, "targets": {"weights": ["a.weight"]}, "n": 3,
        "deep": [{"a.bias": mine}, ("a.bias", other)], "bn.weight": other, 7: mine,
    }  # fmt: skip
    found = how.memory(memory)
    assert found["a.bias"].tolist() == found["deep"][0]["a.bias"].tolist() == [0, 2, 3]
    assert found["b.bias"] is mine
    assert found[7] is mine
    assert found["bn.weight"] is other
    assert found["deep"][1] == ("a.bias", other)
    assert (found["owner"], found["targets"], found["n"]) == ("a.bias", {"weights": ["a.weight"]}, 3)


def test_nothing_to_remove_is_no_cut() -> None:
    net = Little(Conv2d(4, 4, 2))
    assert not cut(net, [], [])
    assert cut(net, [1], [])
