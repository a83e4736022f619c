"""The trainer fires the events of `policies/policy.py` in the order that stands there."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.config import Config
from compressor.errors import CompressError, Interrupted
from compressor.policies.policy import BoundPolicy, Context, Memory, Policy
from compressor.session.session import Session
from compressor.timing.clock import Clock
from compressor.timing.window import Window
from compressor.training.observers import Observer
from compressor.training.trainer import Trainer

CALLS: list[Any] = []


class Spy(Policy):
    """Writes down what it is told."""

    label: str

    def _note(self, event: str, ctx: Context) -> None:
        CALLS.append((self.label, event, ctx.clock.epoch, ctx.clock.step))

    def before_epoch(self, ctx: Context, memory: Memory) -> None:
        self._note("before_epoch", ctx)

    def on_epoch_begin(self, ctx: Context, memory: Memory) -> None:
        self._note("on_epoch_begin", ctx)

    def on_minibatch_begin(self, ctx: Context, memory: Memory) -> None:
        self._note("on_minibatch_begin", ctx)

    def before_backward_pass(self, ctx: Context, memory: Memory, loss: Tensor) -> Tensor:
        self._note("before_backward_pass", ctx)
        return loss

    def penalty_gradients(self, ctx: Context, memory: Memory) -> None:
        self._note("penalty_gradients", ctx)

    def before_parameter_optimization(self, ctx: Context, memory: Memory) -> None:
        self._note("before_parameter_optimization", ctx)

    def on_minibatch_end(self, ctx: Context, memory: Memory) -> None:
        self._note("on_minibatch_end", ctx)

    def on_epoch_end(self, ctx: Context, memory: Memory) -> None:
        self._note("on_epoch_end", ctx)


class Last(Spy):
    """A policy of the learning-rate kind."""

    runs_last = True


class Watcher(Observer):
    """Writes down when it is told."""

    def on_step(self, epoch: int, step: int, loss: Tensor) -> None:
        CALLS.append(("observer", "on_step", epoch, step))

    def on_epoch(self, record: dict[str, Any]) -> None:
        CALLS.append(("observer", "on_epoch", record["epoch"]))


class Feed:
    """Two batches of two vectors an epoch; the classes of the validation images are decided by `scores`."""

    steps_per_epoch = 2

    def __init__(self, scores: list[float] | None = None) -> None:
        self._scores = scores

    def train(self, epoch: int, first_step: int) -> Any:
        for _ in range(first_step, 2):
            yield torch.ones(2, 3), torch.tensor([0, 1])

    def validation(self) -> Any:
        CALLS.append(("feed", "validation"))
        if self._scores is None:
            return
        right = self._scores.pop(0)  # the share of ten images whose label is the class that the network says
        labels = torch.tensor([0 if k < right * 10 else 1 for k in range(10)])
        yield torch.ones(10, 3), labels

    def test(self) -> Any:
        raise AssertionError("the test images are not for the loop")


class Always0(nn.Module):
    """Says class 0, whatever it sees and learns."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) * 0 + torch.tensor([1.0, 0.0])


