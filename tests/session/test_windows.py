"""The entry, the last step and the exit of each form of window, in their turn; no resumed run repeats or loses one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
from bare import EPOCHS, STEPS, everything, load, session, train

from compressor.policies.policy import Context, Memory, Policy
from compressor.timing import Window

Note = tuple[Any, ...]
"""The policy's place in the file, the event, epoch, step, the last epoch that was validated, whether the run ends."""


class Notes(Policy):
    """Notes its events."""

    notes: Any
    window: Window = Window()

    def _note(self, ctx: Context, event: str, *more: bool) -> None:
        validated = ctx.data.validation.get("loss")  # 1 in epoch 0, 2 in epoch 1, and so on
        epoch = None if validated is None else int(validated) - 1
        place = int(ctx.key.partition(".")[0])
        self.notes.append((place, event, ctx.clock.epoch, ctx.clock.step, epoch, *more))

    def on_enter(self, ctx: Context, memory: Memory) -> None:
        self._note(ctx, "enter")

    def before_epoch(self, ctx: Context, memory: Memory) -> None:
        self._note(ctx, "before_epoch")

    def on_epoch_begin(self, ctx: Context, memory: Memory) -> None:
        self._note(ctx, "on_epoch_begin")

    def on_minibatch_begin(self, ctx: Context, memory: Memory) -> None:
        self._note(ctx, "on_minibatch_begin")

    def on_minibatch_end(self, ctx: Context, memory: Memory) -> None:
        self._note(ctx, "on_minibatch_end")

    def on_last_step(self, ctx: Context, memory: Memory) -> None:
        self._note(ctx, "last_step")

    def on_epoch_end(self, ctx: Context, memory: Memory) -> None:
        self._note(ctx, "on_epoch_end")

    def on_exit(self, ctx: Context, memory: Memory, run_ends: bool) -> None:
        self._note(ctx, "exit", run_ends)


class Early(Notes):
    """Enters before the policies act on the epoch."""

    enters = "before_epoch"


class Late(Notes):
    """Enters at the first step."""

    enters = "on_minibatch_begin"


@dataclass(frozen=True, eq=False)
class Case:
    """A window, when it is open by hand, and whether nothing of the run is left behind it."""

    window: Window
    times: Sequence[int]
    run_ends: bool

    @property
    def by_step(self) -> bool:
        return self.window.unit == "step"


