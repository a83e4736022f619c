"""What operations do with channels, on networks small enough to see which of them are one cell and which must stay."""

import math
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import Conv2d, Linear
from torchvision.models.convnext import LayerNorm2d

from compressor.thinning.graph import ChannelGraph
from compressor.thinning.labels import along, vector
from compressor.thinning.reading import channel_graph


class Net(nn.Module):
    """Layers and parameters, and what is done with them."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **parts: Any) -> None:
        super().__init__()
        self._forward = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def mean(x: Tensor) -> Tensor:
    return x.flatten(2).mean(2)


def graph_of(forward: Callable[[Any, Tensor], Tensor], **parts: Any) -> ChannelGraph:
    return channel_graph(Net(forward, **parts), (1, 4, 4))


def cells(graph: ChannelGraph, path: str) -> list[int]:
    return list(graph.by_path[path].out.tolist())


def kept(graph: ChannelGraph, path: str) -> set[str | None]:
    """The reasons why the outputs of a layer can never be removed; None: they can."""
    return {graph.keeps.get(cell) for cell in cells(graph, path)}


@pytest.mark.parametrize("fixed", [True, False])
def test_a_scale_that_is_made_of_the_width_keeps_what_it_scales(fixed: bool) -> None:
    """softmax(q k / sqrt(6)): without one of the 6 channels it would be sqrt(5), and the scores have no channels."""

    def forward(s: Any, x: Tensor) -> Tensor:
        q, k = s.q(x).flatten(2), s.k(x).flatten(2)
        scale = 1 / math.sqrt(6 if fixed else q.shape[1])
        return s.fc(mean(s.v(x).flatten(2) @ torch.softmax(q.transpose(1, 2) @ k * scale, -1)))

    graph = graph_of(forward, q=Conv2d(1, 6, 1), k=Conv2d(1, 6, 1), v=Conv2d(1, 4, 1), fc=Linear(4, 3))
    assert cells(graph, "q") == cells(graph, "k")
    assert (kept(graph, "q") == {None}) is fixed
    assert kept(graph, "v") == {None}


def scaled(s: Any, x: Tensor) -> Tensor:
    return s.fc(mean(s.a(x)))


class Scaled(Conv2d):
    """A filter times its own scale (or one scale for all)."""

    def __init__(self, scales: int) -> None:
        super().__init__(1, 6, 1)
        self.at = nn.Parameter(torch.ones(scales, 1, 1, 1) if scales > 1 else torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.at, self.bias)


@pytest.mark.parametrize("scales", [1, 6])
def test_a_scaled_weight_is_the_layers_weight(scales: int) -> None:
    graph = graph_of(scaled, a=Scaled(scales), fc=Linear(6, 3))
    assert graph.weights["a"] == "a.weight"  # by the alphabet a.at comes first
    line = graph.slices.get("a.at", (None,))[0]
    assert (None if line is None else line.tolist()) == (None if scales == 1 else cells(graph, "a"))


class Standardized(Conv2d):
    """Filters of mean 0 and variance 1, by a batch norm."""

    def forward(self, x: Tensor) -> Tensor:
        filters = F.batch_norm(self.weight.reshape(1, len(self.weight), -1), None, None, training=True)
        return F.conv2d(x, filters.reshape_as(self.weight), self.bias)


def test_a_weight_that_a_batch_norm_standardizes_keeps_its_name() -> None:
    graph = graph_of(lambda s, x: s.fc(mean(s.b(s.a(x)))), a=Conv2d(1, 4, 1), b=Standardized(4, 6, 1), fc=Linear(6, 3))
    assert graph.weights["b"] == "b.weight"
    assert kept(graph, "b") == {None}
    (reason,) = kept(graph, "a")
    assert reason is not None
    assert "batch_norm" in reason


def test_operations_on_places_leave_channels_alone() -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        x = torch.fft.irfft2(torch.fft.rfft2(s.a(x)) * torch.view_as_complex(s.f), s=(4, 4))
        small, places = F.max_pool2d(x, 2, return_indices=True)
        x = F.max_unpool2d(s.b(small), places, 2)
        return s.fc(mean(F.grid_sample(x, s.g(x).permute(0, 2, 3, 1), align_corners=False)))

    graph = graph_of(
        forward, a=Conv2d(1, 5, 1), f=nn.Parameter(torch.ones(5, 4, 3, 2)), b=Conv2d(5, 5, 1), g=Conv2d(5, 2, 1),
        fc=Linear(5, 3),
    )  # fmt: skip
    assert kept(graph, "a") == {None}
    filters = graph.slices["f"][0]
    assert filters is not None
    assert filters.tolist() == cells(graph, "a")
    assert cells(graph, "b") == cells(graph, "a")  # the places belong to the channels that were pooled
    (reason,) = kept(graph, "g")
    assert reason is not None
    assert "grid_sampler_2d" in reason


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_the_labels_along_one_dim_of_three(dim: int) -> None:
    assert vector(along(7, (2, 3, 5), dim), dim).tolist() == list(range(7, 7 + (2, 3, 5)[dim]))


def test_pairs_of_channels_stay_and_the_product_is_named() -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        flat = s.a(x).flatten(2)
        return s.fc((flat @ flat.transpose(1, 2)).flatten(1))

    (reason,) = kept(graph_of(forward, a=Conv2d(1, 3, 1), fc=Linear(9, 2)), "a")
    assert reason is not None
    assert "bmm" in reason
    assert "pairs" in reason


def test_the_places_of_a_table_are_no_channels() -> None:
    graph = graph_of(
        lambda s, x: s.fc((s.a(x) * s.t).flatten(1)),
        a=Conv2d(1, 3, 1), t=nn.Parameter(torch.ones(1, 3, 4, 4)), fc=Linear(48, 2),
    )  # fmt: skip
    into = graph.by_path["fc"].into
    assert kept(graph, "a") == {None}
    assert into is not None
    assert into.reshape(3, 16).tolist() == [[cell] * 16 for cell in cells(graph, "a")]


def test_what_the_models_code_raises_keeps_the_channels_that_it_had_then() -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        x = F.relu(s.a(x))
        if x.shape[1] != 6:
            raise KeyError("six")
        return s.fc(mean(s.b(x)))

    graph = graph_of(forward, a=Conv2d(1, 6, 1), b=Conv2d(6, 6, 1), fc=Linear(6, 3))
    (reason,) = kept(graph, "a")
    assert reason is not None
    assert re.fullmatch(
        r"the network does not run without some of them \(thinning/test_following.py:\d+: 'six'\)", reason
    )
    assert kept(graph, "b") == {None}


def test_a_compiled_module_takes_no_hooks_and_is_followed() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.script(nn.ReLU())
    graph = graph_of(lambda s, x: s.fc(mean(s.r(s.a(x)))), a=Conv2d(1, 4, 1), r=script, fc=Linear(4, 3))
    assert kept(graph, "a") == {None}


FIXED: dict[str, tuple[Callable[[Tensor], Tensor], int, list[int]]] = {
    "the first": (lambda x: x[:, :5], 5, [0, 1, 2, 3, 4]),
    "from the third": (lambda x: x[:, 2:], 10, [0, 1]),
    "the last": (lambda x: x[:, -4:], 4, [8, 9, 10, 11]),
    "between": (lambda x: x[:, 2:-3], 7, [0, 1, 9, 10, 11]),
    "narrow": (lambda x: x.narrow(1, 1, 3), 3, [0, 1, 2, 3]),
    "each third": (lambda x: x[:, 1::3], 4, list(range(11))),  # 1, 4, 7, 10
    "pairs": (lambda x: x[:, ::2] * x[:, 1::2], 6, []),
    "no more than there are": (lambda x: x[:, :99], 12, []),
    "half": (lambda x: x[:, : x.shape[1] // 2] + x[:, x.shape[1] // 2 :], 6, []),
    "quarters": (lambda x: torch.cat(x.chunk(4, 1)[::-1], 1), 12, []),
    "split": (lambda x: torch.cat(x.split(5, 1)[::-1], 1), 12, list(range(10))),
    "roll": (lambda x: x.roll(2, 1), 12, [10, 11]),
    "roll back": (lambda x: x.roll((1, -3), (-1, -3)), 12, [0, 1, 2]),
    "one": (lambda x: x + x[:, 2:3], 12, [0, 1, 2]),
    "the last one": (lambda x: x * x[:, -1].unsqueeze(1), 12, [11]),
}
"""What is read of 12 channels, how many they are then, and those without which another channel would stand in a place
that is read."""


@pytest.mark.parametrize("name", FIXED)
def test_hard_coded_positions_keep_what_stands_there_and_no_more(name: str) -> None:
    read, width, expected = FIXED[name]
    graph = graph_of(
        lambda s, x: s.fc(mean(s.b(read(F.relu(s.a(x)))))), a=Conv2d(1, 12, 1), b=Conv2d(width, 4, 1), fc=Linear(4, 3)
    )
    own = cells(graph, "a")
    assert [place for place, cell in enumerate(own) if cell in graph.keeps] == expected
    assert all("hard-coded positions" in graph.keeps[own[place]] for place in expected)
    assert all("test_following.py" in graph.keeps[own[place]] for place in expected)
    assert kept(graph, "b") == {None}


def test_a_slice_that_takes_all_that_a_trial_leaves_hides_no_other_operation() -> None:
    """torch leaves such a slice out: of 12 channels 7 are left then. The parts behind it follow their channels."""

    def forward(s: Any, x: Tensor) -> Tensor:
        gate = F.relu(s.a(x))[:, :10, :1].sum(1, keepdim=True)
        one, two = s.b(x).chunk(2, 1)
        return s.fc(mean(one * two * gate))

    graph = graph_of(forward, a=Conv2d(1, 12, 1), b=Conv2d(1, 8, 1), fc=Linear(4, 3))
    assert [cell in graph.keeps for cell in cells(graph, "a")] == [True] * 10 + [False] * 2
    assert kept(graph, "b") == {None}


def test_one_of_each_two_channels_goes_with_its_neighbour() -> None:
    graph = graph_of(
        lambda s, x: s.fc(mean(s.a(x).unflatten(1, (-1, 2))[:, :, 0])), a=Conv2d(1, 12, 1), fc=Linear(6, 3)
    )
    own = cells(graph, "a")
    assert own[::2] == own[1::2]
    assert len(set(own)) == 6
    assert kept(graph, "a") == {None}


def test_a_part_without_entries_has_no_channels() -> None:
    """TSM with one image: there is none before it, and none behind it."""

    def forward(s: Any, x: Tensor) -> Tensor:
        x = s.a(x)
        y = torch.zeros_like(x)
        y[:-1, :2] = x[1:, :2]
        y[1:, 2:4] = x[:-1, 2:4]
        y[:, 4:] = x[:, 4:]
        return s.fc(mean(y))

    graph = graph_of(forward, a=Conv2d(1, 8, 1), fc=Linear(8, 3))
    assert [cell in graph.keeps for cell in cells(graph, "a")] == [True] * 4 + [False] * 4


@pytest.mark.parametrize(
    ("product", "named"),
    [
        (lambda x: torch.einsum("bip,bjp->bij", x, x).reshape(len(x), -1), "bmm"),
        (lambda x: (x.mean(2)[:, :, None] * x.mean(2)[:, None]).flatten(1), "mul"),
        (lambda x: F.normalize((x @ x.mT).relu().view(len(x), -1)), "bmm"),
    ],
)
def test_the_product_that_makes_pairs_is_named_however_it_is_written(
    product: Callable[[Tensor], Tensor], named: str
) -> None:
    graph = graph_of(lambda s, x: s.fc(product(s.a(x).flatten(2))), a=Conv2d(1, 3, 1), fc=Linear(9, 2))
    for reason in kept(graph, "a"):
        assert reason is not None
        assert reason.startswith(f"{named} in the network (Net), ")


def test_the_line_that_is_named_is_the_models_never_that_of_its_caller() -> None:
    net = nn.Sequential(Conv2d(3, 8, 3), LayerNorm2d(8), Conv2d(8, 4, 1))
    reasons = [reason for reason in channel_graph(net, (3, 6, 6)).keeps.values() if reason.startswith("layer_norm")]
    assert len(reasons) == 8
    assert all(re.match(r"layer_norm in 1 \(LayerNorm2d\), models/convnext\.py:\d+ ", reason) for reason in reasons)
    flat = nn.Sequential(Conv2d(3, 8, 3), nn.Flatten(), nn.LayerNorm(8 * 16), Linear(8 * 16, 4))
    assert not [reason for reason in channel_graph(flat, (3, 6, 6)).keeps.values() if "test_following" in reason]
