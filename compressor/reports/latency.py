"""The time of a forward pass, measured: networks in turns, so that a busy machine slows all of them."""

import contextlib
import logging
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from compressor.evaluating import evaluating
from compressor.importing import late

BATCH = 16
"""The larger of the two batch sizes."""

Pass = Callable[[torch.Tensor], object]
"""A forward pass: a network in eval mode, or whatever else takes images."""

_CPU = torch.device("cpu")

_SECONDS, _ROUNDS_AT_LEAST, _ROUNDS_AT_MOST, _ONE = 0.3, 9, 200, 0.001
"""For one batch size: when to stop, and about how long one measurement takes."""


class Timing(BaseModel):
    """The time of one forward pass of a batch, in milliseconds: the median over the rounds, and the interquartile range
    of the rounds. For a masked network no speed is claimed.
    """

    model_config = ConfigDict(frozen=True)

    stage: str
    batch: int
    milliseconds: float
    interquartile_range: float
    times_as_fast: float | None


class Latency(BaseModel):
    """All that was measured: it differs from call to call. A warning for each gain (or loss) within the spread."""

    model_config = ConfigDict(frozen=True)

    device: str
    threads: int
    rounds: dict[int, int]
    """By batch size."""
    timings: list[Timing]
    warnings: list[str]


def latency(networks: Mapping[str, nn.Module], shape: tuple[int, int, int]) -> Latency:
    """Return the times of the stages of one network (`dense` first) for one image of `shape` (C, H, W) and for `BATCH`
    images.
    """
    with contextlib.ExitStack() as modes:
        for network in networks.values():
            modes.enter_context(evaluating(network))
        return in_turns(networks, shape, (1, BATCH), next(next(iter(networks.values())).parameters()).device)


@torch.no_grad()
def in_turns(
    passes: Mapping[str, Pass], shape: tuple[int, int, int], batches: Sequence[int], device: torch.device = _CPU
) -> Latency:
    """Return the times of several forward passes, compared with the first of them, for each number of images of `shape`
    (C, H, W) on the device.
    """
    timings, warnings, rounds = list[Timing](), list[str](), dict[int, int]()
    for batch in batches:
        taken = _taken(passes, torch.rand(batch, *shape, device=device))
        rounds[batch] = len(next(iter(taken.values())))
        timings += timings_of(taken, batch)
        warnings += warnings_of(timings[-len(taken) :])
    return Latency(
        device=device.type, threads=torch.get_num_threads(), rounds=rounds, timings=timings, warnings=warnings
    )


def _taken(passes: Mapping[str, Pass], images: torch.Tensor) -> dict[str, list[float]]:
    """Return milliseconds of each forward pass, one number a round."""
    # Importing it imports torch's compiler of extensions, which takes a while, and speaks of CUDA where there is none.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    benchmark = late("torch.utils.benchmark")
    threads = torch.get_num_threads()
    timers = {
        name: benchmark.Timer("forward(images)", globals={"forward": forward, "images": images}, num_threads=threads)
        for name, forward in passes.items()
    }
    # `timeit` runs the network twice before the clock starts: what ran before has left other data in the caches.
    fastest = min(timer.timeit(1).mean for _ in range(3) for timer in timers.values())
    calls = max(1, min(100, round(_ONE / fastest)))
    taken: dict[str, list[float]] = {name: [] for name in passes}
    begun = time.perf_counter()
    for number in range(_ROUNDS_AT_MOST):
        for name, timer in timers.items():
            taken[name].append(1000 * timer.timeit(calls).mean)
        if number + 1 >= _ROUNDS_AT_LEAST and time.perf_counter() - begun > _SECONDS:
            break
    return taken


def timings_of(taken: Mapping[str, Sequence[float]], batch: int) -> list[Timing]:
    """Return median and interquartile range of the rounds of each stage, the first of which is the dense network."""
    found: list[Timing] = []
    for name, times in taken.items():
        low, median, high = statistics.quantiles(times, n=4, method="inclusive")
        gain = None if name == "masked" else (found[0].milliseconds if found else median) / median
        found.append(
            Timing(stage=name, batch=batch, milliseconds=median, interquartile_range=high - low, times_as_fast=gain)
        )
    return found


def warnings_of(timings: Sequence[Timing]) -> list[str]:
    """Return a line for each stage whose difference to the first one is smaller than their interquartile ranges
    together.
    """
    dense, found = timings[0], []
    for timing in timings[1:]:
        effect = abs(timing.milliseconds - dense.milliseconds)
        spread = timing.interquartile_range + dense.interquartile_range
        if timing.times_as_fast is not None and spread > effect:
            found.append(
                f"{timing.stage}, batch {timing.batch}: the spread of the times ({spread:.3g} ms) is larger than the"
                f" difference to {dense.stage} ({effect:.3g} ms): nothing can be said of its speed here"
            )
    return found
