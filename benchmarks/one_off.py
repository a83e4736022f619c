"""Costs that are paid once: masks of resnet18 at 80 %, its sparsity summary, `compress --help`, `compress validate`.

    python -m benchmarks.one_off

One thread, CPU time of the process (of the child for commands), median of seven. The masks are measured beside
`np.partition` of every tensor's magnitudes in the same process, at single weights of up to 10^8, too.
"""

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
import torchvision

from compressor.sparsity.entries import magnitudes
from compressor.sparsity.masks import Masks
from compressor.sparsity.summary import summarize
from compressor.sparsity.topk import pruned_count, smallest
from compressor.sparsity.weights import prunable

LARGE = (10**6, 10**7, 10**8)
"""The sizes of single weights: what one entry costs must not rise with them."""


def alternate(*functions: Callable[[], object], rounds: int = 7) -> list[float]:
    """Median CPU milliseconds of each, the functions taking turns in an order that rotates."""
    taken: list[list[float]] = [[] for _ in functions]
    for turn in range(rounds + 1):
        for place in range(len(functions)):
            number = (place + turn) % len(functions)
            began = time.process_time()
            functions[number]()
            taken[number].append(1000 * (time.process_time() - began))
    return [statistics.median(times[1:]) for times in taken]


def command(*arguments: str) -> float:
    """CPU seconds of a `compress` command in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    executable = os.path.join(os.path.dirname(sys.executable), "compress")
    subprocess.run([executable, *arguments], check=True, capture_output=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def torch_import() -> float:
    """CPU seconds of `import torch, torchvision` in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", "import torch"], check=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def of_one_weight(count: int) -> str:
    """A line on one weight of `count` entries: its mask at 80 %, beside `np.partition`, and the mask applied."""
    weight = torch.randn(count)
    masks, due = Masks({"weight": torch.nn.Parameter(weight.clone())}), pruned_count(0.8, count)
    masks.set("benchmark", "weight", ~smallest(magnitudes(weight), due))
    ours, numpys, again, applied = alternate(
        lambda: smallest(magnitudes(weight), due),
        lambda: np.partition(np.abs(weight.numpy()), due),
        lambda: np.partition(np.abs(weight.numpy()), due),
        masks.apply,
        rounds=5,
    )
    each = 1e6 / count  # ms to ns a weight
    return (
        f"a weight of {count:,}: mask {each * ours:.2f} ns a weight, np.partition {each * numpys:.2f}:"
        f" {ours / numpys:.2f} x (budget 1.2 x; np.partition again {again / numpys:.2f} x),"
        f" mask applied {each * applied:.2f} ns a weight"
    )


def main() -> None:
    torch.set_num_threads(1)
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
    ours, numpys, of_dense, of_sparse = alternate(masks, partition, lambda: summary(dense), lambda: summary(sparse))
    print(
        f"masks of resnet18 at 80 %: {ours:.1f} ms, np.partition {numpys:.1f} ms: {ours / numpys:.2f} x (budget 1.2 x)"
    )
    for count in LARGE:
        print(of_one_weight(count))
    print(f"sparsity summary of resnet18: dense {of_dense:.1f} ms, at 80 % {of_sparse:.1f} ms (budget 10 ms)")
    parameters = dict(torchvision.models.resnet18(weights=None).named_parameters())
    applied, multiplied = Masks(parameters), []
    for name, weight in weights.items():
        keep = torch.rand_like(weight) > 0.8
        applied.set("benchmark", name, keep)
        multiplied.append((parameters[name].detach(), keep.float()))

    def multiply() -> None:
        for weight, mask in multiplied:
            weight.mul_(mask)

    by_bits, by_product = alternate(applied.apply, multiply)
    print(f"masks applied to resnet18: {by_bits:.1f} ms, a bare in-place multiply by float masks {by_product:.1f} ms")
    helps = statistics.median(command("--help") for _ in range(7))
    print(f"compress --help: {helps:.2f} s of CPU (budget 0.3 s)")
    validates = statistics.median(command("validate", "lenet5_agp") for _ in range(3))
    imports = statistics.median(torch_import() for _ in range(3))
    print(f"compress validate: {validates:.2f} s of CPU, import torch {imports:.2f} s (budget: that + 0.3 s)")


if __name__ == "__main__":
    main()
