"""Single numbers that are drawn."""

import random

import pytest
import torch
from torch import Tensor

from compressor.importing import random_state_kept
from compressor.tracing import draw, python_drew, seed

SMALLEST, LARGEST = 0.0, 1 - 2.0**-23


@pytest.mark.parametrize(("name", "args", "low", "high"), [
    ("rand", ([1],), SMALLEST, LARGEST),
    ("uniform", (torch.zeros(1),), 0, 1),
    ("uniform", (torch.zeros(1), 2.0), 2, 1),
    ("uniform", (torch.zeros(1), -1.0, 3.0), -1, 3),
    ("bernoulli", (torch.tensor(0.5),), 0, 1),
    ("randint", (4, [1]), 7, 7),
])  # fmt: skip
def test_a_uniform_number_is_the_least_or_the_largest_and_another_is_as_drawn(
    name: str, args: tuple[object, ...], low: float, high: float
) -> None:
    def drawn(top: bool) -> Tensor:
        result = torch.tensor([7.0])
        draw(name, args, {}, result, high=top)
        return result

    assert (drawn(False).item(), drawn(True).item()) == (low, high)


def test_what_python_and_numpy_draw_is_noticed() -> None:
    numpy = pytest.importorskip("numpy")
    with random_state_kept():
        for take in (random.random, numpy.random.rand, lambda: random.choice([1, 2])):
            seed(1)
            assert not python_drew(1)
            take()
            assert python_drew(1)
        seed(1)
        torch.rand(3)
        assert not python_drew(1)
