"""Budgets: the sparsity that is found, by hand; and the MACs and parameters of the network that was really thinned."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import BatchNorm2d, Conv2d, Linear

from compressor.pruners import Request
from compressor.pruners.general import Pruner
from compressor.rates.budgets import least_sparsity
from compressor.thinning import channel_graph, cost_of, thin
from compressor.timing import Window
from compressor.tracing import macs

WINDOW = Window(epochs=[0])


class Net(nn.Module):
    """Layers, and what is done with them."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self._forward = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def keep(model: nn.Module, shape: tuple[int, int, int], names: list[str], **arguments: Any) -> dict[str, Tensor]:
    """The masks of a pruner of these weights."""
    graph = channel_graph(model, shape)
    request = Request(
        dict(model.named_parameters()),
        {"weights": names},
        WINDOW,
        0,
        channels=lambda: graph.channels,
        cost=lambda unit: cost_of(unit, graph, model, shape),
    )
    pruner = Pruner.model_validate({"structure": "Filters", "weights": "*", **arguments})
    return pruner.keep(request)


def widths(masks: Mapping[str, Tensor], dim: int = 0) -> list[int]:
    """How many filters (or channels) of each weight stay."""
    return [int(mask.transpose(0, dim).flatten(1).any(1).sum()) for mask in masks.values()]


def chain(a: int, b: int, c: int) -> Net:
    """On images of 1x6x6: 144 a + 16 a b + 16 b c + 2 c MACs; 10 a + (a + 1) b + (b + 1) c + 2 c + 2 parameters."""
    return Net(
        lambda s, x: s.fc(F.relu(s.c(F.relu(s.b(F.relu(s.a(x)))))).mean((2, 3))),
        a=Conv2d(1, a, 3),
        b=Conv2d(a, b, 1),
        c=Conv2d(b, c, 1),
        fc=Linear(c, 2),
    )


CHAIN, IMAGE = ["a.weight", "b.weight", "c.weight"], (1, 6, 6)


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        # 6, 4, 3 filters: 1446 MACs. At 1/6: 5, 4, 3: 1238; 1/4: 5, 3, 3: 1110; 1/3: 4, 3, 2: 868; 1/2: 3, 2, 2: 596.
        ({"macs": 1.0}, [6, 4, 3]),
        ({"macs": 0.77}, [5, 3, 3]),  # 1113.4
        ({"macs": 0.61}, [4, 3, 2]),  # 882.06
        ({"macs": 0.6}, [3, 2, 2]),  # 867.6
        ({"macs": 0.5}, [3, 2, 2]),
        # 111 parameters. At 1/4: 5, 3, 3: 88; 1/3: 4, 3, 2: 69; 1/2: 3, 2, 2: 50.
        ({"parameters": 0.63}, [4, 3, 2]),  # 69.93
        ({"parameters": 0.5}, [3, 2, 2]),
    ],
)
def test_in_a_chain_the_smallest_sparsity_within_the_budget_is_found(
    rate: dict[str, float], expected: list[int]
) -> None:
    assert widths(keep(chain(6, 4, 3), IMAGE, CHAIN, rate=rate)) == expected


def test_one_ranking_of_all_layers_stops_at_the_first_network_within_the_budget() -> None:
    model = chain(4, 4, 4)  # 1096 MACs
    means = {"a": [0.1, 0.2, 0.3, 0.4], "b": [0.15, 0.25, 0.35, 0.45], "c": [0.5, 0.6, 0.7, 0.8]}
    with torch.no_grad():
        for name, values in means.items():
            weight = model.get_parameter(f"{name}.weight")
            weight.copy_(torch.tensor(values).reshape(4, 1, 1, 1).expand_as(weight))
    # a0, b0, a1, b1 go one after the other: 1096, 888, 776, 584, 488.
    for left, expected in ((0.82, [3, 4, 4]), (0.5329, [2, 3, 4]), (0.5328, [2, 2, 4]), (0.5, [2, 2, 4])):
        masks = keep(model, IMAGE, CHAIN, rate={"macs": left}, scope="global")
        assert widths(masks) == expected
        assert masks["a.weight"].flatten(1).any(1).tolist() == [False] * (4 - expected[0]) + [True] * expected[0]