def trainer(
    *policies: Policy, feed: Feed | None = None, signals: list[int | None] | None = None, **config: Any
) -> Trainer:
    """A run of a linear network under `policies`; saves are written down."""
    CALLS.clear()
    torch.manual_seed(0)
    model = Always0() if feed else nn.Linear(3, 2)
    settings = Config.model_validate(
        {"model": {"name": "x"}, "data": {"name": "x"}, "optimizer": {"lr": 0.1}, "epochs": 2, **config}
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.register_step_pre_hook(lambda *_: CALLS.append(("optimizer", "step")))
    bound = [BoundPolicy(f"{index}.{type(policy).__name__}", policy, {}) for index, policy in enumerate(policies)]
    return Trainer(
        Session(model, optimizer, bound, Clock(settings.epochs, 2), say=CALLS.append),
        feed or Feed(),
        settings,
        torch.device("cpu"),
        [Watcher()],
        save=lambda kind: CALLS.append(("save", kind)),
        stop_signal=lambda: signals.pop(0) if signals else None,
    )


def test_the_events_of_an_epoch_come_in_the_documented_order() -> None:
    spy = Spy(label="a", window=Window(starting_epoch=0, ending_epoch=2))
    trainer(spy, epochs=1).run()
    minibatch = [
        [
            ("a", "on_minibatch_begin", 0, step),
            ("a", "before_backward_pass", 0, step),
            ("a", "penalty_gradients", 0, step),
            ("a", "before_parameter_optimization", 0, step),
            ("optimizer", "step"),
            ("a", "on_minibatch_end", 0, step),
            ("observer", "on_step", 0, step),
        ]
        for step in (0, 1)
    ]
    assert [call for call in CALLS if call != ("save", "best")] == [
        ("a", "before_epoch", 0, 0),
        ("a", "on_epoch_begin", 0, 0),
        *minibatch[0],
        *minibatch[1],
        ("feed", "validation"),
        ("a", "on_epoch_end", 0, 2),
        ("observer", "on_epoch", 0),
        ("save", "checkpoint"),
    ]


def test_policies_run_in_file_order_and_those_of_learning_rates_last() -> None:
    window = Window(starting_epoch=0, ending_epoch=2)
    trainer(Last(label="lr", window=window), Spy(label="a", window=window), Spy(label="b", window=window)).run()
    for event in ("before_epoch", "on_epoch_begin", "on_minibatch_begin", "on_minibatch_end", "on_epoch_end"):
        labels = [call[0] for call in CALLS if call[1] == event and call[0] != "observer"]
        assert labels == ["a", "b", "lr"] * (len(labels) // 3)
        assert labels


@pytest.mark.parametrize(
    ("window", "epochs"),
    [
        (Window(starting_epoch=1, ending_epoch=4, frequency=2), [1, 3]),
        (Window(epochs=[0, 4]), [0, 4]),
        (Window(starting_epoch=3, ending_epoch=9), [3, 4]),
    ],
)
def test_a_policy_hears_of_the_epochs_of_its_window_alone(window: Window, epochs: list[int]) -> None:
    trainer(Spy(label="a", window=window), epochs=5).run()
    assert sorted({call[2] for call in CALLS if call[0] == "a"}) == epochs


@pytest.mark.parametrize(
    ("best", "scores", "epochs"),
    [
        ("top1", [0.5, 0.7, 0.7, 0.6, 0.8], [0, 1, 4]),
        ("loss", [0.5, 0.7, 0.7, 0.6, 0.8], [0, 1, 4]),
        ("last", [0.5, 0.7, 0.7, 0.6, 0.8], [0, 1, 2, 3, 4]),
        ("top1", [0.9, 0.7, 0.7, 0.6, 0.8], [0]),
    ],
)
def test_the_best_weights_are_those_of_the_best_epoch_the_first_of_equals(
    best: str, scores: list[float], epochs: list[int]
) -> None:
    trainer(feed=Feed(scores), epochs=5, best=best).run()
    assert saved_best() == epochs


def saved_best() -> list[int]:
    """The epochs whose weights were saved as the best."""
    epochs = []
    for before, call in enumerate(CALLS):
        if call == ("save", "best"):
            epochs.append(next(c[2] for c in CALLS[before:] if c[:2] == ("observer", "on_epoch")))
    return epochs


class Prunes(Spy):
    """Settles when its window ends, as a pruner does."""

    def settled(self, clock: Clock) -> int:
        return self.window.last


def test_the_best_weights_are_looked_for_from_the_last_pruning_event_on() -> None:
    policy = Prunes(label="a", window=Window(starting_epoch=0, ending_epoch=3))
    trainer(policy, feed=Feed([0.9, 0.9, 0.5, 0.4, 0.6]), epochs=5).run()
    assert saved_best() == [2, 4]


def test_a_window_that_is_never_reached_still_leaves_best_weights() -> None:
    policy = Prunes(label="a", window=Window(starting_epoch=0, ending_epoch=99))
    trainer(policy, feed=Feed([0.9, 0.9, 0.5]), epochs=3).run()
    assert saved_best() == [2]


@pytest.mark.parametrize(
    ("every", "after"), [(1, [0, 1, 2, 3, 4]), (2, [1, 3, 4]), (3, [2, 4]), (100, [4])], ids=lambda value: str(value)
)
def test_the_checkpoint_is_written_every_so_many_epochs_and_at_the_end(every: int, after: list[int]) -> None:
    trainer(epochs=5, checkpoint={"every_epochs": every}).run()
    epochs = [CALLS[i - 1][2] for i, call in enumerate(CALLS) if call == ("save", "checkpoint")]
    assert epochs == after


def test_a_signal_lets_the_step_end_saves_and_stops() -> None:
    run = trainer(signals=[None, None, None, 15])
    with pytest.raises(Interrupted) as stopped:
        run.run()
    assert stopped.value.exit_code == 143
    assert CALLS[-2:] == [("observer", "on_step", 1, 0), ("save", "checkpoint")]
    assert (run.progress.epoch, run.progress.step) == (1, 1)


def test_the_state_of_one_schedule_is_refused_by_another() -> None:
    window = Window(starting_epoch=0, ending_epoch=2)
    state = trainer(Spy(label="a", window=window)).state_dict()
    with pytest.raises(CompressError, match="policies"):
        trainer(Last(label="a", window=window)).load_state_dict(state)
