"""What all benchmarks share: variants that take turns, ratios, the load of other processes, one measured figure."""

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Step = Callable[[], object]
QUIET = 0.05
"""Cores that other processes may use while something is measured."""


@dataclass(frozen=True)
class Figure:
    """One measured figure of a benchmark.

    `budget`: what the project allows itself, at most, or `at_least`; None: the figure is shown for comparison. `again`:
    the ratio of a variant to itself, which shows the noise; None where the figure is no ratio.
    """

    what: str
    value: float
    unit: str = "x"
    budget: float | None = None
    at_least: bool = False
    again: float | None = None
    note: str = ""


def take_turns(
    variants: Mapping[str, Step],
    blocks: int,
    steps: int = 1,
    clock: Callable[[], float] = time.process_time,
    *,
    warm: bool = False,
) -> dict[str, list[float]]:
    """Return the seconds of a call of each variant, one number a block; their order rotates from block to block.

    Every variant is called once before; `warm`: before each block, too, which brings its weights into the caches.
    """
    for step in variants.values():
        step()
    names = list(variants)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for block in range(blocks):
        turn = block % len(names)
        for name in names[turn:] + names[:turn]:
            if warm:
                variants[name]()
            began = clock()
            for _ in range(steps):
                variants[name]()
            taken[name].append((clock() - began) / steps)
    return taken


def ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """Return the median over the blocks of the paired ratios."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def milliseconds(taken: Sequence[float]) -> float:
    """Return the median in milliseconds."""
    return 1000 * statistics.median(taken)


class Load:
    """How many cores other processes use, from the time that it is made or read on; None where the system does not
    tell.
    """

    def __init__(self) -> None:
        self._before = _busy()

    def others(self) -> float | None:
        """Return the cores that other processes used since the last call."""
        before, self._before = self._before, _busy()
        now = self._before
        if before is None or now is None or now[2] <= before[2]:
            return None
        spent = (now[0] - before[0]) - (now[1] - before[1])
        return max(spent, 0.0) / (now[2] - before[2])


def _busy() -> tuple[float, float, float] | None:
    """Return the CPU seconds of the machine, and of this process with the children that have ended, and the time."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            ticks = [int(word) for word in file.readline().split()[1:9]]
    except (OSError, ValueError):
        return None
    user, nice, system, _, _, irq, softirq, steal = ticks
    own = os.times()
    busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return busy, own.user + own.system + own.children_user + own.children_system, time.monotonic()
