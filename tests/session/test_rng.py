"""The global random states are captured and continued, all of them."""

import io
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch

from compressor.session import rng

DRAWS: dict[str, Callable[[], float]] = {
    "python": random.random,
    "python, the second of two normal draws": lambda: random.gauss(0, 1),
    "numpy": lambda: float(np.random.random()),
    "numpy, the second of two normal draws": lambda: float(np.random.standard_normal()),
    "torch": lambda: float(torch.rand(())),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_a_restored_generator_goes_on_with_the_same_numbers(draw: Callable[[], float]) -> None:
    rng.seed_all(3)
    draw()  # of two normal numbers the second is kept for later
    file = io.BytesIO()
    torch.save(rng.capture(), file)
    expected = [draw() for _ in range(3)]
    rng.seed_all(4)
    other = [draw() for _ in range(3)]
    rng.restore(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    assert [draw() for _ in range(3)] == expected
    assert other != expected


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_a_seed_decides_the_numbers(draw: Callable[[], float]) -> None:
    def drawn(seed: int) -> list[float]:
        rng.seed_all(seed)
        return [draw() for _ in range(3)]

    assert drawn(5) == drawn(5)
    assert drawn(5) != drawn(6)
    assert drawn(2**31 - 1) == drawn(2**31 - 1)


def test_capturing_draws_nothing() -> None:
    def drawn() -> list[float]:
        rng.seed_all(7)
        return [draw() for draw in DRAWS.values()]

    plain = drawn()
    rng.seed_all(7)
    assert [(rng.capture(), draw())[1] for draw in DRAWS.values()] == plain


def test_of_cuda_the_run_s_own_device_is_captured_and_restored_on_the_one_it_has_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    states = {0: torch.tensor([10]), 1: torch.tensor([11])}
    put: dict[int, int] = {}
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[device.index])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: put.update({device.index: int(state)}))
    state = rng.capture(torch.device("cuda:1"))
    rng.restore(state, torch.device("cuda:0"))
    assert put == {0: 11}
    rng.restore({**state, "cuda": list(states.values())}, torch.device("cuda:1"))  # an older checkpoint: all devices
    assert put == {0: 11, 1: 10}
    rng.restore(state)  # the run goes on without CUDA
    assert put == {0: 11, 1: 10}


def test_a_run_without_cuda_does_not_ask_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: pytest.fail("a context on every device"))
    assert rng.capture()["cuda"] == []
