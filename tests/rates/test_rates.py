"""Rates as components: what they give at a time, what they say of it before a run, and what they refuse."""

from typing import Any

import pytest
import torch
from torch import Tensor

from compressor.rates import Rate, SparsityGoal, State, ThresholdGoal
from compressor.rates.agp import agp
from compressor.rates.baidu import baidu
from compressor.schedule.registry import components
from compressor.timing.window import Window

WINDOW = Window(starting_epoch=2, ending_epoch=8, frequency=2)
"""Fires at 2, 4, 6."""

A, B = torch.tensor([1.0, -1, 1, -1]), torch.tensor([3.0, -3, 3, -3])
"""Of deviation sqrt(4 / 3) and sqrt(36 / 3); together sqrt(40 / 7)."""


def rate(name: str, **arguments: Any) -> Rate:
    found = components("rates")[name].model_validate(arguments)
    assert isinstance(found, Rate)
    return found


def state(together: tuple[str, ...] = (), memory: dict[str, Any] | None = None, **weights: Tensor) -> State:
    found = weights or {"a": A, "b": B}
    return State(list(found), found, memory={} if memory is None else memory, together=together)


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (rate("sparsity", sparsity=0.4), [0.4, 0.4, 0.4]),
        (rate("agp", initial_sparsity=0.1, final_sparsity=0.9), [0.1, 0.8, 0.9]),  # .9 - .8 / 8
        (rate("agp", final_sparsity=0.8), [0, 0.7, 0.8]),
        (rate("events", sparsity=0.6), [0.2, 0.4, 0.6]),
    ],
)
def test_a_sparsity_by_time_is_the_same_before_a_run_and_in_it(one: Rate, expected: list[float]) -> None:
    for time, sparsity in zip((2, 4, 6), expected, strict=True):
        before, now = one.foresee(WINDOW, time), one.goal(WINDOW, time, state())
        assert isinstance(before, SparsityGoal)
        assert isinstance(now, SparsityGoal)
        assert before.sparsity == now.sparsity == pytest.approx(sparsity)
        assert one.threshold(WINDOW, time) is None
    assert one.unknown() is None
    assert not one.by_threshold


def test_agp_is_the_function() -> None:
    found = [rate("agp", initial_sparsity=0.2, final_sparsity=0.7).foresee(WINDOW, time) for time in range(8)]
    assert [share and share.sparsity for share in found] == [agp(0.2, 0.7, WINDOW, time) for time in range(8)]


def test_equal_events_say_how_many_structures_that_is() -> None:
    one = rate("events", sparsity=0.35)
    counts = []
    for time in (2, 4, 6):
        share = one.foresee(WINDOW, time)
        assert share is not None
        assert share.count is not None
        counts.append(share.count(20))
    assert counts == [2, 4, 7]  # 7 of 20 in three events
    assert one.final


@pytest.mark.parametrize(
    ("one", "expected", "said"),
    [
        (rate("threshold", value=0.25), {"a": 0.25, "b": 0.25}, "0.25"),
        (rate("std", factor=0.5), {"a": (4 / 3) ** 0.5 / 2, "b": 12**0.5 / 2}, "0.5 std"),
        (rate("survivors_std", factor=2), {"a": 2 * (4 / 3) ** 0.5, "b": 2 * 12**0.5}, "2 std of the non-zero weights"),
    ],
)
def test_a_threshold_is_one_for_each_weight(one: Rate, expected: dict[str, float], said: str) -> None:
    found = one.goal(WINDOW, 4, state())
    assert isinstance(found, ThresholdGoal)
    assert found.of == pytest.approx(expected)
    assert one.foresee(WINDOW, 4) is None
    assert one.threshold(WINDOW, 4) == said
    assert "depends on the values" in str(one.unknown())


def test_baidu_s_threshold_rises_as_the_function_does() -> None:
    one = rate("baidu", q=0.2, ramp_epoch_offset=2, ramp_slope_mult=3)
    for time in (2, 4, 6):
        found = one.goal(WINDOW, time, state())
        assert isinstance(found, ThresholdGoal)
        expected = baidu(0.2, 2, 3, WINDOW, time)
        assert found.of == {"a": expected, "b": expected}
        assert one.threshold(WINDOW, time) == f"{expected:.5g}"


def test_a_deviation_is_taken_once_and_that_of_the_survivors_each_time() -> None:
    memory: dict[str, Any] = {}
    once, each = rate("std", factor=1), rate("survivors_std", factor=1)
    once.goal(WINDOW, 2, state(memory=memory))
    assert set(memory) == {"a", "b"}
    later = state(memory=memory, a=A * 0.5, b=torch.tensor([2.0, -2, 0, 0]))
    found, again = once.goal(WINDOW, 4, later), each.goal(WINDOW, 4, later)
    assert isinstance(found, ThresholdGoal)
    assert isinstance(again, ThresholdGoal)
    assert found.of == pytest.approx({"a": (4 / 3) ** 0.5, "b": 12**0.5})
    assert again.of == pytest.approx({"a": (1 / 3) ** 0.5, "b": 8**0.5})


