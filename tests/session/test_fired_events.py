"""Which policy hears which event, in which order, and what of it is saved."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import UserError
from compressor.policies.policy import BoundPolicy, Context, Memory, Policy
from compressor.session.session import Session
from compressor.timing.clock import Clock
from compressor.timing.window import Window

RunOf = Callable[..., Any]

heard: list[tuple[str, str, int, int]] = []


@dataclass
class Count(Memory):
    """How many events were heard."""

    count: int = 0


class Listener(Policy):
    """Notes every event with its owner, epoch and step."""

    def init(self, ctx: Context) -> Count:
        return Count()

    def before_epoch(self, ctx: Context, memory: Count) -> None:
        self._note("before_epoch", ctx, memory)

    def on_epoch_begin(self, ctx: Context, memory: Count) -> None:
        self._note("on_epoch_begin", ctx, memory)

    def on_minibatch_begin(self, ctx: Context, memory: Count) -> None:
        self._note("on_minibatch_begin", ctx, memory)

    def before_backward_pass(self, ctx: Context, memory: Count, loss: Tensor) -> Tensor:
        self._note("before_backward_pass", ctx, memory)
        return 2 * loss + 1

    def penalty_gradients(self, ctx: Context, memory: Count) -> None:
        self._note("penalty_gradients", ctx, memory)

    def before_parameter_optimization(self, ctx: Context, memory: Count) -> None:
        self._note("before_parameter_optimization", ctx, memory)

    def on_minibatch_end(self, ctx: Context, memory: Count) -> None:
        self._note("on_minibatch_end", ctx, memory)

    def on_epoch_end(self, ctx: Context, memory: Count) -> None:
        self._note("on_epoch_end", ctx, memory)

    def losses(self, ctx: Context, memory: Count) -> dict[str, float]:
        return {"penalty": 1.5}

    def _note(self, event: str, ctx: Context, memory: Count) -> None:
        memory.count += 1
        heard.append((event, ctx.key, ctx.clock.epoch, ctx.clock.step))


class LastListener(Listener):
    """As a learning-rate policy does."""

    runs_last = True


@pytest.fixture(autouse=True)
def _silence() -> None:
    heard.clear()


def session(*policies: Policy, epochs: int = 4, steps: int = 2) -> Session:
    model = nn.Linear(2, 2)
    bound = [BoundPolicy(f"{i}.it", policy, {"weights": ["weight"]}) for i, policy in enumerate(policies)]
    return Session(model, torch.optim.SGD(model.parameters(), lr=0.1), bound, Clock(epochs, steps))


def run(it: Session, epochs: int = 4) -> None:
    for epoch in range(epochs):
        with it.epoch(epoch):
            for _ in range(it.clock.steps_per_epoch):
                with it.step() as step:
                    step.backward(it.model(torch.ones(1, 2)).sum())


def test_every_event_is_heard_in_the_windows_epochs_only() -> None:
    run(session(Listener(window=Window(epochs=[1, 3]))))
    assert {epoch for _, _, epoch, _ in heard} == {1, 3}
    in_epoch_1 = [(event, step) for event, _, epoch, step in heard if epoch == 1]
    batch = [
        "on_minibatch_begin",
        "before_backward_pass",
        "penalty_gradients",
        "before_parameter_optimization",
        "on_minibatch_end",
    ]
    expected = [
        ("before_epoch", 0),
        ("on_epoch_begin", 0),
        *[(e, 0) for e in batch],
        *[(e, 1) for e in batch],
        ("on_epoch_end", 2),
    ]
    assert in_epoch_1 == expected


def test_policies_are_heard_in_file_order_and_those_of_the_learning_rate_last() -> None:
    always = Window(ending_epoch=9)
    run(
        session(
            LastListener(window=always), Listener(window=always), LastListener(window=always), Listener(window=always)
        ),
        1,
    )
    for event in ("on_epoch_begin", "on_minibatch_begin", "before_backward_pass", "on_minibatch_end", "on_epoch_end"):
        assert [owner for name, owner, _, step in heard if name == event and step != 1] == [
            "1.it",
            "3.it",
            "0.it",
            "2.it",
        ]


def test_all_look_before_the_epoch_and_only_then_does_one_act() -> None:
    run(session(LastListener(window=Window(ending_epoch=9)), Listener(window=Window(ending_epoch=9))), 1)
    begin = [(event, owner) for event, owner, *_ in heard][:4]
    assert begin == [
        ("before_epoch", "1.it"),
        ("before_epoch", "0.it"),
        ("on_epoch_begin", "1.it"),
        ("on_epoch_begin", "0.it"),
    ]


def test_the_loss_goes_through_the_policies_as_through_a_chain() -> None:
    it = session(Listener(window=Window(ending_epoch=2)), Listener(window=Window(ending_epoch=1)))
    assert float(it.events.before_backward_pass(torch.tensor(3.0))) == 15  # 2 (2 * 3 + 1) + 1
    it.clock.epoch = 1
    assert float(it.events.before_backward_pass(torch.tensor(3.0))) == 7
    it.clock.epoch = 2
    assert float(it.events.before_backward_pass(torch.tensor(3.0))) == 3


def test_penalties_of_one_name_add_up_in_the_log() -> None:
    it = session(Listener(window=Window(ending_epoch=2)), Listener(window=Window(ending_epoch=1)))
    assert it.events.losses() == {"penalty": 3.0}
    it.clock.epoch = 1
    assert it.events.losses() == {"penalty": 1.5}
    it.clock.epoch = 2
    assert it.events.losses() == {}


def test_a_window_in_steps_hears_the_events_of_its_steps_and_none_of_the_epochs() -> None:
    run(session(Listener(window=Window(starting_step=1, ending_step=6, step_frequency=2))))
    begun = [(epoch, step) for event, _, epoch, step in heard if event == "on_minibatch_begin"]
    assert begun == [(0, 1), (1, 1), (2, 1)]  # steps 1, 3, 5 of two an epoch
    assert {event for event, *_ in heard} & {"before_epoch", "on_epoch_begin", "on_epoch_end"} == set()


def test_a_policy_without_a_window_of_its_own_form_does_nothing_at_events_it_does_not_know(run_of: RunOf) -> None:
    class Silent(Policy):
        pass

    it = session(Silent(window=Window(ending_epoch=4)))
    run(it)
    assert it.events.losses() == {}
    assert it.events.settled() == 0
    assert it.events.shortfalls() == []


def test_each_policy_has_a_memory_of_its_own() -> None:
    always = Window(ending_epoch=9)
    it = session(Listener(window=always), Listener(window=Window(epochs=[0])))
    run(it, 2)
    assert set(it.events.memory) == {"0.it", "1.it"}
    assert it.events.memory["0.it"].count == 2 * it.events.memory["1.it"].count  # type: ignore[attr-defined]


def test_a_loaded_memory_is_the_saved_one_and_a_copy_of_it() -> None:
    it = session(Listener(window=Window(ending_epoch=9)))
    run(it, 2)
    state = it.events.state_dict()
    count = state["0.it"]["count"]
    again = session(Listener(window=Window(ending_epoch=9)))
    again.events.load_state_dict(state)
    assert again.events.memory["0.it"].count == count
    run(again, 1)
    assert state["0.it"]["count"] == count


def test_the_state_of_other_policies_is_refused() -> None:
    it = session(Listener(window=Window(ending_epoch=9)))
    state = copy.deepcopy(it.events.state_dict())
    both = session(Listener(window=Window(ending_epoch=9)), Listener(window=Window(ending_epoch=9)))
    with pytest.raises(UserError, match=r"0\.it.*1\.it"):
        both.events.load_state_dict(state)
    with pytest.raises(UserError, match="other policies"):
        it.events.load_state_dict({"0.other": {}})


def test_the_memories_of_a_whole_schedule_survive_torch_save_with_weights_only(run_of: RunOf, tmp_path: object) -> None:
    text = """\
pruners:
  s: {class: SensitivityPruner, sensitivities: {weight: 0.5}}
  z: {class: SplicingPruner, sensitivities: {weight: 0}, low_thresh_mult: 0.9, hi_thresh_mult: 1.1}
lr_schedulers:
  lr: {class: ReduceLROnPlateau}
policies:
  - pruner: {instance_name: s}
  - pruner: {instance_name: z, args: {use_double_copies: true}}
  - regularizer: {class: L1Regularizer, reg_regims: {weight: 0.1}}
  - lr_scheduler: {instance_name: lr}
"""
    first = run_of(text, nn.Linear(3, 3))
    first.epoch(0, {"loss": 1.0})
    torch.save(first.events.state_dict(), f"{tmp_path}/policies.pt")
    second = run_of(text, nn.Linear(3, 3))
    second.events.load_state_dict(torch.load(f"{tmp_path}/policies.pt", weights_only=True))
    assert set(second.events.memory) == {"0.s", "1.z", "2.L1Regularizer", "3.lr"}
    second.epoch(1, {"loss": 1.0})
