"""A session in a loop of a user's own: its three forms are one, it resumes to the same bits, a wrong call is named."""

import io
import re
from typing import Any

import pytest
import torch
from helpers import difference
from own_loop import (
    EPOCHS,
    GATED,
    STEPS,
    Net,
    attached,
    batches,
    by_blocks,
    by_distillers_names,
    by_events,
    convolutional,
    loss_of,
    train,
    weights,
)
from torch import nn

from compressor.attached import AttachedSession, PolicyLoss
from compressor.errors import CompressError, UserError

# --- one step in three forms ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [by_events, by_distillers_names])
def test_events_and_distillers_names_are_the_step(step: Any) -> None:
    whole = train(attached())
    assert difference(train(attached(), step=step), whole) is None
    assert (whole["fc3.weight"] == 0).sum() == 19  # AGP: round(0.8 * 24)


def test_a_step_is_that_of_a_plain_loop_where_the_schedule_only_masks() -> None:
    # By hand: SGD with momentum, then weights whose magnitude is among the 12 smallest at the first step are zero.
    keep_half = {
        "version": 2,
        "policies": [
            {
                "pruner": {"class": "Pruner", "weights": "fc3.weight", "rate": {"sparsity": 0.5}},
                "starting_step": 0,
                "ending_step": 1,
            }
        ],
    }
    it = attached(keep_half, model=None)
    torch.manual_seed(1)
    plain = Net()
    optimizer = torch.optim.SGD(plain.parameters(), 0.1, momentum=0.9)
    keep = plain.fc3.weight.detach().abs() > plain.fc3.weight.detach().abs().flatten().kthvalue(12).values
    with torch.no_grad():
        plain.fc3.weight.masked_fill_(~keep, 0.0)
    for model in (it.model, plain):
        model.drop.p = 0.0  # type: ignore[union-attr]
    for images, labels in batches():
        optimizer.zero_grad()
        nn.functional.cross_entropy(plain(images), labels).backward()
        optimizer.step()
        with torch.no_grad():
            plain.fc3.weight.masked_fill_(~keep, 0.0)
    it.begin_epoch(0)
    for images, labels in batches():
        by_blocks(it, images, labels)
    assert difference(weights(it.model), weights(plain)) is None


def test_a_gradient_that_was_scaled_and_unscaled_is_the_same_step() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def scaled(it: AttachedSession, images: Any, labels: Any) -> None:
        it.enter()
        it.optimizer.optimizer.zero_grad()
        scaler.scale(it.before_backward(loss_of(it, images, labels))).backward()
        scaler.unscale_(it.optimizer.optimizer)
        it.after_backward()
        it.before_optimizer()
        scaler.step(it.optimizer.optimizer)
        scaler.update()
        it.after_optimizer()

    assert difference(train(attached(), step=scaled), train(attached())) is None


def test_parts_of_a_batch_are_one_step() -> None:
    def parts(it: AttachedSession, images: Any, labels: Any) -> None:
        it.model.drop.p = 0.0  # type: ignore[union-attr]
        with it.step() as step:
            for part in (slice(0, 2), slice(2, None)):
                step.backward(loss_of(it, images[part], labels[part]), share=len(labels[part]) / len(labels))

    def whole(it: AttachedSession, images: Any, labels: Any) -> None:
        it.model.drop.p = 0.0  # type: ignore[union-attr]
        by_blocks(it, images, labels)

    one, other = train(attached(), 1, step=parts), train(attached(), 1, step=whole)
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_compiled_model_is_trained_as_the_plain_one() -> None:
    def compiled(it: AttachedSession, images: Any, labels: Any) -> None:
        it.model.drop.p = 0.0  # type: ignore[union-attr]
        with it.step() as step:
            step.backward(nn.functional.cross_entropy(forward(images), labels))

    def plain(it: AttachedSession, images: Any, labels: Any) -> None:
        it.model.drop.p = 0.0  # type: ignore[union-attr]
        by_blocks(it, images, labels)

    torch.manual_seed(1)
    forward = torch.compile(Net(), backend="aot_eager")
    it = attached(model=forward)  # type: ignore[arg-type]
    assert type(it.model) is Net
    other = attached()
    other.model.load_state_dict(it.model.state_dict())
    assert difference(train(it, step=compiled), train(other, step=plain)) is None


