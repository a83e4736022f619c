"""A toy substitution of order 1 beside a gate: the order of both, what is shipped, errors, removed channels."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar

import pytest
import torch
from bare import batches, everything, open_epoch, parameters, session, train, whole_step
from helpers import difference
from torch import Tensor

from compressor.session.session import Session, Settings
from compressor.sparsity.substitution import Cutter, Substitution


class Toy(Substitution):
    """Use `made(weight)` instead of fc2.weight, and record the calls."""

    title = "toy"

    def __init__(self, it: Session, calls: list[str]) -> None:
        self.parameter, self.calls = it.network.parameters["fc2.weight"], calls
        self.aside: Tensor | None = None
        self.own = torch.arange(64.0).reshape(8, 8)

    def made(self, weight: Tensor) -> Tensor:
        raise NotImplementedError

    @torch.no_grad()
    def before_forward(self) -> None:
        self.calls.append(f"{self.title} in")
        self.aside = self.parameter.detach().clone()
        self.parameter.copy_(self.made(self.parameter))

    @torch.no_grad()
    def after_backward(self) -> None:
        self.calls.append(f"{self.title} out")
        if self.aside is not None:
            self.parameter.copy_(self.aside)
            self.aside = None

    def after_step(self) -> None:
        self.calls.append(f"{self.title} stepped")

    def fold(self) -> Mapping[str, Tensor]:
        return {"fc2.weight": self.made(self.parameter.detach())}

    def cut(self, cut: Cutter) -> None:
        self.calls.append(f"{self.title} cut")
        self.own = cut.tensor("fc2.weight", self.own)


class Gate(Toy):
    """Three times the weight."""

    title = "gate"

    def made(self, weight: Tensor) -> Tensor:
        return 3 * weight


class Quantizer(Toy):
    """The weight in whole eighths, with straight-through gradients; evaluated in a way of its own."""

    title = "quantizer"
    order: ClassVar[int] = 1

    def made(self, weight: Tensor) -> Tensor:
        return (8 * weight).round() / 8

    @contextmanager
    def inference(self) -> Iterator[None]:  # type: ignore[override]
        self.calls.append("own inference")
        yield
        self.calls.append("own inference over")


@pytest.fixture
def made() -> tuple[Session, list[str]]:
    """The quantizer is put there first: it is the gate's order that puts that before it."""
    it, calls = session("", settings=Settings()), list[str]()
    it.substitutions.put("quantizer", Quantizer(it, calls))
    it.substitutions.put("gate", Gate(it, calls))
    return it, calls


def test_a_quantizer_is_put_in_place_after_the_gate_and_taken_away_before_it(made: tuple[Session, list[str]]) -> None:
    it, calls = made
    with open_epoch(it) as given:
        live = parameters(it)["fc2.weight"]
        with it.step() as step:
            placed = parameters(it)["fc2.weight"]
            step.backward(it.model(given[0][0]).sum())
        assert torch.equal(placed, (8 * 3 * live).round() / 8)
        assert not torch.equal(placed, 3 * ((8 * live).round() / 8))
        assert calls == ["gate in", "quantizer in", "quantizer out", "gate out", "gate stepped", "quantizer stepped"]


def test_of_one_order_the_file_decides_whenever_they_were_put_there() -> None:
    text = """
version: 2
policies:
  - gate: {class: DropConnect, modules: [fc5]}
    starting_epoch: 1
  - gate: {class: NetworkSurgery, weights: [fc2.weight], c: 0.3}
    starting_epoch: 0
"""
    it = session(text)
    train(it, 1)
    assert [type(one).__name__ for one in it.substitutions] == ["Surgery"]
    train(it, 2)
    assert [type(one).__name__ for one in it.substitutions] == ["Dropping", "Surgery"]


def test_what_is_shipped_is_the_quantized_gate_and_evaluated_in_its_own_way(made: tuple[Session, list[str]]) -> None:
    it, calls = made
    before = everything(it)
    live = before["model"]["fc2.weight"]
    shipped = (8 * 3 * live).round() / 8
    assert torch.equal(it.substitutions.values()["fc2.weight"], shipped)
    assert it.has_own_inference
    with it.as_shipped() as record:
        assert torch.equal(parameters(it)["fc2.weight"], shipped)
        assert torch.equal(record.live["fc2.weight"], live)
        assert calls == []
        with it.own_inference():
            assert calls == ["own inference"]
        assert calls == ["own inference", "own inference over"]
    assert difference(everything(it), before) is None
    it.substitutions.remove("quantizer")
    assert not it.has_own_inference
    with it.as_shipped(), it.own_inference():
        assert torch.equal(parameters(it)["fc2.weight"], 3 * live)
    assert calls == ["own inference", "own inference over"]


def test_an_error_while_folding_leaves_the_weights(made: tuple[Session, list[str]]) -> None:
    it, _ = made
    before = parameters(it)
    quantizer = it.substitutions.get("quantizer")
    quantizer.fold = lambda: 1 / 0  # type: ignore[union-attr, method-assign, assignment, return-value]
    with pytest.raises(ZeroDivisionError), it.as_shipped():
        pass
    assert difference(parameters(it), before) is None
    del quantizer.fold  # type: ignore[union-attr]
    with it.as_shipped():
        assert difference(parameters(it), before)


@pytest.mark.parametrize("fails", ["gate", "quantizer"])
def test_an_error_in_the_first_or_second_one_takes_both_away(made: tuple[Session, list[str]], fails: str) -> None:
    it, calls = made
    with open_epoch(it) as given:
        before = parameters(it)
        one = it.substitutions.get(fails)
        one.made = lambda weight: 1 / 0  # type: ignore[union-attr, method-assign, assignment]
        with pytest.raises(ZeroDivisionError):
            whole_step(it, *given[0])
        assert difference(parameters(it), before) is None
        assert calls[-1] == "gate out"
        del one.made  # type: ignore[union-attr]
        whole_step(it, *given[0])
        assert calls[-2:] == ["gate stepped", "quantizer stepped"]


def test_both_are_told_of_removed_channels(made: tuple[Session, list[str]]) -> None:
    it, calls = made
    keep = torch.ones(8, 8, dtype=torch.bool)
    keep[5] = False
    it.masks.set("mine", "fc2.weight", keep)
    it.masks.set("mine", "fc2.bias", keep[:, 0])
    it.masks.apply()
    # fc3 reads fc2 directly: its outputs stay equal without unit 5, whatever values the others have.
    it.thin(batches(0)[0][0])
    assert calls == ["gate cut", "quantizer cut"]
    for title in ("gate", "quantizer"):
        own = it.substitutions.get(title).own  # type: ignore[union-attr]
        assert torch.equal(own, torch.arange(64.0).reshape(8, 8)[keep[:, 0]])
    train(it, 1)
    assert it.network.parameters["fc2.weight"].shape == (7, 8)
