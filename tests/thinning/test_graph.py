"""The channels of small networks: which places are one cell, what mixes, what is refused; all by looking at the net."""

import random
import re
import signal
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import Conv2d, Linear
from torch.nn.utils import prune

from compressor.sparsity.structures import FILTERS
from compressor.thinning.coupling import couplings
from compressor.thinning.graph import ChannelGraph, Untraceable
from compressor.thinning.reading import channel_graph


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


def graph_of(forward: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> ChannelGraph:
    return channel_graph(Net(forward, **layers), (1, 6, 6))


def out(graph: ChannelGraph, path: str) -> list[int]:
    return list(graph.by_path[path].out.tolist())


def cells(graph: ChannelGraph, name: str, dim: int) -> list[int]:
    line = graph.slices[name][dim]
    assert line is not None
    return list(line.tolist())


def into(graph: ChannelGraph, path: str) -> list[int]:
    node = graph.by_path[path]
    assert node.into is not None
    return list(node.into.tolist())


def test_a_chain_hands_its_channels_on_and_the_image_has_none() -> None:
    graph = graph_of(lambda s, x: s.fc(mean(F.relu(s.a(x)))), a=Conv2d(1, 4, 3), fc=Linear(4, 3))
    assert into(graph, "a") == [-1]
    assert out(graph, "a") == into(graph, "fc")
    assert len({*out(graph, "a"), *out(graph, "fc")}) == 7
    assert [node.label for node in graph.nodes if node.is_output] == ["fc"]
    assert dict(graph.weights) == {"a": "a.weight", "fc": "fc.weight"}


def test_inputs_come_before_what_reads_them() -> None:
    graph = graph_of(
        lambda s, x: s.fc(mean(s.b(F.relu(s.a(x))) + s.a2(x))),
        a2=Conv2d(1, 4, 3, padding=1), b=Conv2d(5, 4, 3, padding=1), fc=Linear(4, 3), a=Conv2d(1, 5, 3, padding=1),
    )  # fmt: skip
    assert all(source < number for number, node in enumerate(graph.nodes) for source in node.inputs)


def test_a_residual_addition_makes_one_channel_of_two() -> None:
    graph = graph_of(
        lambda s, x: s.fc(mean(F.relu(s.a(x) + s.b(x)))), a=Conv2d(1, 4, 3), b=Conv2d(1, 4, 3), fc=Linear(4, 3)
    )
    assert out(graph, "a") == out(graph, "b") == into(graph, "fc")


def test_a_squeeze_and_excitation_product_makes_one_channel_of_two() -> None:
    graph = graph_of(
        lambda s, x: (lambda y: s.fc(mean(y * torch.sigmoid(s.up(F.relu(s.down(y.mean((2, 3), keepdim=True))))))))(
            F.relu(s.a(x))
        ),
        a=Conv2d(1, 4, 3), down=Conv2d(4, 2, 1), up=Conv2d(2, 4, 1), fc=Linear(4, 3),
    )  # fmt: skip
    assert out(graph, "a") == out(graph, "up") == into(graph, "down") == into(graph, "fc")
    assert out(graph, "down") == into(graph, "up")


def test_a_concatenation_puts_channels_behind_each_other() -> None:
    graph = graph_of(
        lambda s, x: s.fc(mean(s.bn(torch.cat([s.a(x), s.b(x)], 1)))),
        a=Conv2d(1, 4, 3), b=Conv2d(1, 2, 3), bn=nn.BatchNorm2d(6), fc=Linear(6, 3),
    )  # fmt: skip
    assert out(graph, "a") + out(graph, "b") == out(graph, "bn") == into(graph, "fc")
    assert len(set(into(graph, "fc"))) == 6


def test_halves_that_are_multiplied_are_one_channel() -> None:
    graph = graph_of(
        lambda s, x: (lambda p: s.fc(mean(p[0] * torch.sigmoid(p[1]))))(s.a(x).chunk(2, 1)),
        a=Conv2d(1, 8, 3), fc=Linear(4, 3),
    )  # fmt: skip
    assert out(graph, "a")[:4] == out(graph, "a")[4:] == into(graph, "fc")


def test_a_flattened_channel_is_read_at_each_of_its_places() -> None:
    graph = graph_of(lambda s, x: s.fc(torch.flatten(s.a(x), 1)), a=Conv2d(1, 3, 3), fc=Linear(48, 3))
    assert into(graph, "fc") == [cell for cell in out(graph, "a") for _ in range(16)]


def test_batch_norms_and_depthwise_convolutions_have_the_channels_of_what_they_see() -> None:
    graph = graph_of(
        lambda s, x: s.fc(mean(s.after(s.d(s.p(s.before(s.a(x))))))),
        a=Conv2d(1, 4, 3), before=nn.BatchNorm2d(4), p=nn.PReLU(4), d=Conv2d(4, 4, 3, groups=4),
        after=nn.BatchNorm2d(4), fc=Linear(4, 3),
    )  # fmt: skip
    kinds = [graph.by_path[path].kind for path in ("a", "before", "d", "after", "fc")]
    assert kinds == ["producer", "norm", "depthwise", "norm", "producer"]
    assert all(out(graph, path) == out(graph, "a") for path in ("before", "d", "after"))
    assert cells(graph, "p.weight", 0) == out(graph, "a")


@pytest.mark.parametrize(
    "layer", [Conv2d(4, 6, 3, groups=2), nn.ConvTranspose2d(4, 6, 3), nn.ConvTranspose2d(4, 6, 3, groups=2)]
)
def test_grouped_and_transposed_convolutions_have_channels_on_both_sides(layer: nn.Module) -> None:
    graph = graph_of(lambda s, x: s.fc(mean(s.g(s.a(x)))), a=Conv2d(1, 4, 3), g=layer, fc=Linear(6, 3))
    assert into(graph, "g") == out(graph, "a")
    assert out(graph, "g") == into(graph, "fc")
    assert not set(out(graph, "g")) & set(into(graph, "g"))
    assert graph.by_path["g"].kind == "producer"


def test_the_groups_of_a_grouped_convolution_are_parts_of_its_channels() -> None:
    graph = graph_of(
        lambda s, x: s.fc(mean(s.g(s.a(x)))), a=Conv2d(1, 4, 3), g=Conv2d(4, 6, 3, groups=2), fc=Linear(6, 3)
    )
    part = graph.channels.part
    assert part is not None
    assert part[graph.by_path["a"].out].tolist() == [0, 0, 1, 1]
    assert part[graph.by_path["g"].out].tolist() == [0, 0, 0, 1, 1, 1]
    assert ("g.weight", 1) not in graph.channels.cells


def test_a_layer_that_is_called_twice_has_one_channel_before_and_behind() -> None:
    graph = graph_of(
        lambda s, x: s.fc(mean(F.relu(s.d(F.relu(s.d(s.a(x))))))),
        a=Conv2d(1, 4, 3), d=Conv2d(4, 4, 1), fc=Linear(4, 3),
    )  # fmt: skip
    assert out(graph, "a") == into(graph, "d") == out(graph, "d") == into(graph, "fc")


def kept(graph: ChannelGraph, path: str) -> list[str]:
    """The reasons why the outputs of a layer can never be removed."""
    return list(dict.fromkeys(graph.keeps[cell] for cell in out(graph, path) if cell in graph.keeps))


def test_a_layer_norm_over_channels_keeps_them() -> None:
    norm = nn.LayerNorm([4, 4, 4])
    graph = graph_of(lambda s, x: s.fc(mean(s.n(s.a(x)))), a=Conv2d(1, 4, 3), n=norm, fc=Linear(4, 3))
    assert kept(graph, "a") == ["n (LayerNorm) normalizes over them"]


def test_a_group_norm_makes_one_channel_of_each_group_and_an_instance_norm_none() -> None:
    graph = graph_of(
        lambda s, x: s.fc(mean(s.i(s.n(s.a(x))))),
        a=Conv2d(1, 4, 3), n=nn.GroupNorm(2, 4), i=nn.InstanceNorm2d(4, affine=True), fc=Linear(4, 3),
    )  # fmt: skip
    one, two = out(graph, "a")[0], out(graph, "a")[2]
    assert one != two
    assert out(graph, "a") == out(graph, "n") == into(graph, "fc") == cells(graph, "i.bias", 0) == [one, one, two, two]
    graph = graph_of(
        lambda s, x: s.fc(mean(s.i(s.a(x)))),
        a=Conv2d(1, 4, 3), i=nn.InstanceNorm2d(4, affine=True), fc=Linear(4, 3),
    )  # fmt: skip
    assert len(set(out(graph, "a"))) == 4
    assert not kept(graph, "a")


@pytest.mark.parametrize("shape", [(1, 4, 1, 1), (4, 1, 1)])
def test_a_bare_parameter_over_channels_is_cut_with_them(shape: tuple[int, ...]) -> None:
    net = Net(lambda s, x: s.fc(mean(s.a(x) * s.g)), a=Conv2d(1, 4, 3), fc=Linear(4, 3))
    net.g = nn.Parameter(torch.ones(shape))
    graph = channel_graph(net, (1, 6, 6))
    assert cells(graph, "g", shape.index(4)) == out(graph, "a") == into(graph, "fc")


def test_two_layers_of_one_weight_have_its_channels() -> None:
    a, b = Conv2d(4, 4, 1), Conv2d(4, 4, 1)
    b.weight = a.weight
    graph = graph_of(lambda s, x: s.fc(mean(s.b(s.a(s.c(x))))), c=Conv2d(1, 4, 3), a=a, b=b, fc=Linear(4, 3))
    assert out(graph, "c") == into(graph, "a") == out(graph, "a") == into(graph, "b") == out(graph, "b")


def test_layers_that_read_a_table_of_positions_have_channels() -> None:
    net = Net(
        lambda s, x: s.fc(mean(s.a(x)) + s.q(F.relu(s.p(s.table))).mean(0)),
        a=Conv2d(1, 4, 3), p=Linear(2, 6), q=Linear(6, 4), fc=Linear(4, 3),
    )  # fmt: skip
    net.register_buffer("table", torch.rand(5, 2))
    graph = channel_graph(net, (1, 6, 6))
    assert into(graph, "p") == [-1, -1]
    assert len(set(out(graph, "p"))) == 6
    assert out(graph, "p") == into(graph, "q")
    assert out(graph, "q") == out(graph, "a") == into(graph, "fc")


def test_one_channel_that_is_broadcast_over_many_is_none_of_them() -> None:
    graph = graph_of(lambda s, x: s.fc(mean(s.a(x) * s.b(x))), a=Conv2d(1, 4, 3), b=Conv2d(1, 1, 3), fc=Linear(4, 3))
    assert out(graph, "a") == into(graph, "fc")
    assert not set(out(graph, "b")) & set(out(graph, "a"))


@pytest.mark.parametrize(("forward", "word"), [
    (lambda s, x: s.fc(s.a(x).view(-1, 64)), "view"),
    (lambda s, x: s.fc(F.relu(s.a(x)).view(-1, 4, 16).flatten(1)), "view"),
    (lambda s, x: s.fc(torch.cat(s.a(x).split([1, 3], 1), 1).flatten(1)), "split"),
    (lambda s, x: s.fc((s.a(x) + torch.ones(4, 1, 1)).flatten(1)), "add"),
    (lambda s, x: s.fc((s.a(x) * s.a(x)[:, 2:3]).flatten(1)), "slice"),
])  # fmt: skip
def test_numbers_that_do_not_follow_the_channels_keep_them_and_the_line_is_named(
    forward: Callable[[Any, Tensor], Tensor], word: str
) -> None:
    def net(s: Any, x: Tensor) -> Tensor:
        return forward(s, F.relu(s.first(x)))

    graph = graph_of(net, first=Conv2d(1, 5, 1), a=Conv2d(5, 4, 3), fc=Linear(64, 3))
    (reason,) = kept(graph, "a")
    assert reason.startswith(f"{word} in the network (Net), thinning/test_graph.py:")
    assert not kept(graph, "first")


def counted(x: Tensor) -> Tensor:
    if x.shape[1] != 4:
        raise ValueError("four channels are expected")
    return x


def test_what_the_code_asserts_keeps_the_channels_and_the_line_is_named() -> None:
    graph = graph_of(
        lambda s, x: s.fc(mean(s.b(counted(F.relu(s.a(F.relu(s.first(x)))))))),
        first=Conv2d(1, 5, 1), a=Conv2d(5, 4, 3), b=Conv2d(4, 6, 1), fc=Linear(6, 3),
    )  # fmt: skip
    (reason,) = kept(graph, "a")
    assert re.search(r"does not run without .*thinning/test_graph.py:\d+: four channels are expected", reason)
    assert not kept(graph, "first") + kept(graph, "b")


def test_two_channels_are_tried_too_and_one_that_is_left_is_followed() -> None:
    graph = graph_of(lambda s, x: s.fc(s.a(x).view(-1, 32)), a=Conv2d(1, 2, 3), fc=Linear(32, 3))
    assert ["view" in reason for reason in kept(graph, "a")] == [True]
    graph = graph_of(lambda s, x: s.fc(s.a(x).flatten(1)), a=Conv2d(1, 2, 3), fc=Linear(32, 3))
    assert not kept(graph, "a")


def test_channels_that_are_unbound_and_stacked_are_followed() -> None:
    graph = graph_of(
        lambda s, x: s.fc(mean(torch.stack(s.a(x).unbind(1)[::-1], 1))), a=Conv2d(1, 4, 3), fc=Linear(4, 3)
    )
    assert into(graph, "fc") == out(graph, "a")[::-1]
    assert not kept(graph, "a")


def test_a_convolution_along_the_channels_keeps_each_of_them() -> None:
    graph = graph_of(
        lambda s, x: (lambda y: s.fc(mean(y * s.m(mean(y)[:, None]).squeeze(1)[..., None, None])))(s.a(x)),
        a=Conv2d(1, 4, 3), m=nn.Conv1d(1, 1, 3, padding=1), fc=Linear(4, 3),
    )  # fmt: skip
    assert len(set(out(graph, "a"))) == 4
    assert kept(graph, "a") == ["m (Conv1d) mixes them"]


@pytest.mark.parametrize("draw", [
    lambda: torch.rand(1).item() < 0.5, lambda: bool(torch.rand(()) > 0.5), lambda: random.random() < 0.5,
    lambda: float(torch.empty(1).uniform_(0, 2)) < 1, lambda: bool(torch.bernoulli(torch.tensor(0.5))),
])  # fmt: skip
@pytest.mark.parametrize("seed", [0, 1])
def test_a_layer_that_training_leaves_out_now_and_then_is_seen_with_and_without(
    draw: Callable[[], bool], seed: int
) -> None:
    def net(s: Any, x: Tensor) -> Tensor:
        x = s.a(x)
        return s.fc(mean(s.b(x) if s.training and draw() else x))

    torch.manual_seed(seed)
    random.seed(seed)
    graph = graph_of(net, a=Conv2d(1, 4, 3), b=Conv2d(4, 4, 1), fc=Linear(4, 3))
    assert out(graph, "b") == out(graph, "a")  # only training adds it, and not always


def test_equal_parts_lose_the_same_channels() -> None:
    graph = graph_of(
        lambda s, x: (lambda one, two: s.fc(torch.cat([two, s.b(one)], 1).mean((2, 3))))(*s.a(x).chunk(2, 1)),
        a=Conv2d(1, 6, 3), b=Conv2d(3, 2, 1), fc=Linear(5, 3),
    )  # fmt: skip
    assert out(graph, "a")[:3] == out(graph, "a")[3:] == into(graph, "b") == into(graph, "fc")[:3]
    assert "chunk" in graph.ties[out(graph, "a")[0]] or "split" in graph.ties[out(graph, "a")[0]]


def test_shuffled_channels_are_followed() -> None:
    def shuffle(y: Tensor) -> Tensor:
        return y.view(-1, 2, y.shape[1] // 2, *y.shape[2:]).transpose(1, 2).flatten(1, 2)

    graph = graph_of(lambda s, x: s.fc(mean(shuffle(s.a(x)))), a=Conv2d(1, 6, 3), fc=Linear(6, 3))
    first, second = out(graph, "a")[:3], out(graph, "a")[3:]
    assert first == second
    assert into(graph, "fc") == [cell for pair in zip(first, second, strict=True) for cell in pair]
    graph = graph_of(lambda s, x: s.fc(mean(s.a(x).flip(1))), a=Conv2d(1, 6, 3), fc=Linear(6, 3))
    assert into(graph, "fc") == out(graph, "a")[::-1]


def test_a_network_that_does_not_run_is_refused_in_one_line() -> None:
    with pytest.raises(Untraceable, match="shapes cannot be multiplied") as caught:
        graph_of(lambda s, x: s.fc(s.a(x)), a=Conv2d(1, 4, 3), fc=Linear(5, 3))
    assert "\n" not in str(caught.value)


def test_prelu_with_one_slope_for_all_channels_can_be_followed() -> None:
    graph = graph_of(lambda s, x: s.fc(mean(s.p(s.a(x)))), a=Conv2d(1, 4, 3), p=nn.PReLU(), fc=Linear(4, 3))
    assert out(graph, "a") == into(graph, "fc")


class Late(BaseException):
    """No `except Exception` takes it."""


def test_a_normalization_over_neighbouring_channels_comes_to_an_end() -> None:
    def late(*_: object) -> None:
        raise Late

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(10)
    try:
        graph_of(
            lambda s, x: s.fc(torch.flatten(s.n(s.a(x)), 1)),
            a=Conv2d(1, 4, 3), n=nn.LocalResponseNorm(2), fc=Linear(64, 3),
        )  # fmt: skip
    except Untraceable:
        pass
    except Late:
        pytest.fail("the walk goes on for ever")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def pruned(graph: ChannelGraph, **rows: list[int]) -> dict[str, list[int]]:
    """What else must be 0, by parameter, when these outputs are."""
    masks = {}
    for path, gone in rows.items():
        mask = torch.zeros(len(graph.by_path[path].out), dtype=torch.bool)
        mask[gone] = True
        masks[graph.weights[path]] = mask
    return {name: mask.nonzero().flatten().tolist() for name, mask in graph.companions(masks).items()}


def test_a_filter_is_spoken_for_by_its_bias_batch_norms_and_depthwise_filters() -> None:
    graph = graph_of(
        lambda s, x: s.fc(mean(s.c(F.relu(s.after(s.d(F.relu(s.before(s.a(x))))))))),
        a=Conv2d(1, 4, 3), before=nn.BatchNorm2d(4), d=Conv2d(4, 4, 3, groups=4), after=nn.BatchNorm2d(4, affine=False),
        c=Conv2d(4, 5, 1), fc=Linear(5, 3),
    )  # fmt: skip
    names = ["a.bias", "before.weight", "before.bias", "d.weight", "d.bias"]
    assert pruned(graph, a=[1, 3]) == {name: [1, 3] for name in names}


def test_behind_a_concatenation_batch_norms_speak_at_the_places_where_the_filters_went() -> None:
    graph = graph_of(
        lambda s, x: s.fc(mean(F.relu(s.bn(torch.cat([s.a(x), s.b(x)], 1))))),
        a=Conv2d(1, 4, 3, bias=False), b=Conv2d(1, 2, 3, bias=False), bn=nn.BatchNorm2d(6), fc=Linear(6, 3),
    )  # fmt: skip
    assert pruned(graph, a=[3], b=[0]) == {"bn.weight": [3, 4], "bn.bias": [3, 4]}


def test_a_batch_norm_that_sees_something_else_too_is_left_alone() -> None:
    graph = graph_of(
        lambda s, x: s.fc(mean(s.bn(s.a(x) + s.b(x)))),
        a=Conv2d(1, 4, 3, bias=False), b=Conv2d(1, 4, 3, bias=False), bn=nn.BatchNorm2d(4), fc=Linear(4, 3),
    )  # fmt: skip
    assert pruned(graph, a=[1, 2], b=[2, 3]) == {"bn.weight": [2], "bn.bias": [2]}


@pytest.mark.parametrize(("on_the_way", "stops"), [(F.relu, False), (torch.sigmoid, True), (torch.exp, True)])
def test_what_is_not_0_at_0_ends_what_must_be_0(on_the_way: Callable[[Tensor], Tensor], stops: bool) -> None:
    graph = graph_of(
        lambda s, x: s.fc(mean(s.bn(on_the_way(s.a(x))))),
        a=Conv2d(1, 4, 3, bias=False), bn=nn.BatchNorm2d(4), fc=Linear(4, 3),
    )  # fmt: skip
    assert pruned(graph, a=[1]) == ({} if stops else {"bn.weight": [1], "bn.bias": [1]})


def test_a_product_is_0_where_one_factor_is() -> None:
    graph = graph_of(
        lambda s, x: s.fc(mean(s.bn(s.a(x) * torch.sigmoid(s.b(x))))),
        a=Conv2d(1, 4, 3, bias=False), b=Conv2d(1, 4, 3, bias=False), bn=nn.BatchNorm2d(4), fc=Linear(4, 3),
    )  # fmt: skip
    assert pruned(graph, a=[1], b=[3]) == {"bn.weight": [1], "bn.bias": [1]}


def heads(s: Any, x: Tensor) -> Tensor:
    tokens = s.a(x).flatten(2).transpose(1, 2)
    q, k, v = (one(tokens).view(len(tokens), -1, 2, 2).transpose(1, 2) for one in (s.q, s.k, s.v))
    attended = (torch.softmax(q @ k.transpose(2, 3), -1) @ v).transpose(1, 2).flatten(2)
    return s.fc(attended.mean(1))  # type: ignore[no-any-return]


def split_heads(s: Any, x: Tensor) -> Tensor:
    tokens = s.a(x).flatten(2).transpose(1, 2)
    q, k, v = (one(tokens).view(len(tokens), tokens.shape[1], 2, -1).transpose(1, 2) for one in (s.q, s.k, s.v))
    attended = (torch.softmax(q @ k.transpose(2, 3), -1) @ v).transpose(1, 2).flatten(2)
    return s.fc(attended.mean(1))  # type: ignore[no-any-return]


def attention(net: Callable[[Any, Tensor], Tensor]) -> ChannelGraph:
    layers = {name: Linear(4, 4) for name in "qkv"}
    return graph_of(net, a=Conv2d(1, 4, 3), **layers, fc=Linear(4, 3))


def test_heads_lose_the_same_of_their_channels_and_are_never_fewer() -> None:
    graph = attention(split_heads)
    assert out(graph, "v")[:2] == out(graph, "v")[2:] == into(graph, "fc")[:2]
    assert not kept(graph, "v")
    assert kept(attention(heads), "v")  # their width is written


def test_what_a_product_keeps_is_refused_and_makes_no_logits() -> None:
    found = couplings(attention(split_heads), ["q.weight", "v.weight", "fc.weight"], FILTERS)
    assert [(name, "a product" in why) for name, why in found.broken] == [("q.weight", True)]


def broken(graph: ChannelGraph, *names: str) -> dict[str, str]:
    return dict(couplings(graph, names, FILTERS).broken)


def test_zeros_beside_channels_bring_nothing() -> None:
    def padded(s: Any, x: Tensor) -> Tensor:
        y = s.a(x)
        return s.fc(mean(s.b(y) + torch.cat([y, torch.zeros_like(y)], 1)))  # type: ignore[no-any-return]

    graph = graph_of(padded, a=Conv2d(1, 4, 3), b=Conv2d(4, 8, 1), fc=Linear(8, 3))
    assert broken(graph, "a.weight", "b.weight") == {}


def test_a_weight_that_is_used_turned_makes_its_own_channels_and_keeps_inputs_that_are_none() -> None:
    def decoded(s: Any, x: Tensor) -> Tensor:
        hidden = F.relu(s.b(F.relu(s.a(x.flatten(1)))))
        return s.fc(F.linear(F.relu(F.linear(hidden, s.b.weight.t())), s.a.weight.t()))  # type: ignore[no-any-return]

    graph = graph_of(decoded, a=Linear(36, 6), b=Linear(6, 4), fc=Linear(36, 3))
    assert not kept(graph, "a")
    assert not kept(graph, "b")
    assert "a (Linear) reads what is no channel" in graph.keeps[into(graph, "fc")[0]]
    assert broken(graph, "a.weight", "b.weight") == {"a.weight": "b.weight makes the same channels (joined)"}


def test_a_sum_over_a_weight_is_named() -> None:
    graph = graph_of(
        lambda s, x: s.fc(mean(s.a(x))) + F.linear(mean(s.a(x)), F.normalize(s.w.weight)),
        a=Conv2d(1, 4, 3), fc=Linear(4, 3), w=Linear(4, 3),
    )  # fmt: skip
    assert broken(graph, "a.weight") == {"a.weight": "linalg_vector_norm adds over weights that are not 0 there"}


def test_a_weight_that_is_computed_cannot_be_pruned_with_others() -> None:
    pruned = prune.l1_unstructured(Conv2d(1, 4, 3), "weight", 0.5)
    graph = graph_of(lambda s, x: s.fc(mean(s.a(x) + s.b(x))), a=pruned, b=Conv2d(1, 4, 3), fc=Linear(4, 3))
    assert graph.channels.with_coupled(["b.weight"], 0) == ["b.weight"]
    assert broken(graph, "b.weight") == {"b.weight": "a.weight makes the same channels (joined by add)"}