def test_the_layer_that_makes_the_logits_keeps_all_of_its_outputs() -> None:
    masks = keep(chain(6, 4, 3), IMAGE, [*CHAIN, "fc.weight"], rate={"macs": 0.2})
    assert set(masks) == set(CHAIN)


def flat() -> Net:
    return Net(
        lambda s, x: s.fc(torch.flatten(F.relu(s.b(F.relu(s.a(x)))), 1)),
        a=Conv2d(1, 12, 3), b=Conv2d(12, 12, 3), fc=Linear(12 * 16, 3),
    )  # fmt: skip


def residual() -> Net:
    return Net(
        lambda s, x: (lambda y: s.fc(F.relu(y + s.c(F.relu(s.n(s.b(y))))).mean((2, 3))))(F.relu(s.a(x))),
        a=Conv2d(1, 12, 3), b=Conv2d(12, 12, 3, padding=1), n=BatchNorm2d(12), c=Conv2d(12, 12, 1), fc=Linear(12, 3),
    )  # fmt: skip


def depthwise() -> Net:
    return Net(
        lambda s, x: s.fc(F.relu(s.b(F.relu(s.n(s.d(F.relu(s.a(x))))))).mean((2, 3))),
        a=Conv2d(1, 12, 1), d=Conv2d(12, 12, 3, groups=12), n=BatchNorm2d(12), b=Conv2d(12, 12, 1), fc=Linear(12, 3),
    )  # fmt: skip


def grouped() -> Net:
    return Net(
        lambda s, x: s.fc(F.relu(s.c(F.relu(s.b(F.relu(s.a(x)))))).mean((2, 3))),
        a=Conv2d(1, 12, 3), b=Conv2d(12, 12, 3, groups=3), c=Conv2d(12, 12, 1), fc=Linear(12, 3),
    )  # fmt: skip


def joined() -> Net:
    return Net(
        lambda s, x: s.fc(F.relu(s.c(torch.cat([F.relu(s.b(x)), F.relu(s.a(x))], 1))).mean((2, 3))),
        a=Conv2d(1, 12, 3), b=Conv2d(1, 12, 3), c=Conv2d(24, 12, 1), fc=Linear(12, 3),
    )  # fmt: skip


NETS = {net.__name__: net for net in (flat, residual, depthwise, grouped, joined)}


def thinned(net: Callable[[], Net], structure: str, **arguments: Any) -> tuple[int, int, dict[str, int]]:
    """The MACs and parameters that a network really has after it was masked and thinned; its widths as masked."""
    torch.manual_seed(1)
    model, shape = net().eval(), (1, 8, 8)
    apart = ("d.", "fc.") if structure == "Filters" else ("a.", "d.")
    names = [n for n, weight in model.named_parameters() if weight.dim() > 1 and not n.startswith(apart)]
    if net is grouped and structure == "Channels":
        names.remove("b.weight")  # its inputs are in groups
    if net is joined and structure == "Channels":
        names.remove("b.weight")  # its input is the image
    masks = keep(model, shape, names, structure=structure, **arguments)
    with torch.no_grad():
        if structure == "Filters":
            gone = {name: ~mask.flatten(1)[:, 0] for name, mask in masks.items()}
            for name, zero in channel_graph(model, shape).companions(gone).items():
                model.get_parameter(name)[zero] = 0
        for name, mask in masks.items():
            model.get_parameter(name).mul_(mask)
    thin(model, torch.randn(2, *shape)).cut.model(model)
    found = dict(zip(masks, widths(masks), strict=True))
    return macs(model, shape)[0], sum(parameter.numel() for parameter in model.parameters()), found


def dense(net: Callable[[], Net]) -> tuple[int, int]:
    """The MACs and parameters of a whole network."""
    model = net().eval()
    return macs(model, (1, 8, 8))[0], sum(parameter.numel() for parameter in model.parameters())


SETS = {flat: "ab", residual: "ab", depthwise: "ab", grouped: "abc", joined: "abc"}
"""A layer for each set of layers that share channels."""

every_net = pytest.mark.parametrize("net", NETS.values(), ids=NETS)