def test_a_deviation_of_all_together_is_the_same_for_each() -> None:
    memory: dict[str, Any] = {}
    found = rate("std", factor=1).goal(WINDOW, 2, state(("a", "b"), memory))
    assert isinstance(found, ThresholdGoal)
    assert found.of == pytest.approx({"a": (40 / 7) ** 0.5, "b": (40 / 7) ** 0.5})
    # Of one of them alone, later: what was measured together.
    later = rate("std", factor=2).goal(WINDOW, 4, state(("a", "b"), memory, b=B))
    assert isinstance(later, ThresholdGoal)
    assert later.of == pytest.approx({"b": 2 * (40 / 7) ** 0.5})


@pytest.mark.parametrize("survivors", [[], [2.0]])
def test_of_fewer_than_two_survivors_there_is_no_deviation(survivors: list[float]) -> None:
    found = rate("survivors_std", factor=5).goal(WINDOW, 2, state(a=torch.tensor([*survivors, 0.0, 0.0])))
    assert isinstance(found, ThresholdGoal)
    assert found.of == {"a": 0.0}


def test_a_random_share_is_drawn_evenly_and_its_least_is_sure() -> None:
    one, stream = rate("random", between=[0.2, 0.6]), torch.Generator().manual_seed(3)
    asked = State(["a"], {"a": A}, stream=stream)
    before = torch.random.get_rng_state()
    drawn = torch.tensor([getattr(one.goal(WINDOW, 2, asked), "sparsity", -1.0) for _ in range(400)])
    assert torch.equal(torch.random.get_rng_state(), before)  # from the stream alone
    assert 0.2 <= float(drawn.min()) < 0.21
    assert 0.59 < float(drawn.max()) <= 0.6
    assert float(drawn.mean()) == pytest.approx(0.4, abs=4 * (0.4**2 / 12 / 400) ** 0.5)
    sure = one.foresee(WINDOW, 2)
    assert sure is not None
    assert sure.sparsity == 0.2
    assert one.unknown() == "its sparsity is drawn between 0.2 and 0.6"


@pytest.mark.parametrize(("initial", "now"), [(None, 0.8), (0.0, 0.7)])
def test_each_by_itself_draws_how_many_and_nothing_is_sure(initial: float | None, now: float) -> None:
    one = rate("bernoulli", probability=0.8, **({} if initial is None else {"initial": initial}))
    share = one.goal(WINDOW, 4, State(["a"], {"a": A}, stream=torch.Generator().manual_seed(0)))
    assert isinstance(share, SparsityGoal)
    assert share.count is not None
    counts = torch.tensor([share.count(10) for _ in range(400)]).double()
    assert float(counts.mean()) == pytest.approx(10 * now, abs=4 * (10 * now * (1 - now) / 400) ** 0.5)
    assert one.foresee(WINDOW, 4) is None
    assert one.unknown() == "each is pruned by chance"
    assert one.threshold(WINDOW, 4) == f"each with probability {now:g}"
    assert one.scale(WINDOW, 4) == pytest.approx(1 / (1 - now))


def test_a_rate_of_one_s_own_that_looks_at_the_weights_is_unknown_before_a_run() -> None:
    class Halves(Rate):
        """Half of what is left."""

        def goal(self, window: Window, time: int, state: State) -> SparsityGoal:
            left = torch.cat([state.weights[name].flatten() for name in state.names]) != 0
            return SparsityGoal(1 - 0.5 * float(left.double().mean()))

    found = Halves().goal(WINDOW, 2, state(a=torch.tensor([1.0, 1, 0, 0])))
    assert found.sparsity == 0.75
    assert Halves().foresee(WINDOW, 2) is None
    assert "depends on the weights in the run" in str(Halves().unknown())
    with pytest.raises(TypeError, match="has no goal"):
        Rate().goal(WINDOW, 2, state())


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("sparsity", {"sparsity": 1.1}),
        ("agp", {}),
        ("agp", {"final_sparsity": -0.1}),
        ("events", {"sparsity": float("nan")}),
        ("random", {"between": [0.6, 0.2]}),
        ("random", {"between": [0.2]}),
        ("bernoulli", {"probability": 2.0}),
        ("threshold", {"value": -1.0}),
        ("std", {"factor": -1.0}),
        ("survivors_std", {}),
        ("baidu", {"q": 1.0, "ramp_epoch_offset": -1, "ramp_slope_mult": 1.0}),
    ],
)
def test_what_is_no_share_or_threshold_is_refused(name: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        rate(name, **arguments)