def test_penalties_are_named_beside_the_loss() -> None:
    it = attached()
    it.on_epoch_begin(0, it.optimizer.optimizer)
    it.on_minibatch_begin(0, 0, STEPS)
    loss = loss_of(it, *batches()[0])
    whole = it.before_backward_pass(0, 0, STEPS, loss, return_loss_components=True)
    assert isinstance(whole, PolicyLoss)
    assert float(whole.overall_loss.detach()) == float(loss.detach())
    values = dict(whole.loss_components)
    assert set(values) == {"L1Regularizer", "l0"}
    assert values["L1Regularizer"] == pytest.approx(0.01 * float(it.model.fc3.weight.detach().abs().sum()), rel=1e-6)
    it.abandon()


def test_the_draws_of_a_schedule_do_not_depend_on_those_of_the_loop() -> None:
    def step(it: AttachedSession, images: Any, labels: Any) -> None:
        with it.step() as step:
            torch.rand(3)
            it.model.drop.p = 0.0  # type: ignore[union-attr]
            step.backward(loss_of(it, images, labels))

    def still(it: AttachedSession, images: Any, labels: Any) -> None:
        it.model.drop.p = 0.0  # type: ignore[union-attr]
        by_blocks(it, images, labels)

    first = train(attached(), step=still)
    assert difference(train(attached(), step=step), first) is None
    assert difference(train(attached(seed=7), step=still), first) is not None
    it = attached()
    before = torch.get_rng_state()
    it.begin_epoch(0)
    it.enter()  # the gate draws
    assert torch.equal(torch.get_rng_state(), before)
    it.abandon()


# --- resuming ---------------------------------------------------------------------------------------------------------