@pytest.mark.parametrize("allocation", ["uniform", "global"])
@every_net
def test_the_thinned_network_is_within_the_budget_and_with_one_step_less_it_would_not_be(
    net: Callable[[], Net], allocation: str
) -> None:
    given = {"structure": "Filters", "allocation": allocation}
    for which, unit in enumerate(("macs", "parameters")):
        found, budget = thinned(net, rate={unit: 0.4}, **given), 0.4 * dense(net)[which]
        assert found[which] <= budget
        going = [12 - found[2][f"{layer}.weight"] for layer in SETS[net]]
        if allocation == "uniform":
            less = (max(going) - 1) / 12
        else:
            less = (sum(going) - 1) / (12 * len(going))
        if net is not grouped or allocation == "uniform":  # one ranking of a sparsity knows no groups
            assert thinned(net, rate={"sparsity": less + 1e-9}, **given)[which] > budget


@pytest.mark.parametrize("allocation", ["uniform", "global"])
@every_net
def test_input_channels_are_pruned_within_a_budget_as_whole_channels(net: Callable[[], Net], allocation: str) -> None:
    found = thinned(net, "Channels", allocation=allocation, rate={"macs": 0.8})
    assert 0.5 * dense(net)[0] < found[0] <= 0.8 * dense(net)[0]


def test_groups_of_a_convolution_lose_as_many_channels_each() -> None:
    for allocation in ("uniform", "global"):
        masks = keep(grouped(), (1, 8, 8), CHAIN, allocation=allocation, rate={"macs": 0.4})
        for name in ("a.weight", "b.weight"):
            left = masks[name].flatten(1).any(1).reshape(3, 4).sum(1).tolist()
            assert left == [left[0]] * 3
            assert left[0] < 4


def attending() -> Net:
    def forward(s: Any, x: Tensor) -> Tensor:
        places = F.relu(s.a(x)).flatten(2).mT
        scores = (s.q(places) @ s.k(places).mT).softmax(2)
        logits: Tensor = s.fc((scores @ s.v(places)).mean(1))
        return logits

    return Net(forward, a=Conv2d(1, 12, 3), q=Linear(12, 12), k=Linear(12, 12), v=Linear(12, 12), fc=Linear(12, 3))


@pytest.mark.parametrize("unit", ["macs", "parameters"])
def test_products_of_activations_read_channels_and_a_budget_holds_for_them(unit: str) -> None:
    found = thinned(attending, "Filters", rate={unit: 0.7})
    which = ("macs", "parameters").index(unit)
    assert found[which] <= 0.7 * dense(attending)[which]
    assert found[2]["a.weight"] < 12


def test_channels_that_an_operation_keeps_are_not_pruned_for_a_budget() -> None:
    model = Net(
        lambda s, x: s.fc(F.relu(s.b(torch.sigmoid(s.a(x)))).mean((2, 3))),
        a=Conv2d(1, 6, 3),
        b=Conv2d(6, 6, 1),
        fc=Linear(6, 2),
    )
    masks = keep(model, IMAGE, ["a.weight", "b.weight"], rate={"macs": 0.8})  # 864 + 576 + 12: b alone
    assert set(masks) == {"b.weight"}
    assert widths(masks) == [3]  # 864 + 288 + 6 = 1158 of 1452; with 4 filters 1256


