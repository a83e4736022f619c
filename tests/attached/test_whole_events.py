"""An event happens completely or not at all: an error or an interrupt inside it leaves everything as it was before."""

import copy
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
import torch
from helpers import difference
from own_loop import STEPS, attached, batches, by_blocks, by_events, loss_of, train, weights
from torch import Tensor

from compressor.attached import AttachedSession
from compressor.errors import CompressError
from compressor.policies.policy import BoundPolicy, Context, Memory, Policy
from compressor.session import Session
from compressor.timing import Window

IMAGE = (1, 8, 8)
LOOKING: dict[str, Any] = {
    "version": 2,
    "pruners": {
        "filters": {
            "class": "Pruner",
            "structure": "Filters",
            "criterion": "apoz",
            "weights": "2.weight",
            "rate": {"sparsity": 0.5},
            "batches": 3,
        },
    },
    "policies": [
        {
            "pruner": {
                "class": "Pruner",
                "weights": "5.weight",
                "rate": {"bernoulli": 0.4},
            },
            "starting_epoch": 0,
            "ending_epoch": 2,
        },
        {"pruner": {"instance_name": "filters"}, "starting_epoch": 0, "ending_epoch": 2},
    ],
}
"""One policy that draws random numbers and prunes, and after it one that looks at calibration batches."""


def test_a_step_without_its_backward_pass_is_named_and_leaves_all_as_it_was() -> None:
    it = attached()
    it.begin_epoch(0)
    by_blocks(it, *batches()[0])
    before = everything(it)
    with pytest.raises(CompressError, match=r"^step\.backward was not called in this step"), it.step():
        next(iter(it.model.parameters())).square().sum().backward()  # which draws no random numbers
    assert difference(everything(it), before) is None
    with pytest.raises(CompressError, match=r"^step\.backward was not called"), it.step():
        pass
    assert difference(everything(it), before) is None
    by_blocks(it, *batches()[1])
    other = attached()
    other.begin_epoch(0)
    for images, labels in batches()[:2]:
        by_blocks(other, images, labels)
    assert difference(weights(it.model), weights(other.model)) is None


class Images:
    """Calibration batches that fail at one of them while they are told to."""

    def __init__(self, error: BaseException | None, at: int = 2) -> None:
        self.error, self.at = error, at

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for number, batch in enumerate(batches(IMAGE)):
            if self.error is not None and number == self.at:
                raise self.error
            yield batch


def everything(it: AttachedSession) -> dict[str, Any]:
    """All that an event may change."""
    return copy.deepcopy(
        {
            "model": weights(it.model),
            "modules": [str(module) for module in it.model.modules()],
            "session": it.state_dict(),
            "groups": [
                {key: value for key, value in group.items() if key != "params"} for group in it.optimizer.groups
            ],
            "gates": [type(one).__name__ for one in it.substitutions],
        }
    )


@pytest.mark.parametrize("error", [OSError("the disk is gone"), KeyboardInterrupt()])
def test_calibration_that_fails_leaves_the_beginning_of_an_epoch_undone(error: BaseException) -> None:
    given = batches(IMAGE)
    whole = train(attached(LOOKING, shape=IMAGE, calibration=Images(None)), given=given)
    images = Images(error)
    it = attached(LOOKING, shape=IMAGE, calibration=images)
    before = everything(it)
    with pytest.raises(type(error)):
        it.begin_epoch(0)
    assert difference(everything(it), before) is None
    images.error = None
    assert difference(train(it, given=given), whole) is None


def test_calibration_that_fails_leaves_a_step_undone() -> None:
    by_steps = copy.deepcopy(LOOKING)
    for policy in by_steps["policies"]:
        del policy["starting_epoch"], policy["ending_epoch"]
        policy |= {"starting_step": 1, "ending_step": 8, "step_frequency": 3}
    given = batches(IMAGE)
    whole = train(attached(by_steps, shape=IMAGE, calibration=Images(None)), given=given)
    images = Images(KeyboardInterrupt())
    it = attached(by_steps, shape=IMAGE, calibration=images)
    train(it, 1, given=given, last=1)
    before = everything(it)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            by_blocks(it, *given[1])
        assert difference(everything(it), before) is None
    images.error = None
    assert difference(train(it, given=given), whole) is None


def test_statistics_that_fail_after_the_optimizers_step_leave_the_end_of_the_step_undone() -> None:
    # Batch norms are estimated again after the last step of each epoch, on calibration batches.
    schedule = {"version": 2, "policies": [{"batchnorm": {"batches": 4, "at": "end"}, "ending_epoch": 3}]}

    def model() -> torch.nn.Sequential:
        torch.manual_seed(3)
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 5), torch.nn.BatchNorm1d(5))

    given = batches(IMAGE)
    whole = train(attached(schedule, model=model(), shape=IMAGE, calibration=Images(None)), given=given)
    images = Images(KeyboardInterrupt())
    it = attached(schedule, model=model(), shape=IMAGE, calibration=images)
    train(it, 1, given=given, last=3)
    with pytest.raises(KeyboardInterrupt):
        by_blocks(it, *given[3])
    state = weights(it.model)
    with pytest.raises(KeyboardInterrupt):  # the event comes next, and is called again
        it.after_optimizer()
    assert difference(weights(it.model), state) is None
    images.error = None
    it.after_optimizer()
    assert difference(train(it, given=given), whole) is None


