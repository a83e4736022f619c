"""Cost as the work grows: what a step costs beyond the bare loop, with more weights, tensors, policies and processes.

    python -m benchmarks.growth [--blocks 7] [--largest 100000000] [weights] [tensors] [policies] [ranks] [memory]

The network has equal linear layers that every step gives a gradient to, and hardly any other arithmetic, so that the
step is the optimizer's and ours. The bare loop and ours take turns; the figure is the median of their differences, by
weight, tensor or policy: where it does not rise, the cost is linear in the work, and no faster. `ranks`: torchrun
starts 1, 2 and 4 processes on this machine, and rank 0 tells its own CPU time. `memory`: the largest resident size of
a process that trains VGG-16, beside one that runs the bare loop, by weight.
"""

import argparse
import copy
import json
import math
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torchvision
from torch import Tensor, nn

from benchmarks.measuring import Figure, take_turns
from benchmarks.step_overhead import SCHEDULES, bare, ours

ROOT = Path(__file__).resolve().parents[1]
KINDS = (
    "element mask in force",
    "AGP, masks every mini-batch",
    "L1 subgradient, conv + fc",
    "L1 proximal, conv + fc",
)
COUNTS = (1, 10, 100, 1000)
RANKS = (1, 2, 4)
RISE = 1.5
"""The largest ratio of the cost of one weight (tensor, policy) in the largest case to the least in smaller ones."""


