"""The session in a loop without a trainer: events one by one, errors inside a step, resuming, rewinding, skipping."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from bare import (
    EPOCHS,
    EVENTS,
    EVERYTHING,
    STEPS,
    Calls,
    batches,
    events,
    everything,
    load,
    network,
    open_epoch,
    parameters,
    session,
    train,
    whole_step,
)
from helpers import difference
from loop import is_plus_zero
from torch import Tensor, nn

from compressor.errors import CompressError
from compressor.policies.policy import Context, Memory, Policy
from compressor.session import rng
from compressor.session.session import Session, Settings
from compressor.timing.window import Window


def scaled(ctx: Context) -> None:
    """A policy that asks for half the learning rate."""
    ctx.optimizer.scales["half"] = 0.5


def half_rate() -> Calls:
    return Calls(event="on_minibatch_begin", function=scaled)


# --- events one by one ------------------------------------------------------------------------------------------------


def test_events_one_by_one_are_the_step() -> None:
    whole = train(session(EVERYTHING, half_rate()))
    assert difference(train(session(EVERYTHING, half_rate()), step=events), whole) is None
    assert difference(train(session(EVERYTHING))["model"], whole["model"])  # the scaled rates did something


ORDER = ("enter", "before_backward", "after_backward", "before_optimizer", "after_optimizer")


def call(it: Session, event: str) -> None:
    if event == "before_backward":
        it.before_backward(torch.zeros(()))
    else:
        getattr(it, event)()


@pytest.mark.parametrize("place", range(1, len(ORDER)))
def test_a_forgotten_event_is_named(place: int) -> None:
    it = session(EVERYTHING, Calls(event="before_backward_pass", function=lambda ctx: None))
    with it.epoch(0):
        for event in ORDER[:place]:
            call(it, event)
        later = ORDER[(place + 1) % len(ORDER)]
        with pytest.raises(CompressError, match=f"{ORDER[place]} (comes next|was not called)"):
            call(it, later)
        it.abandon()


@pytest.mark.parametrize("place", [0, 2, 3, 4])
def test_an_event_that_is_called_twice_is_named(place: int) -> None:
    it = session()
    with it.epoch(0):
        for event in ORDER[: place + 1]:
            call(it, event)
        with pytest.raises(CompressError, match=f"{ORDER[place]} was called where .* comes next"):
            call(it, ORDER[place])
        it.abandon()


def test_an_epoch_cannot_end_within_a_step() -> None:
    it = session()
    said = "the epoch ends within a step: before_backward was not called"
    with pytest.raises(CompressError, match=said), it.epoch(0):
        it.enter()


def test_a_policy_that_needs_the_loss_is_named_where_it_does_not_get_it() -> None:
    it = session("", Calls(event="before_backward_pass", function=lambda ctx: None))
    with it.epoch(0):
        it.enter()
        with pytest.raises(CompressError, match=r"0\.own needs the loss"):
            it.after_backward()
        it.abandon()


def test_where_no_policy_needs_the_loss_it_need_not_be_passed_on() -> None:
    it = session("")
    with it.epoch(0):
        for event in ("enter", "after_backward", "before_optimizer", "after_optimizer"):
            call(it, event)
    assert it.clock.epoch == 1


def test_scaled_rates_hold_for_the_optimizers_step_alone() -> None:
    it = session("", half_rate())
    rates: dict[str, float] = {}
    with it.epoch(0):
        for event in ORDER:
            call(it, event)
            rates[event] = it.optimizer.groups[0]["lr"]
    assert rates == {**dict.fromkeys(ORDER, 0.2), "before_optimizer": 0.1}


# --- errors inside a step ---------------------------------------------------------------------------------------------


class Broken(Exception):
    pass


def fail(*given: Any) -> None:
    raise Broken


def broken_step(it: Session, images: Tensor, labels: Tensor, where: str = "forward") -> None:
    """A step whose forward pass fails after the first layers, or its optimizer, or else what is armed before."""
    optimizer = it.optimizer.optimizer
    step = optimizer.step
    if where == "forward":
        it.model.drop.register_forward_pre_hook(fail)
    if where == "optimizer":
        optimizer.step = fail  # type: ignore[method-assign]
    try:
        whole_step(it, images, labels)
    finally:
        it.model.drop._forward_pre_hooks.clear()
        optimizer.step = step  # type: ignore[method-assign]


def assert_at_rest(it: Session, before: dict[str, Tensor]) -> None:
    """No substitution is in place, every mask is applied, the rates are as they were set."""
    assert difference(parameters(it), before) is None
    assert "forward" not in vars(it.model.fc5)
    keep = it.masks.keep("fc3.weight")
    assert keep is not None
    assert not keep.all()
    assert is_plus_zero(before["fc3.weight"][~keep])
    assert it.data.part.images is None


@pytest.mark.parametrize("event", ["forward", *EVENTS, "optimizer"])
def test_an_error_inside_a_step_leaves_nothing_in_place_and_the_session_goes_on(event: str) -> None:
    # In epoch 1 all gates, masks and dense copies are at work.
    armed = False
    policy = Calls(event=event, function=lambda ctx: fail() if armed else None)
    it = session(EVERYTHING, half_rate(), policy)
    train(it, 1)
    with open_epoch(it, 1) as given:
        whole_step(it, *given[0])
        before, rates = parameters(it), [group["lr"] for group in it.optimizer.groups]
        if event == "on_minibatch_end":  # the optimizer's step is done: it stays
            saved = everything(it)
            twin = load(session(EVERYTHING, half_rate(), policy, seed=5), saved)
            whole_step(twin, *given[1])
            before = parameters(twin)
            rng.restore(saved["state"]["rng"])
        armed = True
        with pytest.raises(Broken):
            broken_step(it, *given[1], where=event)
        armed = False
        assert_at_rest(it, before)
        if event != "on_minibatch_end":
            assert [group["lr"] for group in it.optimizer.groups] == rates
        assert it.clock.step == 1
        for batch in given[1:]:
            whole_step(it, *batch)
        assert difference(parameters(it), before)
    train(it)


def test_an_error_in_a_loop_of_ones_own_is_given_up_by_name() -> None:
    it = session()
    train(it, 1)
    with open_epoch(it, 1) as given:
        whole_step(it, *given[0])
        before = parameters(it)
        it.enter()
        it.model(given[1][0])
        assert difference(parameters(it), before)
        it.abandon()
        assert_at_rest(it, before)
        events(it, *given[1])


@pytest.mark.parametrize("number", [0, 1])
def test_a_substitution_that_fails_half_way_is_taken_away_with_the_others(number: int) -> None:
    it = session(EVERYTHING.replace("[fc1.weight]", "[fc1.weight, fc2.weight]"))
    train(it, 1)
    with open_epoch(it, 1) as given:
        whole_step(it, *given[0])
        before = parameters(it)
        substitution = list(it.substitutions)[number]
        layers = substitution._gated if number == 0 else substitution._layers  # type: ignore[attr-defined]
        if number == 0:
            second = layers["fc2.weight"]
            second.log_alpha, rest = None, second.log_alpha
        else:
            second = layers["fc2.weight"]
            second.masks, rest = {"fc2.weight": second.masks["fc2.weight"]}, second.masks
        with pytest.raises((AttributeError, KeyError)):
            whole_step(it, *given[1])
        assert_at_rest(it, before)
        setattr(second, "masks" if number else "log_alpha", rest)
        whole_step(it, *given[1])
        if number == 1:
            dense, keep = it.network.parameters["fc2.weight"], it.substitutions.values()["fc2.weight"]
            assert (dense[keep == 0] != 0).any()  # what is masked lives on


# --- resuming and rewinding -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adam", [False, True])
def test_a_loop_that_is_resumed_at_any_moment_ends_in_the_same_bits(adam: bool) -> None:
    def made(seed: int = 0) -> Session:
        optimizer = (lambda model: torch.optim.Adam(model.parameters(), 0.02)) if adam else None
        return session(optimizer=optimizer, seed=seed)

    whole, moments = made(), list[dict[str, Any]]()
    end = train(whole, watch=lambda: moments.append(everything(whole)))
    assert len(moments) == EPOCHS * (STEPS + 2)  # also before an epoch's first step, and before it is left
    for moment in moments:
        again = load(made(seed=7), moment)
        assert difference(train(again), end) is None


class Marks(Policy):
    """Notes the beginning and the end of epochs."""

    notes: Any
    window: Window = Window(ending_epoch=100)

    def on_enter(self, ctx: Context, memory: Memory) -> None:
        self.notes.append(("enter", ctx.clock.epoch))

    def on_epoch_begin(self, ctx: Context, memory: Memory) -> None:
        self.notes.append(("begin", ctx.clock.epoch))

    def on_epoch_end(self, ctx: Context, memory: Memory) -> None:
        self.notes.append(("end", ctx.clock.epoch))


@pytest.mark.parametrize("steps", [0, 1, STEPS])
def test_resuming_in_an_epoch_repeats_none_of_its_events(steps: int) -> None:
    first, marks = session("", Marks(notes=[])), Marks(notes=[])
    with first.epoch(0):
        for batch in batches(0)[:steps]:
            whole_step(first, *batch)
        saved = everything(first)
    train(load(session("", marks), saved), 2)
    assert marks.notes == [("end", 0), ("begin", 1), ("end", 1)]


def test_an_epoch_that_an_error_left_goes_on_without_beginning_again() -> None:
    marks = Marks(notes=[])
    it = session("", marks)
    with pytest.raises(Broken), it.epoch(0):
        broken_step(it, *batches(0)[0])
    train(it, 1)
    assert marks.notes == [("enter", 0), ("begin", 0), ("end", 0)]


REPLAYED = {
    "epoch": "{class: MultiStepLR, milestones: [1, 2], gamma: 0.1}",
    "step": "{class: ExponentialLR, gamma: 0.9, args: {interval: step}}",
}


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("interval", REPLAYED)
@pytest.mark.parametrize("to", [0, 1])
def test_a_run_that_is_rewound_replays_data_and_learning_rates_and_nothing_else(
    to: int, interval: str, outside: bool
) -> None:
    """After epoch 3 it goes back to epoch `to`: epochs 4, 5 ... have the data and the rates of `to`, `to` + 1 ..."""
    text = f"""