def saved(it: AttachedSession) -> Any:
    """What a user writes to disk, and reads again."""
    file = io.BytesIO()
    torch.save({"model": it.model.state_dict(), "session": it.state_dict()}, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def resumed(it: AttachedSession, state: Any) -> AttachedSession:
    it.load_state_dict(state["session"])
    it.model.load_state_dict(state["model"])
    return it


@pytest.mark.parametrize(("epoch", "last"), [(1, 2), (1, STEPS), (3, 3)])
def test_a_resumed_session_goes_on_to_the_same_bits(epoch: int, last: int) -> None:
    whole = train(attached(ema_decay=0.8, clip_norm=0.5))
    it = attached(ema_decay=0.8, clip_norm=0.5)
    train(it, epoch, last=last)
    state = saved(it)
    torch.rand(5)
    again = resumed(attached(ema_decay=0.8, clip_norm=0.5), state)
    assert difference(train(again), whole) is None
    assert again.clock.epoch == EPOCHS
    # A control: without the session's state the weights are others.
    other = attached(ema_decay=0.8, clip_norm=0.5)
    other.model.load_state_dict(state["model"])
    assert difference(train(other), whole) is not None


def test_an_optimizer_may_load_its_own_state_too() -> None:
    whole = train(attached())
    it = attached()
    train(it, 1)
    state, own = saved(it), it.optimizer.optimizer.state_dict()
    again = resumed(attached(), state)
    again.optimizer.optimizer.load_state_dict(own)
    assert difference(train(again), whole) is None


CHANNELS: dict[str, Any] = {
    "version": 2,
    "policies": [
        {
            "pruner": {"class": "Pruner", "structure": "Filters", "weights": "0.weight", "rate": {"sparsity": 0.5}},
            "starting_epoch": 0,
            "ending_epoch": 3,
        }
    ],
}


def test_a_thinned_session_is_resumed_in_a_dense_model() -> None:
    given = batches((1, 8, 8))
    ends = []
    for resumes in (False, True):
        it = attached(CHANNELS, shape=(1, 8, 8))
        train(it, 1, given=given)
        thinned = it.thin()
        assert thinned.cut
        assert it.model[0].weight.shape == (2, 1, 3, 3)  # type: ignore[index,union-attr]
        train(it, 2, given=given, last=2)
        if resumes:
            it = resumed(attached(CHANNELS, shape=(1, 8, 8)), saved(it))
            assert it.model[2].weight.shape == (6, 2, 3, 3)  # type: ignore[index,union-attr]
        ends.append(train(it, given=given))
    assert difference(ends[0], ends[1]) is None
    assert it.records.thinnings[0]["parameters_after"] == 2 * 10 + 6 * 19 + 3 * 97


def test_a_state_of_another_run_is_refused_and_nothing_changes() -> None:
    it = attached()
    train(it, 1)
    state, before, mine = saved(it)["session"], weights(it.model), it.state_dict()
    for changed, said in [
        ({"run": {"epochs": 9, "steps_per_epoch": STEPS}}, "saved with epochs=9, this session has epochs=3"),
        ({"policies": {"0.other": {}}}, "written with other policies"),
        ({"masks": None}, "cannot be loaded"),
        ({"draws": {}}, "cannot be loaded"),
        ({"architecture": {"fc1": {"in_features": 6, "out_features": 9}}}, "fc1"),
    ]:
        other = resumed(attached(), {"session": state, "model": before})
        now = other.state_dict()
        with pytest.raises(UserError, match=said):
            other.load_state_dict({**state, **changed})
        assert difference(other.state_dict(), now) is None, changed
        assert difference(weights(other.model), before) is None
    assert difference(it.state_dict(), mine) is None
    short = attached(epochs=2)
    with pytest.raises(UserError, match="saved with epochs=3, this session has epochs=2"):
        short.load_state_dict(state)


# --- wrong calls ------------------------------------------------------------------------------------------------------


def wrong(said: str) -> Any:
    return pytest.raises(CompressError, match=re.escape(said))


def test_a_forgotten_event_is_named() -> None:
    it = attached()
    with wrong("enter (on_minibatch_begin) was called, but begin_epoch (on_epoch_begin) was not"):
        it.enter()
    with wrong("end_epoch (on_epoch_end) was called, but begin_epoch"):
        it.end_epoch()
    with wrong("epoch 1 begins where epoch 0 comes next"):
        it.begin_epoch(1)
    it.begin_epoch(0)
    with wrong("epoch 1 begins, but end_epoch (on_epoch_end) of epoch 0 was not called"):
        it.begin_epoch(1)
    with wrong("epoch 0 ends after 0 steps, it should have 4: enter (on_minibatch_begin) was not called"):
        it.end_epoch()
    it.enter()
    with wrong("enter (on_minibatch_begin) was called where before_backward (before_backward_pass) comes next"):
        it.enter()
    it.before_backward(loss_of(it, *batches()[0])).backward()
    with wrong("after_optimizer (on_minibatch_end) was called where after_backward (before_parameter_optimization)"):
        it.after_optimizer()
    with wrong("the epoch ends within a step: after_backward (before_parameter_optimization) was not called"):
        it.end_epoch()
    with wrong("state_dict was called within a step: after_backward (before_parameter_optimization) was not called"):
        it.state_dict()
    with wrong("thin was called within a step"):
        it.thin()
    it.abandon()
    train(it, 1)
    for number in (1, 2):
        train(it, number + 1)
    with wrong("epoch 3 begins, but the run has 3"):
        it.begin_epoch(3)


def test_an_epoch_with_more_steps_than_promised_is_named() -> None:
    it = attached()
    it.begin_epoch(0)
    for images, labels in batches():
        by_blocks(it, images, labels)
    with wrong("step 4 of epoch 0 begins, but an epoch has 4 steps: end_epoch (on_epoch_end) was not called"):
        by_blocks(it, *batches()[0])


def test_distillers_arguments_must_be_the_sessions_time() -> None:
    it = attached()
    it.on_epoch_begin(0)
    with wrong("on_minibatch_begin says that an epoch has 5 mini-batches, attach was told steps_per_epoch=4"):
        it.on_minibatch_begin(0, 0, 5)
    with wrong("on_minibatch_begin of mini-batch 1 of epoch 0 was called, the session is at mini-batch 0 of epoch 0"):
        it.on_minibatch_begin(0, 1, 4)
    with wrong("on_epoch_end of epoch 1 was called, the session is in epoch 0"):
        it.on_epoch_end(1)


def test_the_figures_of_a_validation_reach_the_policies_that_watch_it() -> None:
    plateau = {
        "version": 2,
        "policies": [{"lr_scheduler": {"class": "ReduceLROnPlateau", "patience": 0, "factor": 0.5}, "ending_epoch": 3}],
    }
    it = attached(plateau, validation=batches(seed=9))
    rates = []
    for number, loss in enumerate([1.0, 2.0, 3.0]):
        it.on_epoch_begin(number)
        for images, labels in batches():
            by_events(it, images, labels)
        it.on_epoch_end(number, it.optimizer.optimizer, metrics={"min": loss, "max": 50.0})
        rates.append(it.optimizer.groups[0]["lr"])
    assert rates == [0.1, 0.05, 0.025]
    calls = []

    def counted() -> Any:
        calls.append(1)
        yield from batches(seed=9)

    class Validation:
        def __iter__(self) -> Any:
            return counted()

    it = attached(plateau, validation=Validation())
    train(it, 1)
    assert len(calls) == 1  # nobody gave figures: the session evaluates
    images, labels = (torch.cat(parts) for parts in zip(*batches(seed=9), strict=True))
    with torch.no_grad():
        loss = nn.functional.cross_entropy(it.model.eval()(images), labels)
    assert it.data.validation["loss"] == pytest.approx(float(loss), rel=1e-5)


def test_what_is_shipped_is_a_plain_copy() -> None:
    it = attached()
    train(it)
    live = weights(it.model)
    model = it.shipped_model()
    assert type(model) is Net
    assert not model.training
    assert difference(weights(it.model), live) is None
    with it.as_shipped():
        assert difference(weights(it.model), weights(model)) is None
    assert bool((model.fc2.weight == 0).any())  # the surgery's masks are in it


def test_gated_channels_are_thinned_in_a_copy() -> None:
    it = attached()
    with wrong("0.l0: channels of gated weights cannot be removed here: thin a copy"):
        it.thin()


def test_thinning_takes_the_optimizers_state_along() -> None:
    it = attached(CHANNELS, shape=(1, 8, 8))
    train(it, 1, given=batches((1, 8, 8)))
    parameter = it.model[0].weight  # type: ignore[index,union-attr]
    sample = torch.randn(7, 1, 8, 8)
    before = it.shipped_model()(sample)
    it.thin(sample)
    assert it.model[0].weight is parameter  # type: ignore[index,union-attr]
    assert it.optimizer.optimizer.state[parameter]["momentum_buffer"].shape == (2, 1, 3, 3)
    assert torch.allclose(it.shipped_model()(sample), before, atol=1e-6)
    assert convolutional()[0].weight.shape == it.dense[0].weight.shape  # type: ignore[index,union-attr]


def test_the_schedule_is_a_mapping_that_stays_as_it_is() -> None:
    assert GATED["policies"][0] == {"gate": {"instance_name": "l0"}, "starting_epoch": 0, "ending_epoch": 2}
