"""The work of a thinning grows no faster than the network: counted in calls and in elements of tensors, not timed."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from compressor.masking.merging import direct_norms
from compressor.sparsity.structures import CHANNELS, FILTERS
from compressor.sparsity.weights import prunable
from compressor.thinning import ChannelGraph, channel_graph, couplings, following_norms, read_before_norm, removable
from compressor.thinning.cutting import cut_of
from compressor.thinning.removal import decide
from compressor.tracing import inputs_by_weight, places, trace_on_meta
from compressor.tracing.layer_calls import layer_calls

SHAPE = (3, 4, 4)


class Elements(TorchDispatchMode):
    """Count the elements of all results; of an operation in place those that are written."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        in_place = function._schema.name.endswith("_")
        self.count += sum(
            one.numel() for one in tree_leaves(args[1:] if in_place else result) if isinstance(one, Tensor)
        )
        return result


def cost(work: Callable[[], object]) -> tuple[int, int]:
    """Calls of functions, and elements of tensors, that `work` makes."""
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    with Elements() as elements:
        work()
    return calls, elements.count


def conv(channels: int, into: int | None = None) -> nn.Conv2d:
    return nn.Conv2d(into or channels, channels, 1, bias=False)


class Block(nn.Module):
    """A linear bottleneck: what is added to its input has no activation behind it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(channels), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = conv(channels), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))  # type: ignore[no-any-return]


def chain(layers: int, channels: int) -> nn.Module:
    """Half of the convolutions in residual blocks, half behind each other."""
    plain = [layer for _ in range(layers // 2) for layer in (conv(channels), nn.BatchNorm2d(channels), nn.ReLU())]
    blocks = [Block(channels) for _ in range(layers // 4)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4)]
    return nn.Sequential(conv(channels, 3), *blocks, *plain, *head).eval()


def zero_half(network: nn.Module, graph: ChannelGraph, every: bool) -> None:
    """Set the first half of the filters to zero: of every layer, or of those that can be removed, with companions."""
    names = [name for name in prunable(network) if (name, 0) in graph.channels.cells]
    parameters = dict(network.named_parameters())
    with torch.no_grad():
        for name in names[:-1]:
            parameters[name][: len(parameters[name]) // 2] = 0
        if not every:
            halves = {name: torch.arange(len(parameters[name])) < len(parameters[name]) // 2 for name in names[:-1]}
            for name, entries in graph.companions(halves).items():
                parameters[name][entries] = 0


def again(graph: ChannelGraph) -> ChannelGraph:
    """The graph without what it has computed."""
    return ChannelGraph(**{name: getattr(graph, name) for name in graph.__dataclass_fields__})


def steps(layers: int, channels: int) -> dict[str, tuple[int, int]]:
    """The cost of each step."""
    network = chain(layers, channels)
    graph, names = channel_graph(network, SHAPE), list(prunable(network))
    traced = trace_on_meta(network, SHAPE)
    assert traced is not None
    some = names[::2]

    def cut(every: bool) -> Callable[[], object]:
        own = chain(layers, channels)
        zero_half(own, graph, every)
        seen = inputs_by_weight(own, SHAPE)
        return lambda: cut_of(graph, own, decide(again(graph), own, seen, skip=True))

    work: dict[str, Callable[[], object]] = {
        "the graph": lambda: channel_graph(network, SHAPE),
        "outputs that are coupled": lambda: couplings(again(graph), names, FILTERS),
        "inputs that are coupled": lambda: couplings(again(graph), some, CHANNELS),
        "what can be removed": lambda: removable(again(graph), names),
        "weights beside those that are coupled with them": lambda: graph.channels.with_coupled(some, 0),
        "norms behind each weight": lambda: [following_norms(each, name) for each in [again(graph)] for name in names],
        "readers before a norm": lambda: [read_before_norm(each, name) for each in [again(graph)] for name in names],
        "norms directly behind": lambda: direct_norms(again(graph), network, names),
        "what is cut": cut(every=False),
        "what is cut, where zeros stay": cut(every=True),
        "activations": lambda: places(traced),
        "shortcuts": lambda: layer_calls(traced, names),
    }
    return {step: cost(one) for step, one in work.items()}


STEPS = (
    "the graph",
    "outputs that are coupled",
    "inputs that are coupled",
    "what can be removed",
    "weights beside those that are coupled with them",
    "norms behind each weight",
    "readers before a norm",
    "norms directly behind",
    "what is cut",
    "what is cut, where zeros stay",
    "activations",
    "shortcuts",
)


@pytest.fixture(scope="module")
def small() -> dict[str, tuple[int, int]]:
    return steps(8, 8)


@pytest.fixture(scope="module")
def deep() -> dict[str, tuple[int, int]]:
    return steps(16, 8)


@pytest.fixture(scope="module")
def wide() -> dict[str, tuple[int, int]]:
    return steps(8, 16)


@pytest.mark.parametrize("step", STEPS)
def test_twice_the_layers_are_at_most_twice_the_work(
    small: dict[str, tuple[int, int]], deep: dict[str, tuple[int, int]], step: str
) -> None:
    assert set(small) == set(STEPS)
    for before, after in zip(small[step], deep[step], strict=True):
        assert after <= 2.2 * before


@pytest.mark.parametrize("step", STEPS)
def test_twice_the_channels_are_at_most_twice_the_work_but_for_weights_that_are_cut(
    small: dict[str, tuple[int, int]], wide: dict[str, tuple[int, int]], step: str
) -> None:
    (calls, elements), (calls_wide, elements_wide) = small[step], wide[step]
    assert calls_wide <= 2.2 * calls
    assert elements_wide <= (4.2 if step.startswith(("the graph", "what is cut")) else 2.2) * elements
