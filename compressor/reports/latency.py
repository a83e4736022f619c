"""The time for one image, measured: networks in turns, so that a busy machine slows all of them."""

import statistics
import time
from collections.abc import Mapping

import torch
from torch import nn

from compressor.evaluating import evaluating

_SECONDS, _ROUNDS_AT_LEAST, _ROUNDS_AT_MOST = 0.6, 7, 200


@torch.no_grad()
def latencies(networks: Mapping[str, nn.Module], shape: tuple[int, int, int]) -> tuple[dict[str, float], int]:
    """Return milliseconds for one image of `shape` (C, H, W), the median over interleaved rounds; and the number of
    rounds.
    """
    taken: dict[str, list[float]] = {name: [] for name in networks}
    device = next(next(iter(networks.values())).parameters()).device
    image = torch.rand(1, *shape, device=device)
    begun = time.perf_counter()
    for number in range(_ROUNDS_AT_MOST + 2):
        for name, network in networks.items():
            with evaluating(network):
                # Once before the clock starts: what ran before it has left other weights and code in the caches.
                for _ in range(2):
                    if device.type == "cuda":
                        torch.cuda.synchronize(device)
                    start = time.perf_counter()
                    network(image)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                seconds = time.perf_counter() - start
            if number > 1:  # the first two warm up
                taken[name].append(1000 * seconds)
        if number > _ROUNDS_AT_LEAST and time.perf_counter() - begun > _SECONDS:
            break
    return {name: statistics.median(times) for name, times in taken.items()}, len(next(iter(taken.values())))
