"""CPU seconds that thinning itself takes: of real networks, and as networks get deeper and wider.

    python -m benchmarks.thinning_speed [--repeats 5] [--limit 3] [--only NAME,NAME]

Process time, one thread, the median of some repeats. `trace`: the channel graph. `group`: how all weights are coupled,
and which outputs can be removed. `cut`: the decision, a second trace that tries it, and the cut, in a network of which
half of the filters are zero. `inputs` is a forward pass of an image of NaN, which the decision uses, and `check` the
rest of `thin`: forward passes on real images, which any check of this kind needs; both are timed apart. In chains of
equal layers the time of a layer must not rise with their number, and the time of a channel not with the channels (of
`cut`: that of a weight, which all are read). Ends with 1 where a network takes longer than the limit, or where the last
chain of a kind takes more than twice the time of the first by layer, channel or weight.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from benchmarks.measuring import Figure
from compressor.models import build
from compressor.sparsity.structures import FILTERS
from compressor.sparsity.weights import prunable
from compressor.thinning.coupling import couplings, removable
from compressor.thinning.cutting import cut_of
from compressor.thinning.equivalence import thin
from compressor.thinning.graph import ChannelGraph
from compressor.thinning.reading import channel_graph
from compressor.thinning.removal import Removal, decide
from compressor.tracing import inputs_by_weight

NETWORKS, SIDE = ("resnet50", "convnext_tiny"), 224
LAYERS, WIDTHS = (125, 250, 500, 1000), (8, 64)
CHANNELS, DEPTH = (64, 256, 1024, 4096), 4
STEPS = ("trace", "group", "cut")
LIMIT = 3.0
"""Seconds that a real network may take."""
RISE = 2.0
"""The largest ratio of the time of one layer (channel, weight) in the largest chain to that in the smallest."""


@dataclass(frozen=True)
class Taken:
    """Median seconds of each step. `weights`: entries of all convolutions and linear layers."""

    seconds: dict[str, float]
    weights: int

    @property
    def total(self) -> float:
        return sum(self.seconds[step] for step in STEPS)


Chains = list[tuple[Taken, dict[str, float]]]
"""What chains took, and how many layers (channels, weights) each step is counted by."""


def chain(layers: int, channels: int, kernel: int) -> nn.Sequential:
    """So many convolutions with batch norm and ReLU, and a linear layer."""
    inner = []
    for number in range(layers):
        inputs = channels if number else 3
        inner += [nn.Conv2d(inputs, channels, kernel, padding=kernel // 2), nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*inner, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def fresh(graph: ChannelGraph) -> ChannelGraph:
    """The graph without what it has computed."""
    return ChannelGraph(**{name: getattr(graph, name) for name in graph.__dataclass_fields__})


@torch.no_grad()
def zero_half(network: nn.Module, graph: ChannelGraph) -> None:
    """Set half of the channels to zero that can be removed, with their companions."""
    gone = torch.rand(max(graph.cells, 1), generator=torch.Generator().manual_seed(0)) < 0.5
    cells = graph.channels.cells
    names = removable(graph, [name for name in prunable(network) if (name, 0) in cells])
    pruned = {name: gone[cells[name, 0].clamp(min=0)] & (cells[name, 0] >= 0) for name in names}
    parameters = dict(network.named_parameters())
    for name, entries in {**pruned, **graph.companions(pruned)}.items():
        parameters[name][entries] = 0


def measure(network: nn.Module, side: int, repeats: int) -> Taken:
    """Return the seconds of each step."""
    network.eval()
    shape, images = (3, side, side), torch.randn(2, 3, side, side)
    found: dict[str, float] = {}

    def timed(step: str, work: Callable[[], Any]) -> Any:
        taken = []
        for _ in range(repeats):
            began = time.process_time()
            result = work()
            taken.append(time.process_time() - began)
        found[step] = statistics.median(taken)
        return result

    graph = timed("trace", lambda: channel_graph(network, shape))
    names = list(prunable(network))

    def group() -> None:
        own = fresh(graph)
        couplings(own, names, FILTERS)
        removable(own, names)

    timed("group", group)
    zero_half(network, graph)
    seen = timed("inputs", lambda: inputs_by_weight(network, shape))

    def removes(graph: ChannelGraph) -> Removal:
        return decide(graph, network, seen, skip=True)

    def cut() -> Any:
        removes(fresh(graph))
        tried = channel_graph(network, shape, removes)
        return cut_of(tried, network, removes(tried))

    assert timed("cut", cut), "nothing was cut"
    began = time.process_time()
    thin(network, images)
    found["check"] = max(time.process_time() - began - found["trace"] - found["inputs"] - found["cut"], 0.0)
    return Taken(found, sum(weight.numel() for weight in prunable(network).values()))


def show(name: str, taken: Taken, unit: str = "", counts: dict[str, float] | None = None) -> None:
    """Print one line: seconds, and milliseconds by layer (channel, weight) where `counts` has their numbers."""
    cells = [f"{taken.seconds[step]:8.3f}" for step in (*STEPS, "inputs", "check")]
    by = [f"{1000 * taken.seconds[step] / counts[step]:9.4f}" for step in STEPS] if counts else []
    print(f"{name:24}", *cells, "  ", *by, unit, flush=True)


def rises(found: Chains) -> dict[str, float]:
    """Return how many times as long a layer (channel, weight) takes in the last chain as in the first, by step.

    Steps of less than 0.05 seconds are noise.
    """
    (first, of_first), (last, of_last) = found[0], found[-1]
    return {
        step: (last.seconds[step] / of_last[step]) / (first.seconds[step] / of_first[step])
        for step in STEPS
        if last.seconds[step] > 0.05
    }


def compare(title: str, found: Chains) -> list[str]:
    """Return what rises from the first chain to the last by more than `RISE`."""
    return [
        f"{title}: {step} takes {rise:.1f} times as long, at most {RISE:g} is allowed"
        for step, rise in rises(found).items()
        if rise > RISE
    ]


def layers(width: int, repeats: int, numbers: Sequence[int] = LAYERS) -> Chains:
    """Measure chains of more and more layers."""
    return [(measure(chain(each, width, 3), 4, repeats), dict.fromkeys(STEPS, float(each))) for each in numbers]


def channels(repeats: int, numbers: Sequence[int] = CHANNELS) -> Chains:
    """Measure chains of wider and wider layers; `cut` counts by 1000 weights."""
    found = []
    for each in numbers:
        taken = measure(chain(DEPTH, each, 1), 4, repeats)
        found.append((taken, {**dict.fromkeys(STEPS, float(each)), "cut": taken.weights / 1000}))
    return found


def figures(repeats: int, *, small: bool = False) -> list[Figure]:
    """What thinning takes of real networks, and how the time of a layer and of a channel rises."""
    torch.manual_seed(0)
    found = []
    for name in () if small else NETWORKS:
        taken = measure(build(name), SIDE, repeats)
        each = ", ".join(f"{step} {taken.seconds[step]:.2f}" for step in STEPS)
        found.append(Figure(f"thinning {name}", taken.total, "s", LIMIT, note=each))
    grown = {
        "layers": layers(WIDTHS[0], repeats, LAYERS[:2] if small else LAYERS),
        "channels": channels(repeats, CHANNELS[:2] if small else CHANNELS),
    }
    for what, chains in grown.items():
        rise = max(rises(chains).values(), default=1.0)
        found.append(Figure(f"thinning: the time of one of more {what}, most / fewest", rise, budget=RISE))
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--limit", type=float, default=LIMIT, help="seconds that a real network may take")
    arguments.add_argument("--only", default="", help="names of networks, `layers` and `channels`")
    given = arguments.parse_args()
    only = given.only.split(",") if given.only else [*NETWORKS, "layers", "channels"]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{'':24}", *(f"{step:>8}" for step in (*STEPS, "inputs", "check")), "  ", *(f"{step:>9}" for step in STEPS))
    faults = []
    for name in only:
        if name in ("layers", "channels"):
            continue
        taken = measure(build(name), SIDE, given.repeats)
        show(name, taken)
        if taken.total > given.limit:
            faults.append(f"{name} takes {taken.total:.2f} s, {given.limit:g} s are allowed")
    for width in WIDTHS if "layers" in only else ():
        found = layers(width, given.repeats)
        for taken, counts in found:
            show(f"{counts['cut']:g} layers of {width}", taken, "ms a layer", counts)
        faults += compare(f"from {LAYERS[0]} to {LAYERS[-1]} layers of {width} channels, by layer", found)
    if "channels" in only:
        found = channels(given.repeats)
        for taken, counts in found:
            show(f"{DEPTH} layers of {counts['trace']:g}", taken, "ms a channel, of `cut` by 1000 weights", counts)
        faults += compare(f"from {CHANNELS[0]} to {CHANNELS[-1]} channels, by channel or weight", found)
    print(*faults, sep="\n")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
