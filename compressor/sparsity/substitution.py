"""Weights that are something else in the forward pass: random, shared, or behind a gate."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn


class Cutter(Protocol):
    """What removes channels from a tensor."""

    def tensor(self, name: str, value: Tensor) -> Tensor:
        """Return what stays of a tensor that has the shape of the parameter `name` as it was."""


class Substitution:
    """Puts other values in the place of parameters for the forward and the backward pass, and takes them away again.

    In between, a parameter's `.grad` is that of the values that were in its place: `after_backward` makes of it the
    gradients of the parameter and of the substitution's own tensors. After an error it is called, too, even where
    `before_forward` failed half-way: it brings back what is in place, and no more.
    """

    order: ClassVar[int] = 0
    """Those of a lower order are put in place first: gates 0, quantizers 1."""

    def before_forward(self) -> None:
        """Put the values of this step in place."""

    def after_backward(self) -> None:
        """Bring the parameters back, with their gradients."""

    def after_step(self) -> None:
        """Do what must hold of the substitution's own tensors after the optimizer's step."""

    def fold(self) -> Mapping[str, Tensor]:
        """Return the values that are shipped, by parameter name, of every parameter that differs from what it holds."""
        return {}

    @property
    def ships(self) -> bool:
        """Whether its inference is that of the plain network that is shipped."""
        return self.inference() is None

    def inference(self) -> AbstractContextManager[None] | None:
        """Return a way of its own to evaluate the folded network, to be entered; None: the plain network's."""
        return None

    def cut(self, cut: Cutter) -> None:
        """Remove from its own tensors the channels that were removed from the network."""


class Substitutions:
    """All substitutions at work, by who put them there; in file order, those of a lower `order` first."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], owners: Sequence[str] = ()) -> None:
        """`owners`: all that may put one there, in file order."""
        self._parameters = parameters
        self._places = {owner: place for place, owner in enumerate(owners)}
        self._by_owner: dict[str, Substitution] = {}
        self._placed: list[Substitution] = []
        self._folded = False

    def __contains__(self, owner: object) -> bool:
        return owner in self._by_owner

    def __iter__(self) -> Iterator[Substitution]:
        return iter(sorted(self._by_owner.values(), key=lambda one: one.order))

    def get(self, owner: str) -> Substitution | None:
        """Return the substitution of one owner."""
        return self._by_owner.get(owner)

    def put(self, owner: str, substitution: Substitution) -> None:
        """Let a substitution be at work from the next step on."""
        self._by_owner[owner] = substitution
        last = len(self._places)
        self._by_owner = dict(sorted(self._by_owner.items(), key=lambda item: self._places.get(item[0], last)))

    def remove(self, owner: str) -> None:
        """Take a substitution out of work."""
        self._by_owner.pop(owner, None)

    def others(self, owner: str) -> list[Substitution]:
        """Return those of all other owners."""
        return [one for key, one in self._by_owner.items() if key != owner]

    def before_forward(self) -> None:
        """Put the values of this step in place."""
        for substitution in self:
            self._placed.append(substitution)
            substitution.before_forward()

    def after_backward(self) -> None:
        """Bring the parameters back, the last one first."""
        while self._placed:
            self._placed.pop().after_backward()

    def withdraw(self) -> None:
        """Bring the parameters back after an error in the step, whatever else fails."""
        while self._placed:
            try:
                self._placed.pop().after_backward()
            except Exception:  # the error that is on its way says more
                continue

    def after_step(self) -> None:
        """Do what must hold after the optimizer's step."""
        for substitution in self:
            substitution.after_step()

    def cut(self, cut: Cutter) -> None:
        """Remove channels from what they hold."""
        for substitution in self:
            substitution.cut(cut)

    def values(self) -> dict[str, Tensor]:
        """Return the values that are shipped of every parameter that differs from what it holds."""
        with self.folded() as aside:
            return {name: self._parameters[name].detach().clone() for name in aside}

    @contextmanager
    def folded(self) -> Iterator[dict[str, Tensor]]:
        """Inside, parameters have the values that are shipped; yields those that are put back at the end.

        Inside another one nothing changes: what is folded would be folded twice.
        """
        aside: dict[str, Tensor] = {}
        if self._folded:
            yield aside
            return
        self._folded = True
        try:
            with torch.no_grad():
                for substitution in self:
                    for name, value in substitution.fold().items():
                        aside.setdefault(name, self._parameters[name].detach().clone())
                        self._parameters[name].copy_(value)
            yield aside
        finally:
            self._folded = False
            with torch.no_grad():
                for name, value in aside.items():
                    self._parameters[name].copy_(value)

    @property
    def own_inference(self) -> bool:
        """Whether some of them answer in another way than the folded network."""
        return not all(substitution.ships for substitution in self)

    @contextmanager
    def inferring(self) -> Iterator[None]:
        """Inside, those that answer in a way of their own do so."""
        with ExitStack() as stack:
            for substitution in self:
                way = substitution.inference()
                if way is not None:
                    stack.enter_context(way)
            yield