version: 2
policies:
  - lr_scheduler: {REPLAYED[interval]}
    starting_epoch: 0
    ending_epoch: 3
  - pruner: {{class: SparsityLevelParameterPruner, levels: {{fc3.weight: 0.5}}}}
    epochs: [5]
"""

    def rewind(ctx: Context) -> None:
        if not outside and ctx.clock.epoch == 3:
            ctx.clock.origin = 4 - to

    def made(marks: Marks, seed: int = 0) -> Session:
        return session(text, Calls(event="on_epoch_end", function=rewind), marks, epochs=7, seed=seed)

    marks = Marks(notes=[])
    it = made(marks)
    saved: list[dict[str, Any]] = []

    rates: dict[int, list[float]] = {}

    def step(it: Session, images: Tensor, labels: Tensor) -> None:
        if it.clock.epoch == 5 and it.clock.step == 1:
            saved.append(everything(it))
        with it.step() as step:
            rates.setdefault(it.clock.epoch, []).append(it.optimizer.groups[0]["lr"])
            step.backward(nn.functional.cross_entropy(it.model(images), labels))

    train(it, 4, step)
    if outside:
        it.clock.origin = 4 - to
    train(it, 7, step)
    assert [it.clock.epoch, it.clock.data_epoch] == [7, 3 + to]
    replayed = [epoch for epoch in (4, 5, 6) if epoch - 4 + to < 3]  # behind the rates' window the last one stays
    assert [rates[epoch] for epoch in replayed] == [rates[epoch - 4 + to] for epoch in replayed]
    assert len({rate for epoch in rates.values() for rate in epoch}) > 2
    assert marks.notes == [("enter", 0), *[(what, epoch) for epoch in range(7) for what in ("begin", "end")]]
    assert int((it.network.parameters["fc3.weight"] == 0).sum()) == 32  # in epoch 5 of the run, not of the origin
    again = load(made(Marks(notes=[]), seed=3), saved[0])
    assert again.clock.origin == 4 - to
    assert difference(train(again, 7, step), everything(it)) is None


# --- a step that is left out ------------------------------------------------------------------------------------------

OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "sgd": lambda model: torch.optim.SGD(model.parameters(), 0.2, momentum=0.9, weight_decay=0.1),
    "adam": lambda model: torch.optim.Adam(model.parameters(), 0.02, weight_decay=0.1),
    "adamw": lambda model: torch.optim.AdamW(model.parameters(), 0.02, weight_decay=0.1),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("event", EVENTS[:4])
def test_a_skipped_step_moves_nothing_and_the_next_one_does(
    event: str, optimizer: Callable[[nn.Module], torch.optim.Optimizer]
) -> None:
    def skip(ctx: Context) -> None:
        if ctx.clock.step == 2:
            ctx.optimizer.skip_step()

    policy = Calls(event=event, function=skip)
    it = session("", policy, optimizer=optimizer, settings=Settings(clip_norm=0.1, average_decay=0.5))
    with open_epoch(it) as given:
        for batch in given[:2]:
            whole_step(it, *batch)
        before, state = parameters(it), copy.deepcopy(it.optimizer.optimizer.state_dict())
        averages = everything(it)["state"]["averages"]
        whole_step(it, *given[2])
        assert difference(parameters(it), before) is None
        assert difference(it.optimizer.optimizer.state_dict(), state) is None
        assert all(parameter.grad is None for parameter in it.network.parameters.values())
        assert it.clock.step == 3
        # The averages take the weights as they are after each step of the run, skipped ones too.
        now = everything(it)["state"]["averages"]
        assert (averages["steps"], now["steps"]) == (2, 3)
        for name, weight in before.items():
            assert torch.allclose(now["average"][name], 0.5 * averages["average"][name] + 0.5 * weight, atol=1e-6)
        whole_step(it, *given[3])
        assert all(not torch.equal(weight, before[name]) for name, weight in parameters(it).items())


def test_masks_that_change_in_a_skipped_step_are_applied_to_weights_and_averages() -> None:
    keep = torch.arange(64).reshape(8, 8) % 2 == 0

    def prune(ctx: Context) -> None:
        if ctx.clock.step == 1:
            ctx.masks.set(ctx.key, "fc3.weight", keep)
            ctx.optimizer.skip_step()

    it = session("", Calls(event="before_parameter_optimization", function=prune))
    with open_epoch(it) as given:
        whole_step(it, *given[0])
        before = parameters(it)["fc3.weight"]
        whole_step(it, *given[1])
        weight, average = parameters(it)["fc3.weight"], it.state_dict()["averages"]["average"]["fc3.weight"]
        assert torch.equal(weight[keep], before[keep])
        assert is_plus_zero(weight[~keep])
        assert is_plus_zero(average[~keep])
        assert (average[keep] != 0).all()
        for batch in given[2:]:
            whole_step(it, *batch)


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_what_the_optimizer_remembers_of_some_entries_is_reset(
    optimizer: Callable[[nn.Module], torch.optim.Optimizer],
) -> None:
    it = session("", optimizer=optimizer)
    with open_epoch(it) as given:
        whole_step(it, *given[0])
        before = copy.deepcopy(dict(it.optimizer.state_of("fc3.weight")))
        other = copy.deepcopy(dict(it.optimizer.state_of("fc2.weight")))
        parameter = it.network.parameters["fc3.weight"]
        assert parameter.grad is not None
        index = parameter.grad.abs() > parameter.grad.abs().median()
        it.optimizer.reset("fc3.weight", index)
        after = it.optimizer.state_of("fc3.weight")
        slots = [name for name, value in before.items() if isinstance(value, Tensor) and value.shape == (8, 8)]
        assert len(slots) == (1 if "momentum_buffer" in before else 2)
        for name, value in before.items():
            if name in slots:
                assert (value[index] != 0).all()
                assert torch.equal(after[name], value.masked_fill(index, 0.0))
            else:
                assert torch.as_tensor(after[name]) == torch.as_tensor(value)  # how many steps there were
        assert difference(dict(it.optimizer.state_of("fc2.weight")), other) is None
        for batch in given[1:]:
            whole_step(it, *batch)


def test_before_the_first_step_there_is_nothing_to_reset() -> None:
    it = session("")
    it.optimizer.reset("fc3.weight", torch.ones(8, 8, dtype=torch.bool))
    assert dict(it.optimizer.state_of("fc3.weight")) == {}


# --- what is shipped --------------------------------------------------------------------------------------------------


def test_the_record_of_what_is_shipped_has_what_training_goes_on_from() -> None:
    it = session()
    train(it, 1)
    with open_epoch(it, 1) as given:
        whole_step(it, *given[0])
        live = everything(it)["model"]
        it.records.figures["x"] = {"y": 1.0}
        it.records.thinnings.append({"when": "never"})
        with it.as_shipped() as record:
            shipped = everything(it)["model"]
            changed = {name for name in live if not torch.equal(live[name], shipped[name])}
            assert {"fc1.weight", "fc2.weight", "fc3.weight", "fc4.weight", "bn.running_mean"} <= changed
            assert changed <= set(record.live)
            assert all(torch.equal(value, live[name]) for name, value in record.live.items() if name in live)
            assert record.figures["x"] == {"y": 1.0}
            assert list(record.thinnings) == [{"when": "never"}]
            it.records.figures["x"] = {"y": 2.0}
            with it.as_shipped() as inner:
                assert difference(everything(it)["model"], shipped) is None
                assert dict(inner.live) == dict(record.live)
                assert inner.figures["x"] == {"y": 2.0}
            assert difference(everything(it)["model"], shipped) is None
        assert difference(everything(it)["model"], live) is None


@pytest.mark.parametrize("settings", [Settings(), Settings(average_decay=0.8)])
def test_training_does_not_notice_that_something_was_shipped(settings: Settings) -> None:
    plain = train(session(settings=settings))
    it = session(settings=settings)

    def ship() -> None:
        with it.as_shipped(), it.as_shipped():
            it.model.eval()(batches(9)[0][0])
            it.model.train()

    assert difference(train(it, watch=ship), plain) is None


def test_what_a_policy_looks_at_inside_is_folded_once() -> None:
    found: list[tuple[Tensor, Tensor]] = []

    def look(ctx: Context) -> None:
        with ctx.as_shipped():
            once = ctx.parameters["fc1.weight"].detach().clone()
            with ctx.as_shipped():
                found.append((once, ctx.parameters["fc1.weight"].detach().clone()))

    it = session(EVERYTHING, Calls(event="on_minibatch_end", function=look), settings=Settings())
    train(it, 2)
    with it.as_shipped():
        shipped = parameters(it)["fc1.weight"]
    assert all(torch.equal(*pair) for pair in found)
    assert torch.equal(found[-1][0], shipped)
    assert not torch.equal(shipped, parameters(it)["fc1.weight"])


def test_loaded_rates_are_those_in_force() -> None:
    it = session("")
    fc1 = it.network.parameters["fc1.weight"]
    assert it.optimizer.proximal_step(fc1) == pytest.approx(0.2 / (1 - 0.9))
    saved = everything(it)
    saved["state"]["optimizer"]["param_groups"][0]["lr"] = 0.05
    load(it, saved)
    assert it.optimizer.proximal_step(fc1) == pytest.approx(0.05 / (1 - 0.9))


def test_the_network_of_these_tests_is_what_they_say() -> None:
    assert sum(1 for _ in network().parameters()) == 12
