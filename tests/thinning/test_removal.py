"""Which channels go: brute force over neurons, pencil work on constants, and the words for what stays."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import BatchNorm2d, Conv2d, Linear

from compressor.thinning.equivalence import Thinned, thin
from compressor.thinning.removal import EVERY_WAY

SHAPE = (1, 6, 6)


class Net(nn.Module):
    """Layers, and what is done with them."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self._forward = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def mean(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def images(count: int = 16) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(3))


def zero(net: nn.Module, **rows: list[int]) -> nn.Module:
    """Filters that are 0, with their biases."""
    for path, gone in rows.items():
        layer = net.get_submodule(path)
        for own in layer.parameters():
            own.data[gone] = 0
    return net.eval()


def widths(net: nn.Module) -> dict[str, int]:
    return {path: len(m.weight) for path, m in net.named_modules() if isinstance(m, (Conv2d, Linear, BatchNorm2d))}


def thinned(net: nn.Module, **how: Any) -> Thinned:
    """Thin, and see that images that the check has not seen have the same logits."""
    fresh = torch.randn(64, *SHAPE, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        before = net(fresh)
        found = thin(net, images(), **how)
        found.cut.model(net)
        assert torch.allclose(net(fresh), before, rtol=1e-4, atol=1e-5)
    return found


@settings(max_examples=30, derandomize=True, database=None)
@given(seed=st.integers(0, 10_000), kept=st.sampled_from([0.1, 0.2, 0.3]), depth=st.integers(2, 4))
def test_a_neuron_goes_if_and_only_if_the_output_never_hears_of_it(seed: int, kept: float, depth: int) -> None:
    torch.manual_seed(seed)
    width = 8
    hidden = [layer for _ in range(depth) for layer in (Linear(width, width, bias=False), nn.Tanh())]
    net = nn.Sequential(nn.Flatten(), *hidden, Linear(width, 3, bias=False)).double()
    for parameter in net.parameters():
        nn.init.normal_(parameter)
        parameter.data *= torch.rand(parameter.shape) < kept
    inputs = torch.randn(1000, width, 1, 1, dtype=torch.float64)
    with torch.no_grad():
        logits = net(inputs)
        expected = {}
        for number in range(1, 2 * depth, 2):
            layer = net[number]
            silent = 0
            for neuron in range(width):
                saved = layer.weight[neuron].clone()
                layer.weight[neuron] = 0
                silent += bool(torch.equal(net(inputs), logits))
                layer.weight[neuron] = saved
            expected[str(number)] = max(width - silent, 1)
        thin(net, inputs[:20]).cut.model(net)
        assert torch.allclose(net(inputs), logits, atol=1e-9)
    assert {path: net[int(path)].out_features for path in expected} == expected


def test_the_fix_point_reaches_from_a_dead_end_back_to_the_image_and_on_from_a_dead_start() -> None:
    net = nn.Sequential(
        nn.Flatten(), Linear(36, 2, bias=False), nn.ReLU(),
        Linear(2, 2, bias=False), nn.ReLU(), Linear(2, 2, bias=False), nn.ReLU(), Linear(2, 2, bias=False),
    )  # fmt: skip
    with torch.no_grad():
        net[1].weight.copy_(torch.ones(2, 36))
        net[3].weight.copy_(torch.eye(2))  # neuron 1 is read by neuron 1 alone, and so on
        net[5].weight.copy_(torch.eye(2))
        net[7].weight.copy_(torch.tensor([[1.0, 0.0], [2.0, 0.0]]))  # nobody hears of the last neuron 1
    assert not thinned(net).stays
    assert [net[i].out_features for i in (1, 3, 5, 7)] == [1, 1, 1, 2]
    net[1].weight.data.zero_()
    assert [str(stay) for stay in thinned(net).stays] == [
        "1.weight: 1 zero filter stays: at least one channel must stay"
    ]


def test_a_constant_neuron_goes_into_the_next_bias_by_pencil() -> None:
    net = nn.Sequential(nn.Flatten(), Linear(36, 3), nn.ReLU(), Linear(3, 2), nn.ReLU(), Linear(2, 2))
    with torch.no_grad():
        net[1].weight[:2] = 0
        net[1].bias[:2] = torch.tensor([0.5, -0.5])  # relu: 0.5 and 0
        net[3].weight.copy_(torch.tensor([[2.0, 3.0, 1.0], [-4.0, 5.0, 1.0]]))
        net[3].bias.copy_(torch.tensor([0.25, 1.0]))
    assert not thinned(net).stays
    assert net[3].weight.tolist() == [[1.0], [1.0]]
    assert net[3].bias.tolist() == [0.25 + 0.5 * 2, 1 - 0.5 * 4]


def test_a_constant_in_front_of_a_convolution_counts_once_for_each_tap() -> None:
    net = Net(lambda s, x: s.fc(mean(F.relu(s.b(s.a(x))))), a=Conv2d(1, 2, 3), b=Conv2d(2, 3, 2), fc=Linear(3, 2))
    with torch.no_grad():
        net.a.weight[0] = 0
        net.a.bias[0] = 0.5
        net.b.weight[:, 0] = torch.tensor([1.0, 2.0, 3.0])[:, None, None]
        net.b.bias.fill_(1.0)
    assert not thinned(net).stays
    assert net.b.bias.tolist() == [1 + 0.5 * 4 * k for k in (1, 2, 3)]


def test_without_a_bias_the_running_mean_behind_takes_the_constant_over() -> None:
    net = Net(
        lambda s, x: s.fc(mean(F.relu(s.bn(s.b(s.a(x)))))),
        a=Conv2d(1, 2, 3), b=Conv2d(2, 3, 2, bias=False), bn=BatchNorm2d(3), fc=Linear(3, 2),
    ).eval()  # fmt: skip
    with torch.no_grad():
        net.a.weight[0] = 0
        net.a.bias[0] = 0.5
        net.b.weight[:, 0] = torch.tensor([1.0, 2.0, 3.0])[:, None, None]
        net.bn.running_mean.fill_(10.0)
    assert not thinned(net).stays
    assert net.bn.running_mean.tolist() == [10 - 0.5 * 4 * k for k in (1, 2, 3)]


def chain(width: int = 6, **of_b: Any) -> Net:
    torch.manual_seed(0)
    return Net(
        lambda s, x: s.fc(mean(F.relu(s.b(F.relu(s.a(x)))))),
        a=Conv2d(1, width, 3), b=Conv2d(width, 4, 1, **of_b), fc=Linear(4, 3),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("dead", "round_to", "left"), [(1, 1, 5), (6, 1, 1), (3, 2, 4), (2, 4, 4), (3, 4, 4), (1, 4, 6), (6, 4, 4)]
)
def test_widths_are_rounded_up_and_never_0(dead: int, round_to: int, left: int) -> None:
    net = zero(chain(), a=list(range(dead)))
    found = thinned(net, round_to=round_to)
    assert net.a.out_channels == net.b.in_channels == left
    assert sum(stay.count for stay in found.stays) == dead - (6 - left)


@pytest.mark.parametrize(
    ("ways", "left"),
    [({"zero"}, (5, 4)), ({"unread"}, (6, 3)), ({"zero", "unread"}, (5, 3)), (EVERY_WAY, (4, 3))],
    ids=["zero", "unread", "both", "all"],
)
def test_a_channel_goes_for_the_reasons_that_are_asked_for(ways: set[Any], left: tuple[int, int]) -> None:
    net = zero(chain(), a=[0])
    net.a.weight.data[1] = 0  # its bias speaks
    net.a.bias.data[1] = 0.5
    net.fc.weight.data[:, 3] = 0
    thinned(net, ways=frozenset(ways))
    assert (net.a.out_channels, net.b.out_channels) == left


def grouped(groups: int, dead_before: list[int], dead: list[int], round_to: int = 1) -> tuple[int, int, int]:
    """Inputs, outputs and groups of what stays of 8 channels."""
    torch.manual_seed(0)
    net = Net(
        lambda s, x: s.fc(mean(F.relu(s.g(F.relu(s.a(x)))))),
        a=Conv2d(1, 8, 3), g=Conv2d(8, 8, 3, groups=groups), fc=Linear(8, 3),
    )  # fmt: skip
    thinned(zero(net, a=dead_before, g=dead), round_to=round_to)
    return net.g.in_channels, net.g.out_channels, net.g.groups


@pytest.mark.parametrize(
    ("groups", "dead_before", "dead", "round_to", "left"),
    [
        (2, [0, 4], [1, 2, 7], 1, (6, 6, 2)),
        (2, [0, 1], [], 1, (8, 8, 2)),
        (2, [0, 1, 2, 3], [0, 1, 2, 3], 1, (4, 4, 1)),
        (4, [0, 1], [0, 1, 2, 4, 6], 1, (6, 3, 3)),
        (2, [0, 1, 4, 5], [1, 5], 4, (4, 8, 2)),
        (2, list(range(8)), list(range(8)), 1, (1, 1, 1)),
        (8, [0], [0], 1, (7, 7, 7)),
    ],
)
def test_groups_stay_of_equal_size_or_go_as_a_whole(
    groups: int, dead_before: list[int], dead: list[int], round_to: int, left: tuple[int, int, int]
) -> None:
    assert grouped(groups, dead_before, dead, round_to) == left


def two(forward: Callable[[Any, Tensor], Tensor], **more: nn.Module) -> Net:
    torch.manual_seed(0)
    return Net(forward, a=Conv2d(1, 4, 3), b=Conv2d(1, 4, 3), fc=Linear(4, 3), **more)


def speaking(net: Net, value: float = 0.5) -> Net:
    """Filter 1 of `a` is 0, its bias is not."""
    net.a.weight.data[1] = 0
    net.a.bias.data[1] = value
    return net


def loud(net: Net) -> Net:
    nn.init.constant_(net.bn.bias, 0.5)
    return net


PLACES = torch.arange(16.0).reshape(4, 4)
ONE = "a.weight: 1 zero filter stays: "
STAYS: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], list[str]]] = {
    "logits": (
        lambda: zero(chain(), fc=[1, 2]), {}, ["fc.weight: 2 zero filters stay: they are the network's output"],
    ),
    "layer norm": (
        lambda: zero(two(lambda s, x: s.fc(mean(s.n(s.a(x)))), n=nn.LayerNorm([4, 4, 4])), a=[1]), {},
        [ONE + "n (LayerNorm) normalizes over them"],
    ),
    "group norm": (
        lambda: zero(two(lambda s, x: s.fc(mean(s.n(s.a(x)))), n=nn.GroupNorm(2, 4)), a=[1]), {},
        [ONE + "n (GroupNorm) normalizes them in groups, which go as a whole, and others of them are not zero"],
    ),
    "addition": (
        lambda: zero(two(lambda s, x: s.fc(mean(F.relu(s.a(x) + s.b(x))))), a=[1]), {},
        [ONE + "b.weight makes the same channels (joined by add), and is not zero there"],
    ),
    "padding": (
        lambda: speaking(two(lambda s, x: s.fc(mean(F.relu(s.p(s.a(x))))), p=Conv2d(4, 4, 3, padding=1))), {},
        [ONE + "they are constant, not 0, and p cannot absorb that (padding or no bias)"],
    ),
    "sigmoid": (
        lambda: zero(two(lambda s, x: s.fc(mean(s.p(s.a(x).sigmoid()))), p=Conv2d(4, 4, 1, bias=False)), a=[1]), {},
        [ONE + "they are constant, not 0 after sigmoid, and p cannot absorb that (padding or no bias)"],
    ),
    "batch norm": (
        lambda: zero(loud(two(lambda s, x: s.fc(mean(s.bn(s.a(x)))), bn=BatchNorm2d(4))), a=[1]), {"training": True},
        [ONE + "bn after them is not zero there"],
    ),
    "groups": (
        lambda: zero(two(lambda s, x: s.fc(mean(s.g(s.a(x)))), g=Conv2d(4, 4, 1, groups=2)), a=[1]), {},
        [ONE + "the 2 groups of g must lose the same number of channels"],
    ),
    "rounding": (
        lambda: zero(chain(), a=[1]), {"round_to": 2}, [ONE + "widths are rounded up to multiples of 2"],
    ),
    # What prevents it is named.
    "constants are not folded in training": (
        lambda: speaking(two(lambda s, x: s.fc(mean(F.relu(s.a(x)))))), {"training": True}, ["a.bias", "a", "training"],
    ),
    "a constant for one reader alone": (
        lambda: speaking(
            two(lambda s, x: (lambda y: s.fc(mean(y)) + mean(s.q(y * PLACES)))(s.a(x)), q=Conv2d(4, 3, 1))
        ),
        {}, ["q"],
    ),
    "a layer that is called twice": (
        lambda: zero(two(lambda s, x: s.fc(mean(s.d(s.d(s.a(x))))), d=Conv2d(4, 4, 1)), a=[1]), {}, ["d"],
    ),
    "the mean over channels": (
        lambda: zero(two(lambda s, x: s.m(s.a(x).mean(1).flatten(1)), m=Linear(16, 3)), a=[1]), {}, ["mean"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", STAYS)
def test_what_stays_names_what_prevents_it(case: str) -> None:
    made, how, expected = STAYS[case]
    said = [str(stay) for stay in thinned(made().eval(), **how).stays]
    if expected[0].startswith(("a.weight", "fc.weight")):
        assert said == expected
    else:
        assert len(said) == 1
        reason = said[0].partition("stays: ")[2]
        assert "padding or no bias" not in reason
        assert set(expected) & set(reason.replace(",", " ").split()), reason