class Failing(Policy):
    """Fails at one event, after the policies before it have acted; not registered."""

    armed: ClassVar[BaseException | None] = None
    event: str
    window: Window = Window(ending_epoch=100)

    def _fail(self, event: str) -> None:
        if event == self.event and Failing.armed is not None:
            raise Failing.armed

    def on_epoch_begin(self, ctx: Context, memory: Memory) -> None:
        self._fail("on_epoch_begin")

    def on_minibatch_begin(self, ctx: Context, memory: Memory) -> None:
        self._fail("on_minibatch_begin")

    def penalty_gradients(self, ctx: Context, memory: Memory) -> None:
        self._fail("penalty_gradients")

    def before_parameter_optimization(self, ctx: Context, memory: Memory) -> None:
        self._fail("before_parameter_optimization")

    def on_minibatch_end(self, ctx: Context, memory: Memory) -> None:
        self._fail("on_minibatch_end")

    def on_epoch_end(self, ctx: Context, memory: Memory) -> None:
        self._fail("on_epoch_end")


def with_failing(event: str, monkeypatch: pytest.MonkeyPatch) -> AttachedSession:
    """The session of all kinds of policies, with one more behind them that fails at an event."""
    whole = Session._completed

    def completed(self: Session, policies: Any) -> list[BoundPolicy]:
        return [*whole(self, policies), BoundPolicy("9.failing", Failing(event=event), {})]

    monkeypatch.setattr(Session, "_completed", completed)
    return attached(ema_decay=0.8)


OF_STEPS = ("on_minibatch_begin", "penalty_gradients", "before_parameter_optimization")


@pytest.mark.parametrize("step", [by_blocks, by_events])
@pytest.mark.parametrize("event", OF_STEPS)
def test_a_step_that_fails_before_the_optimizers_is_taken_back(
    event: str, step: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    it = with_failing(event, monkeypatch)
    it.model.drop.p = 0.0  # type: ignore[union-attr]
    train(it, 2, step=step, last=1)
    before = everything(it)
    monkeypatch.setattr(Failing, "armed", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        step(it, *batches()[1])
    assert difference(everything(it), before) is None
    monkeypatch.setattr(Failing, "armed", None)
    other = with_failing(event, monkeypatch)
    other.model.drop.p = 0.0  # type: ignore[union-attr]
    assert difference(train(it, step=step), train(other, step=step)) is None


def test_an_error_of_the_loops_own_in_a_step_takes_it_back() -> None:
    it = attached()
    it.model.drop.p = 0.0  # type: ignore[union-attr]
    train(it, 1, last=2)
    before = everything(it)

    def own_error() -> None:
        with it.step() as step:
            step.backward(loss_of(it, *batches()[2]))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        own_error()
    assert difference(everything(it), before) is None


def test_the_end_of_a_step_that_fails_comes_next_still(monkeypatch: pytest.MonkeyPatch) -> None:
    it = with_failing("on_minibatch_end", monkeypatch)
    it.model.drop.p = 0.0  # type: ignore[union-attr]
    train(it, 2, step=by_events, last=1)
    monkeypatch.setattr(Failing, "armed", OSError())
    with pytest.raises(OSError):  # noqa: PT011
        by_events(it, *batches()[1])
    after = weights(it.model), [group["lr"] for group in it.optimizer.groups]
    with pytest.raises(OSError):  # noqa: PT011
        it.after_optimizer()
    assert difference(weights(it.model), after[0]) is None
    assert [group["lr"] for group in it.optimizer.groups] == after[1]
    monkeypatch.setattr(Failing, "armed", None)
    it.after_optimizer()
    other = with_failing("on_minibatch_end", monkeypatch)
    other.model.drop.p = 0.0  # type: ignore[union-attr]
    assert difference(train(it, step=by_events), train(other, step=by_events)) is None


@pytest.mark.parametrize("event", ["on_epoch_begin", "on_epoch_end"])
def test_an_epoch_that_fails_to_begin_or_to_end_can_be_entered_again(
    event: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = with_failing(event, monkeypatch)
    train(it, 1)
    if event == "on_epoch_end":
        train(it, 2, last=STEPS - 1)
        by_blocks(it, *batches()[STEPS - 1])
    before = everything(it)
    monkeypatch.setattr(Failing, "armed", RuntimeError("no"))
    with pytest.raises(RuntimeError, match="no"), it.epoch(1):
        pass
    assert difference(everything(it), before) is None
    monkeypatch.setattr(Failing, "armed", None)
    if event == "on_epoch_end":
        with it.epoch(1):
            pass
        assert it.clock.epoch == 2
    assert difference(train(it), train(with_failing(event, monkeypatch))) is None


def test_channels_that_were_removed_come_back_where_the_event_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = {
        "version": 2,
        "extensions": {"thin": {"class": "FilterRemover"}},
        "policies": [
            {
                "pruner": {"class": "Pruner", "structure": "Filters", "weights": "0.weight", "rate": {"sparsity": 0.5}},
                "epochs": [0],
            },
            {"extension": {"instance_name": "thin"}, "epochs": [0]},
        ],
    }
    given = batches(IMAGE)
    it = attached(schedule, shape=IMAGE, calibration=given)
    shape = it.model[0].weight.shape  # type: ignore[index,union-attr]
    it.begin_epoch(0)
    before = everything(it)
    forward = it.masks.before_forward

    def interrupted() -> None:
        assert it.model[0].weight.shape != shape  # type: ignore[index,union-attr]
        raise KeyboardInterrupt

    monkeypatch.setattr(it.masks, "before_forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        it.enter()
    assert it.model[0].weight.shape == shape  # type: ignore[index,union-attr]
    assert difference(everything(it), before) is None
    monkeypatch.setattr(it.masks, "before_forward", forward)
    whole = train(attached(schedule, shape=IMAGE, calibration=given), given=given)
    assert difference(train(it, given=given), whole) is None