def test_after_a_removal_a_budget_is_still_a_part_of_the_dense_network() -> None:
    """A chain of 3, 2, 2 filters that was one of 6, 4, 3 has 596 of 1446 MACs."""
    model = chain(3, 2, 2)
    graph = channel_graph(model, IMAGE)
    cost = cost_of("macs", graph, model, IMAGE)
    for left, expected in ((0.5, [3, 2, 2]), (0.42, [3, 2, 2]), (0.41, [2, 2, 1]), (0.25, [2, 1, 1])):
        request = Request(
            dict(model.named_parameters()),
            {"weights": CHAIN},
            WINDOW,
            0,
            dense={name: tuple(weight.shape) for name, weight in chain(6, 4, 3).named_parameters()},
            channels=lambda: graph.channels,
            cost=lambda unit: cost,
        )
        pruner = Pruner.model_validate({"structure": "Filters", "weights": "*", "rate": {"macs": left}})
        assert widths(pruner.keep(request)) == expected  # 2/3: 2, 2, 1: 388; 3/4: 2, 1, 1: 338


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        # a has 2 filters. 2, 4, 3: 614 of 1446 MACs. At 1/4: 2, 3, 3: 534; 1/3: 2, 3, 2: 484; 1/2: 2, 2, 2: 420.
        (0.5, [2, 4, 3]),  # 723
        (0.4, [2, 3, 3]),  # 578.4
        (0.34, [2, 3, 2]),  # 491.6
        (0.3, [2, 2, 2]),  # 433.8
        (0.2, [1, 1, 1]),  # 289.2; at 2/3: 2, 2, 1: 386; at 3/4: 2, 1, 1: 338; then 178
    ],
)
def test_filters_that_another_policy_masked_count_for_the_budget(left: float, expected: list[int]) -> None:
    model = chain(6, 4, 3)
    others = {"a.weight": torch.tensor([0, 1, 0, 0, 1, 0]).bool().reshape(6, 1, 1, 1).expand(6, 1, 3, 3)}
    with torch.no_grad():
        model.get_parameter("a.weight").mul_(others["a.weight"])
    graph = channel_graph(model, IMAGE)
    request = Request(
        dict(model.named_parameters()), {"weights": CHAIN}, WINDOW, 0, others=others.get,
        channels=lambda: graph.channels, cost=lambda unit: cost_of(unit, graph, model, IMAGE),
    )  # fmt: skip
    pruner = Pruner.model_validate({"structure": "Filters", "weights": "*", "rate": {"macs": left}})
    masks = pruner.keep(request)
    assert widths(masks) == expected
    assert not bool((masks["a.weight"] & ~others["a.weight"]).any())


def test_a_shared_channel_counts_where_all_of_its_filters_are_masked() -> None:
    """a and b are added: their filters 0 are masked in both, filter 1 in a alone. 290 MACs for each channel."""
    model = Net(
        lambda s, x: s.fc(F.relu(s.a(x) + s.b(x)).mean((2, 3))), a=Conv2d(1, 4, 3), b=Conv2d(1, 4, 3), fc=Linear(4, 2)
    )
    others = {"a.weight": [0, 0, 1, 1], "b.weight": [0, 1, 1, 1]}
    found = {name: torch.tensor(keep).bool().reshape(4, 1, 1, 1).expand(4, 1, 3, 3) for name, keep in others.items()}
    graph = channel_graph(model, IMAGE)
    request = Request(
        dict(model.named_parameters()), {"weights": list(found)}, WINDOW, 0, others=found.get,
        channels=lambda: graph.channels, cost=lambda unit: cost_of(unit, graph, model, IMAGE),
    )  # fmt: skip
    for left, expected in ((0.75, 3), (0.74, 2)):
        pruner = Pruner.model_validate(
            {"structure": "Filters", "weights": "*", "scope": "coupled", "rate": {"macs": left}}
        )
        masks = pruner.keep(request)
        assert widths(masks) == [expected, expected]
        assert not bool(masks["a.weight"][0].any())


def test_the_least_sparsity_is_exact() -> None:
    asked = []

    def fits(goal: Any) -> bool:
        asked.append(goal.count(22))
        return bool(goal.count(22) >= 15)

    found = least_sparsity([22], fits)
    assert found.count is not None
    assert found.count(22) == 15
    assert int(15 / 22 * 22) == 14  # in floats
    assert len(asked) <= 5  # of 23
    assert least_sparsity([10], lambda goal: False).sparsity == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"structure": "Elements"}, "its zeros save no time; use Filters, Channels, Rows or Cols"),
        ({"structure": "Kernels"}, "no channel is removed with structure 2D"),
        ({"structure": {"Blocks": {"filters": 2}}}, "no channel is removed with structure Blocks"),
        ({"rate": {"macs": 0}}, "greater than 0"),
        ({"rate": {"flops": 0.5}}, "there is no rate 'flops': did you mean 'macs'?"),
        ({"rate": {"FLOPs": 0.5}}, "did you mean 'macs'?"),
        ({"rate": {"macs": 1.5}}, "less than or equal to 1"),
        ({"rate": {"macs": {"left": 0.5, "initial": 0.4}}}, "initial should be at least left (0.5), got 0.4"),
    ],
)
def test_what_is_no_budget_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
        Pruner.model_validate({"structure": "Filters", "weights": "*", "rate": {"macs": 0.5}, **arguments})
