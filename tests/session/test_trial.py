"""A trial puts everything back, to the bit: after training inside, after an error, in another trial."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from bare import EPOCHS, EVERYTHING, Calls, batches, everything, open_epoch, session, train, whole_step
from helpers import difference
from torch import Tensor, nn

from compressor.errors import CompressError
from compressor.session.session import Session, Settings


def half_rate() -> Calls:
    def scaled(ctx: Any) -> None:
        ctx.optimizer.scales["half"] = 0.5

    return Calls(event="on_minibatch_begin", function=scaled)


def turn_everything_over(it: Session) -> None:
    """Train on to the end of the run, gates and masks come and go; then spoil all that can be spoilt."""
    if it.clock.step:
        for batch in batches(it.clock.data_epoch)[it.clock.step :]:
            whole_step(it, *batch)
        it.clock.epoch, it.clock.step = it.clock.epoch + 1, 0
    train(it)
    it.clock.origin = 1
    it.masks.set("a trial's", "fc5.weight", torch.zeros(3, 8, dtype=torch.bool))
    it.masks.apply()
    it.optimizer.clear()
    it.optimizer.scales["trial"] = 3.0
    it.optimizer.groups[0]["lr"] = 7.0
    it.records.figures["trial"] = {"x": 1.0}
    it.records.thinnings.append({"when": "in the trial"})
    it.data.validation = {"loss": 0.0}
    it.model.eval()
    it.model.drop.p = 0.9
    for parameter in it.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.manual_seed(99)


def seen(it: Session) -> dict[str, Any]:
    """All that a trial must put back."""
    trained = [parameter for group in it.optimizer.groups for parameter in group["params"]]
    return {
        **everything(it),
        "gradients": [None if parameter.grad is None else parameter.grad.clone() for parameter in trained],
        "modes": [module.training for module in it.model.modules()],
        "validation": dict(it.data.validation),
        "scales": dict(it.optimizer.scales),
        "gates": [type(one).__name__ for one in it.substitutions],
        "held": dict(it.network.held),
    }


@pytest.mark.parametrize("adam", [False, True])
def test_a_trial_puts_everything_back_at_any_moment(adam: bool) -> None:
    def made() -> Session:
        optimizer: Callable[[nn.Module], torch.optim.Optimizer] | None = None
        if adam:
            optimizer = lambda model: torch.optim.Adam(model.parameters(), 0.02)  # noqa: E731
        return session(EVERYTHING, half_rate(), optimizer=optimizer)

    plain = train(made())
    it, gates = made(), set[str]()

    def attempt() -> None:
        before = seen(it)
        gates.add(" ".join(before["gates"]))
        with it.trial():
            turn_everything_over(it)
            assert difference(seen(it)["model"], before["model"])
        assert difference(seen(it), before) is None

    assert difference(train(it, watch=attempt), plain) is None
    assert gates == {"", "Surgery Dropping", "Gates Surgery Dropping"}  # before, active and not, in file order


def fail_within_a_step(it: Session, given: list[tuple[Tensor, Tensor]]) -> None:
    """A step that is taken, and one that ends before the optimizer's, with scaled rates."""
    whole_step(it, *given[1])
    it.enter()
    it.before_backward(it.model(given[2][0]).sum()).backward()
    it.after_backward()
    it.before_optimizer()
    raise ZeroDivisionError


def test_a_trial_that_an_error_leaves_puts_everything_back() -> None:
    it = session(EVERYTHING, half_rate())
    train(it, 2)
    with open_epoch(it, 2) as given:
        whole_step(it, *given[0])
        before = seen(it)
        with pytest.raises(ZeroDivisionError), it.trial():
            fail_within_a_step(it, given)
        assert difference(seen(it), before) is None
        for batch in given[1:]:
            whole_step(it, *batch)
    plain = session(EVERYTHING, half_rate())
    train(plain, 3)
    assert difference(everything(it), everything(plain)) is None


def test_a_trial_in_a_trial_puts_back_what_the_outer_one_had() -> None:
    it = session()
    train(it, 1)
    outside = seen(it)
    with it.trial():
        train(it, 2)
        inside = seen(it)
        with it.trial():
            turn_everything_over(it)
        assert difference(seen(it), inside) is None
        assert "inside a trial" in it.network.held["a trial"]
    assert difference(seen(it), outside) is None


def test_the_network_that_is_tried_may_be_shipped() -> None:
    it = session()
    train(it, 2)
    before = seen(it)
    with it.trial():
        train(it, EPOCHS)
        with it.as_shipped():
            tried = everything(it)["model"]
    with it.as_shipped():
        assert difference(everything(it)["model"], tried)
    assert difference(seen(it), before) is None


def cut_something(it: Session) -> None:
    """Remove the unit of fc3 that a mask closes."""
    keep = torch.ones(8, 8, dtype=torch.bool)
    keep[2] = False
    it.masks.set("cut", "fc3.weight", keep)
    it.masks.set("cut", "fc3.bias", keep[:, 0])
    it.masks.apply()
    it.thin(batches(0)[0][0])


def test_channels_cannot_be_removed_inside_a_trial() -> None:
    it = session("", settings=Settings())
    train(it, 1)
    before = seen(it)
    with it.trial(), pytest.raises(CompressError, match="channels cannot be removed inside a trial"):
        cut_something(it)
    assert difference(seen(it), before) is None
    cut_something(it)
    assert it.network.parameters["fc3.weight"].shape == (7, 8)
    cut = seen(it)
    with it.trial():  # of the thinned network
        train(it, 2)
    assert difference(seen(it), cut) is None
    train(it)


def test_a_trial_cannot_begin_within_a_step() -> None:
    it = session()
    with it.epoch(0):
        it.enter()
        with pytest.raises(CompressError, match="within a step: before_backward was not called"), it.trial():
            pass
        it.abandon()