# Four epochs of four steps.
CASES = {
    "the whole run": Case(Window(ending_epoch=4), [0, 1, 2, 3], True),
    "before the end": Case(Window(starting_epoch=1, ending_epoch=3), [1, 2], False),
    "to the end": Case(Window(starting_epoch=2, ending_epoch=4), [2, 3], True),
    "one epoch": Case(Window(starting_epoch=1, ending_epoch=2), [1], False),
    "every second epoch, before the end": Case(Window(ending_epoch=4, frequency=2), [0, 2], False),
    "every second epoch, to the end": Case(Window(starting_epoch=1, ending_epoch=4, frequency=2), [1, 3], True),
    "a list, before the end": Case(Window(epochs=[2, 0, 2]), [0, 2], False),
    "a list, to the end": Case(Window(epochs=[3, 1]), [1, 3], True),
    "steps": Case(Window(starting_step=2, ending_step=7), [2, 3, 4, 5, 6], False),
    "steps to the end": Case(Window(starting_step=13, ending_step=16), [13, 14, 15], True),
    "steps to the end of an epoch": Case(Window(starting_step=4, ending_step=8), [4, 5, 6, 7], False),
    "one step": Case(Window(starting_step=3, ending_step=4), [3], False),
    "every fourth step": Case(Window(starting_step=1, ending_step=14, step_frequency=4), [1, 5, 9, 13], False),
    "every fifth step, to the end": Case(
        Window(starting_step=0, ending_step=16, step_frequency=5), [0, 5, 10, 15], True
    ),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def epochs(case: Case, enters: str) -> Iterator[Note]:
    """What a policy notes whose window is in epochs."""
    first, last = case.times[0], case.times[-1]
    for epoch in case.times:
        before = epoch - 1 if epoch > 0 else None
        for event in ("before_epoch", "on_epoch_begin"):
            if epoch == first and event == enters:
                yield "enter", epoch, 0, before
            yield event, epoch, 0, before
        for step in range(STEPS):
            if (epoch, step, enters) == (first, 0, "on_minibatch_begin"):
                yield "enter", epoch, step, before
            yield "on_minibatch_begin", epoch, step, before
            yield "on_minibatch_end", epoch, step, before
        if epoch == last:
            yield "last_step", epoch, STEPS - 1, before
        yield "on_epoch_end", epoch, STEPS, epoch
        if epoch == last:
            yield "exit", epoch, STEPS, epoch, case.run_ends


def steps(case: Case) -> Iterator[Note]:
    """What a policy notes whose window is in steps; where it enters is not its own choice then."""
    for time in case.times:
        epoch, step = divmod(time, STEPS)
        before = epoch - 1 if epoch > 0 else None
        if time == case.times[0]:
            yield "enter", epoch, step, before
        yield "on_minibatch_begin", epoch, step, before
        yield "on_minibatch_end", epoch, step, before
        if time == case.times[-1]:
            yield "last_step", epoch, step, before
            yield "exit", epoch, step, before, case.run_ends


KINDS = (Notes, Notes, Early, Late)
"""Of each window there are so many policies, one after the other in the file."""


def policies(notes: list[Note]) -> list[Notes]:
    """Those of all windows, in one file."""
    return [kind(notes=notes, window=case.window) for case in CASES.values() for kind in KINDS]


@cache
def whole() -> tuple[list[Note], list[tuple[int, Any, dict[str, Any]]]]:
    """All notes of a run, and each of its moments: how much was noted, what was validated, what there was."""
    notes, moments = list[Note](), list[tuple[int, Any, dict[str, Any]]]()
    it = session("", *policies(notes))
    train(it, watch=lambda: moments.append((len(notes), it.data.validation, everything(it))))
    return notes, moments


def places(case: Case) -> range:
    """Of its policies in the file."""
    first = len(KINDS) * list(CASES.values()).index(case)
    return range(first, first + len(KINDS))


@every_case
def test_a_window_is_entered_and_left_once_each_in_its_place(case: Case) -> None:
    notes, _ = whole()
    for place, kind in zip(places(case), KINDS, strict=True):
        expected = steps(case) if case.by_step else epochs(case, kind.enters)
        assert [note[1:] for note in notes if note[0] == place] == list(expected)


@every_case
def test_each_policy_enters_and_leaves_in_its_own_turn(case: Case) -> None:
    # Never all at once: one acts on what the one before it in the file has left.
    entry = ["enter", "on_minibatch_begin" if case.by_step else "on_epoch_begin"]
    by_epoch = (["on_minibatch_end", "last_step"], ["on_epoch_end", "exit"])
    leaving = (["on_minibatch_end", "last_step", "exit"],) if case.by_step else by_epoch
    one, other, *_ = places(case)
    notes = [note[:2] for note in whole()[0] if note[0] in (one, other)]
    for turn in (entry, *leaving):
        both = [(place, event) for place in (one, other) for event in turn]
        assert sum(notes[start : start + len(both)] == both for start in range(len(notes))) == 1


def test_a_run_resumed_at_any_moment_repeats_no_event_and_loses_none() -> None:
    notes, moments = whole()
    assert len(moments) == EPOCHS * (STEPS + 2)
    for noted, validation, moment in moments:
        after: list[Note] = []
        again = load(session("", *policies(after), seed=7), moment)
        again.data.validation = validation  # the loop's own, which its checkpoints have
        train(again)
        assert after == notes[noted:]
