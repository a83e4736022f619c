"""Costs that are paid once: masks of resnet18 at 80 %, its sparsity summary, `compress --help`, `compress validate`.

    python -m benchmarks.one_off [--rounds 7]

One thread, CPU time of the process (of the child for commands), the median of the rounds. The masks are measured beside
`np.partition` of every tensor's magnitudes in the same process, at single weights of up to 10^8, too.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys

import numpy as np
import torch
import torchvision

from benchmarks.measuring import Figure, milliseconds, ratio, take_turns
from compressor.sparsity.entries import magnitudes
from compressor.sparsity.masks import Masks
from compressor.sparsity.summary import summarize
from compressor.sparsity.topk import pruned_count, smallest
from compressor.sparsity.weights import prunable

LARGE = (10**6, 10**7, 10**8)
"""The sizes of single weights: what one entry costs must not rise with them."""


def command(*arguments: str) -> float:
    """CPU seconds of a `compress` command in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "compressor", *arguments], check=True, capture_output=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def torch_import() -> float:
    """CPU seconds of `import torch, torchvision` in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", "import torch"], check=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def of_one_weight(count: int, rounds: int) -> list[Figure]:
    """What the mask of one weight of `count` entries costs at 80 %, beside `np.partition`; and the mask applied."""
    weight = torch.randn(count)
    masks, due = Masks({"weight": torch.nn.Parameter(weight.clone())}), pruned_count(0.8, count)
    masks.set("benchmark", "weight", ~smallest(magnitudes(weight), due))
    taken = take_turns(
        {
            "partition": lambda: np.partition(np.abs(weight.numpy()), due),
            "again": lambda: np.partition(np.abs(weight.numpy()), due),
            "mask": lambda: smallest(magnitudes(weight), due),
            "applied": masks.apply,
        },
        rounds,
    )
    each = 1e6 / count  # ms to ns a weight
    again = ratio(taken["again"], taken["partition"])
    beside = ratio(taken["mask"], taken["partition"])
    note = f"{each * milliseconds(taken['mask']):.2f} ns a weight"
    return [
        Figure(f"mask of {count:,} weights at 80 %, beside np.partition", beside, budget=1.2, again=again, note=note),
        Figure(f"mask of {count:,} weights applied", each * milliseconds(taken["applied"]), "ns a weight"),
    ]


def of_weights(rounds: int) -> list[Figure]:
    """What masks and the sparsity summary of resnet18 cost."""
    torch.manual_seed(0)
    weights = {name: w.detach() for name, w in prunable(torchvision.models.resnet18(weights=None)).items()}

    def masks() -> None:
        for weight in weights.values():
            smallest(magnitudes(weight), pruned_count(0.8, weight.numel()))

    def partition() -> None:
        for weight in weights.values():
            np.partition(np.abs(weight.numpy()).ravel(), pruned_count(0.8, weight.numel()))

    scratch = torch.empty(max(w.numel() for w in weights.values()))

    def summary(tensors: list[torch.Tensor]) -> None:
        for weight in tensors:
            summarize("", weight, scratch)

    dense = list(weights.values())
    sparse = [w.masked_fill(smallest(w.abs(), pruned_count(0.8, w.numel())), 0.0) for w in dense]
    taken = take_turns(
        {
            "partition": partition,
            "again": partition,
            "masks": masks,
            "dense": lambda: summary(dense),
            "sparse": lambda: summary(sparse),
        },
        rounds,
    )
    beside = f"{milliseconds(taken['masks']):.1f} ms beside {milliseconds(taken['partition']):.1f}"
    again = ratio(taken["again"], taken["partition"])
    found = [
        Figure(
            "masks of resnet18 at 80 %, beside np.partition",
            ratio(taken["masks"], taken["partition"]),
            budget=1.2,
            again=again,
            note=beside,
        ),
        Figure("sparsity summary of resnet18", milliseconds(taken["dense"]), "ms", 10.0),
        Figure("sparsity summary of resnet18 at 80 %", milliseconds(taken["sparse"]), "ms", 10.0),
    ]
    parameters = dict(torchvision.models.resnet18(weights=None).named_parameters())
    applied, multiplied = Masks(parameters), []
    for name, weight in weights.items():
        keep = torch.rand_like(weight) > 0.8
        applied.set("benchmark", name, keep)
        multiplied.append((parameters[name].detach(), keep.float()))

    def multiply() -> None:
        for weight, mask in multiplied:
            weight.mul_(mask)

    taken = take_turns({"product": multiply, "again": multiply, "masks": applied.apply}, rounds)
    return [
        *found,
        Figure(
            "masks applied to resnet18, beside a bare product in place by float masks",
            ratio(taken["masks"], taken["product"]),
            again=ratio(taken["again"], taken["product"]),
            note=f"{milliseconds(taken['masks']):.1f} ms",
        ),
    ]


def measure(rounds: int, *, small: bool = False) -> list[Figure]:
    """What masks and summaries cost; `small`: without the weights of more than 10^6 entries."""
    single = [figure for count in LARGE[: 1 if small else None] for figure in of_one_weight(count, min(rounds, 5))]
    return [*of_weights(rounds), *single]


def of_commands(rounds: int) -> list[Figure]:
    """What the commands cost before they do anything."""
    helps = statistics.median(command("--help") for _ in range(rounds))
    both = [(command("validate", "lenet5_agp"), torch_import()) for _ in range(rounds)]
    more = statistics.median(ours - torchs for ours, torchs in both)
    return [
        Figure("compress --help", helps, "s", 0.1),
        Figure(
            "compress validate, beyond import torch",
            more,
            "s",
            0.3,
            note=f"import torch {statistics.median(torchs for _, torchs in both):.2f} s",
        ),
    ]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=7)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    for figure in [*measure(given.rounds), *of_commands(given.rounds)]:
        budget = "" if figure.budget is None else f" (budget {figure.budget:g})"
        note = f", {figure.note}" if figure.note else ""
        print(f"{figure.what}: {figure.value:.2f} {figure.unit}{budget}{note}", flush=True)


if __name__ == "__main__":
    main()
