"""The particle filter of strided pruning, over functions of offsets whose optimum is known."""

from typing import Any

import pytest
import torch
from torch import Tensor

from compressor.policies.strided import Found, search


def sought(fitness: Any, strides: list[int], particles: int, rounds: int, redraw: float = 0.1, seed: int = 0) -> Found:
    draws = torch.Generator().manual_seed(seed)
    return search(fitness, torch.tensor(strides), particles, rounds, redraw, draws)


def test_the_search_keeps_the_best_it_has_ever_seen_and_weighs_nothing_twice() -> None:
    seen: dict[tuple[int, ...], float] = {}

    def fitness(offsets: Tensor) -> float:
        key = tuple(offsets.tolist())
        assert key not in seen
        seen[key] = torch.rand((), generator=torch.Generator().manual_seed(hash(key) % 1000)).item()
        return seen[key]

    found = sought(fitness, [2, 3, 4, 5], particles=10, rounds=6)
    assert found.best == max(seen.values()) == seen[tuple(found.offsets.tolist())]
    assert found.evaluated == len(seen)
    first = list(seen.values())[:10]
    assert (found.first_best, found.first_mean) == (max(first), pytest.approx(sum(first) / 10))
    assert all(max(key[i] for key in seen) == stride - 1 for i, stride in enumerate([2, 3, 4, 5]))


def test_the_first_generation_is_even_and_no_round_changes_it_without_redraws() -> None:
    seen: list[list[int]] = []
    sought(lambda offsets: (seen.append(offsets.tolist()), 0.5)[1], [3] + [1000] * 3, 3000, rounds=0)
    counts = [sum(one[0] == offset for one in seen) for offset in range(3)]
    assert sum(counts) == 3000
    assert all(abs(count - 1000) < 100 for count in counts)  # a standard deviation is 26
    seen.clear()
    found = sought(lambda offsets: (seen.append(offsets.tolist()), 0.5)[1], [3] + [1000] * 3, 20, rounds=5, redraw=0.0)
    assert found.evaluated == len(seen) == 20


def test_particles_are_drawn_in_proportion_to_their_weights() -> None:
    # Three quarters of the parents have offset 0 in the first place; half of their places are drawn again, evenly.
    seen: list[list[int]] = []

    def fitness(offsets: Tensor) -> float:
        seen.append(offsets.tolist())
        return 0.75 if offsets[0] == 0 else 0.25

    sought(fitness, [2] + [1000] * 6, particles=4000, rounds=1, redraw=0.5)
    second = seen[4000:]
    assert len(second) > 3800
    assert sum(one[0] == 0 for one in second) / len(second) == pytest.approx(0.75 / 2 + 0.5 / 2, abs=0.04)


def test_where_every_particle_is_wrong_they_are_drawn_evenly() -> None:
    found = sought(lambda offsets: 0.0, [2, 2], particles=4, rounds=3)
    assert found.best == 0.0
    assert len(found.offsets) == 2


def test_good_offsets_gather_over_the_rounds() -> None:
    def matches(offsets: Tensor) -> float:
        return float((offsets == 1).float().mean())

    means = [sought(matches, [3] * 24, particles=20, rounds=rounds, seed=1).best for rounds in (0, 10, 60)]
    assert means[0] < means[1] < means[2]
    assert means[2] > 0.85  # by chance alone 1200 particles reach 0.7