class Wide(nn.Module):
    """Linear layers of so many weights in all; each weight has a gradient of zero, made in one pass over it."""

    def __init__(self, weights: int, tensors: int) -> None:
        super().__init__()
        outputs = max(math.isqrt(weights // tensors), 1)
        inputs = max(weights // tensors // outputs, 1)
        self.layers = nn.ModuleList(nn.Linear(inputs, outputs, bias=False) for _ in range(tensors))
        self.head = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits that do not depend on the layers."""
        total = sum(layer.weight.sum() for layer in self.layers.children())  # type: ignore[union-attr, operator]
        return self.head(images.flatten(1)) + 0 * total


def batch() -> tuple[Tensor, Tensor]:
    """A few small images."""
    return torch.randn(4, 1, 2, 4), torch.randint(0, 4, (4,))


def beyond(network: nn.Module, text: str, blocks: int, steps: int) -> tuple[float, float]:
    """Seconds that a step under the schedule takes beyond the bare loop, and that the bare loop takes beyond itself."""
    images, labels = batch()
    plain = bare(copy.deepcopy(network), images, labels)
    variants = {"bare": plain, "again": plain, "ours": ours(text, network, images, labels, allows_empty_layers=True)}
    taken = take_turns(variants, blocks, steps)
    found = [
        statistics.median(a - b for a, b in zip(taken[name], taken["bare"], strict=True)) for name in ("ours", "again")
    ]
    return found[0], found[1]


def _steps(weights: int) -> int:
    return max(1, min(50, 2 * 10**7 // weights))


def by_weights(kind: str, largest: int, blocks: int) -> list[Figure]:
    """Nanoseconds a weight, for powers of ten of weights in one tensor."""
    torch.manual_seed(0)
    found = []
    for power in range(4, round(math.log10(largest)) + 1):
        weights = 10**power
        cost, again = beyond(Wide(weights, 1), SCHEDULES[kind], blocks, _steps(weights))
        found.append(Cost(f"{kind}, 10^{power} weights", 1e9 * cost / weights, "ns a weight", 1e9 * again / weights))
    return [*(one.figure for one in found), _rise(kind, found)]


def by_tensors(blocks: int, weights: int = 10**6) -> list[Figure]:
    """Microseconds a tensor of a mask in force, where a million weights are in more and more tensors."""
    torch.manual_seed(0)
    found = []
    for count in COUNTS:
        cost, again = beyond(Wide(weights, count), SCHEDULES[KINDS[0]], blocks, max(1, 20 // count))
        found.append(Cost(f"{KINDS[0]}, {count} tensors", 1e6 * cost / count, "us a tensor", 1e6 * again / count))
    return [*(one.figure for one in found), _rise("tensors", found)]


def by_policies(blocks: int, weights: int = 10**6) -> list[Figure]:
    """Microseconds a policy, where 1000 tensors are penalized by more and more policies, each has as many of them."""
    torch.manual_seed(0)
    found = []
    for count in COUNTS[:-1]:
        own = [range(first, 100, count) for first in range(count)]
        policies = [
            f"{{regularizer: {{class: L1Regularizer, reg_regims: {json.dumps(dict.fromkeys(_names(each), 1e-5))}}}}}"
            for each in own
        ]
        text = f"{{version: 2, policies: [{', '.join(policies)}]}}"
        cost, again = beyond(Wide(weights, 100), text, blocks, 5)
        found.append(Cost(f"L1 penalties, {count} policies", 1e6 * cost / count, "us a policy", 1e6 * again / count))
    return [*(one.figure for one in found), _rise("policies", found)]


def _names(layers: Sequence[int]) -> list[str]:
    return [f"layers.{number}.weight" for number in layers]


@dataclass(frozen=True)
class Cost:
    """What one weight (tensor, policy) costs; `again`: what the bare loop costs beyond itself, which is noise."""

    what: str
    value: float
    unit: str
    again: float

    @property
    def figure(self) -> Figure:
        return Figure(self.what, self.value, self.unit, note=f"the bare loop beside itself {self.again:+.2g}")


def _rise(what: str, found: Sequence[Cost]) -> Figure:
    """The cost of one in the largest case beside the least before; what is below its noise counts as its noise."""
    *smaller, last = (max(cost.value, abs(cost.again), 1e-3) for cost in found)
    rise = last / min(smaller)
    said = "linear: the cost of one does not rise" if rise <= RISE else "the cost of one rises"
    return Figure(f"{what}: the cost of one, largest case / least before", rise, budget=RISE, note=said)


def by_ranks(blocks: int) -> list[Figure]:
    """Milliseconds of a step that rank 0 spends beyond DistributedDataParallel alone, for 1, 2 and 4 processes: a
    million weights in 20 tensors.
    """
    found = []
    for ranks in RANKS:
        words = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        words += ["-m", "benchmarks.growth", "--as-rank", "--blocks", str(blocks)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        told = subprocess.run(words, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout
        cost, again = json.loads(told.splitlines()[-1])
        found.append(Cost(f"{KINDS[0]}, {ranks} processes", 1000 * cost, "ms a step", 1000 * again))
    return [*(one.figure for one in found), _rise("processes", found)]


def as_rank(blocks: int) -> None:
    """Measure as one of the processes that `by_ranks` starts; rank 0 prints."""
    from compressor.world import Processes

    dist.init_process_group("gloo")
    torch.manual_seed(0)
    network, (images, labels) = Wide(10**6, 20), batch()
    several = dist.get_world_size() > 1  # one process has nobody to average with, and a run does without
    plain = bare(copy.deepcopy(network) if not several else _averaged(network), images, labels)
    own = ours(SCHEDULES[KINDS[0]], network, images, labels, world=Processes(0), allows_empty_layers=True)
    taken = take_turns({"bare": plain, "again": plain, "ours": own}, blocks, 10)
    found = [
        statistics.median(a - b for a, b in zip(taken[name], taken["bare"], strict=True)) for name in ("ours", "again")
    ]
    if dist.get_rank() == 0:
        print(json.dumps(found), flush=True)
    dist.destroy_process_group()


def _averaged(network: nn.Module) -> nn.Module:
    return nn.parallel.DistributedDataParallel(copy.deepcopy(network))


MEASURED = ("bare", "again", *KINDS)


def memory(network: str) -> list[Figure]:
    """Bytes a weight beyond the bare loop's peak, each of a process of its own."""
    peaks = {}
    for kind in MEASURED:
        words = [sys.executable, "-m", "benchmarks.growth", "--peak-of", kind, "--network", network]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        told = subprocess.run(words, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout
        peaks[kind], weights = json.loads(told.splitlines()[-1])
    bare_peak = peaks["bare"]
    again = (peaks["again"] - bare_peak) / weights
    found = []
    for kind in KINDS:
        share = f"{peaks[kind] / bare_peak:.3f} of the bare loop's {bare_peak / 1e6:,.0f} MB; that again {again:+.2f}"
        extra = (peaks[kind] - bare_peak) / weights
        found.append(
            Figure(
                f"{network}, {kind}: peak memory beyond the bare loop",
                extra,
                "bytes a weight",
                1.0,
                again=1 + again,  # so that a miss by less is one within the noise
                note=share,
            )
        )
    return found


def peak_of(kind: str, name: str) -> None:
    """Train a few steps, and print the peak of this process in bytes, and the number of weights."""
    torch.manual_seed(0)
    network = getattr(torchvision.models, name)(weights=None).train()
    weights = sum(parameter.numel() for parameter in network.parameters() if parameter.dim() > 1)
    images, labels = torch.randn(2, 3, 64, 64), torch.randint(0, 1000, (2,))
    step = ours(SCHEDULES[kind], network, images, labels) if kind in SCHEDULES else bare(network, images, labels)
    for _ in range(3):
        step()
    # getrusage would give a new process the peak of the one that started it.
    [peak] = re.findall(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    print(json.dumps([1024 * int(peak), weights]))


def picture(curves: Mapping[str, Sequence[Figure]]) -> str:
    """Return an SVG of the cost of one weight, tensor, policy and process against their number, by row.

    Each row's figures end with a number of weights (tensors, policies, processes); what is not above 0 is noise and is
    not drawn.
    """
    from benchmarks.figures import BLUE, GREEN, ORANGE, PINK, drawn, label

    axes_of = {"weights": "ns a weight", "tensors": "us a tensor", "policies": "us a policy", "processes": "ms a step"}
    looks = ((BLUE, "o-"), (ORANGE, "s--"), (GREEN, "^-."), (PINK, "v:"))

    def draw(axes: list[Any]) -> None:
        for axis, (what, unit) in zip(axes, axes_of.items(), strict=True):
            own = [row for row in curves.values() if row[0].unit == unit]
            for row, (colour, look) in zip(own, looks, strict=False):
                points = [(_count(figure), figure.value) for figure in row if figure.value > 0]
                name = re.split(r", | in ", row[0].what.replace(", masks", " masks"))[0] if what == "weights" else None
                axis.plot(*zip(*points, strict=True), look, color=colour, label=name, markersize=4)
            if own:
                axis.set(xscale="log", yscale="log")
            label(axis, what, unit, f"the cost of one, by the number of {what}")

    return drawn("growth", draw, 2, 2, "What a step costs beyond the bare loop, as the work grows.")


def _count(figure: Figure) -> float:
    """The number of weights (tensors, policies, processes) that a figure's name ends with."""
    base, power = re.findall(r"(\d+)(?:\^(\d+))? \w+$", figure.what)[0]
    return float(base) ** int(power or 1)


PARTS: dict[str, Any] = {
    "weights": lambda blocks, largest: [figure for kind in KINDS for figure in by_weights(kind, largest, blocks)],
    "tensors": lambda blocks, largest: by_tensors(blocks),
    "policies": lambda blocks, largest: by_policies(blocks),
    "ranks": lambda blocks, largest: by_ranks(blocks),
    "memory": lambda blocks, largest: memory("vgg16"),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("parts", nargs="*", default=[*PARTS], help=", ".join(PARTS))
    arguments.add_argument("--blocks", type=int, default=7)
    arguments.add_argument("--largest", type=int, default=10**8, help="weights of the largest tensor")
    arguments.add_argument("--as-rank", action="store_true", help=argparse.SUPPRESS)
    arguments.add_argument("--peak-of", help=argparse.SUPPRESS)
    arguments.add_argument("--network", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    if given.as_rank:
        as_rank(given.blocks)
    elif given.peak_of:
        peak_of(given.peak_of, given.network)
    else:
        for part in given.parts:
            for figure in PARTS[part](given.blocks, given.largest):
                print(f"{figure.what:70} {figure.value:9.3f} {figure.unit:14} {figure.note}", flush=True)


if __name__ == "__main__":
    main()
