"""Substitutions: values that are used in the forward pass in place of a parameter (random, shared or gated)."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import ClassVar

import torch
from torch import Tensor, nn

from compressor.sparsity.cutter import Cutter


class Substitution:
    """Use other values in place of parameters in the forward and the backward pass; then restore the parameters.

    Between the two, the `.grad` of a parameter is the gradient of the values in its place: `after_backward` computes
    from it the gradients of the parameter and of the substitution's own tensors. It is also called after an error, even
    where `before_forward` failed half-way: it restores what was replaced, and no more.
    """

    order: ClassVar[int] = 0
    """Substitutions of a lower order are put in place first: gates 0, quantizers 1."""

    def before_forward(self) -> None:
        """Put the values of this step in place of the parameters."""

    def after_backward(self) -> None:
        """Restore the parameters and set their gradients."""

    def after_step(self) -> None:
        """Update the substitution's own tensors after the optimizer's step, where they must fulfil a condition."""

    def fold(self) -> Mapping[str, Tensor]:
        """Return the values that are shipped, by parameter name, for every parameter that has another value now."""
        return {}

    def gated(self) -> Collection[str]:
        """Return the parameters that cannot be reconstructed: what is written to them would be changed, or lost."""
        return self.fold()

    @property
    def ships(self) -> bool:
        """Return whether the network that is shipped computes what this substitution computes in inference."""
        return self.inference() is None

    def inference(self) -> AbstractContextManager[None] | None:
        """Return a context in which the folded network is evaluated in another way; None: the plain network."""
        return None

    def cut(self, cut: Cutter) -> None:
        """Remove from the substitution's own tensors the channels that were removed from the network."""


class Substitutions:
    """All substitutions of a run, by owner; in file order, those of a lower `order` first."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], owners: Sequence[str] = ()) -> None:
        """`owners`: all possible owners, in file order."""
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
        """Return the substitution of an owner."""
        return self._by_owner.get(owner)

    def put(self, owner: str, substitution: Substitution) -> None:
        """Use a substitution from the next step on."""
        self._by_owner[owner] = substitution
        last = len(self._places)
        self._by_owner = dict(sorted(self._by_owner.items(), key=lambda item: self._places.get(item[0], last)))

    def remove(self, owner: str) -> None:
        """Stop the use of an owner's substitution."""
        self._by_owner.pop(owner, None)

    def owned(self) -> dict[str, Substitution]:
        """Return the substitution of each owner."""
        return dict(self._by_owner)

    def restore(self, owned: Mapping[str, Substitution]) -> None:
        """Use the substitutions of an earlier time."""
        self._by_owner = dict(owned)

    def others(self, owner: str) -> list[Substitution]:
        """Return the substitutions of all other owners."""
        return [one for key, one in self._by_owner.items() if key != owner]

    def before_forward(self) -> None:
        """Put the values of this step in place."""
        for substitution in self:
            self._placed.append(substitution)
            substitution.before_forward()

    def after_backward(self) -> None:
        """Restore the parameters, in reverse order."""
        while self._placed:
            self._placed.pop().after_backward()

    def withdraw(self) -> None:
        """Restore the parameters after an error in the step, also where one of the substitutions fails."""
        while self._placed:
            try:
                self._placed.pop().after_backward()
            except Exception:  # the error that is on its way says more
                continue

    def after_step(self) -> None:
        """Call `after_step` of all substitutions."""
        for substitution in self:
            substitution.after_step()

    def cut(self, cut: Cutter) -> None:
        """Remove channels from the tensors of all substitutions."""
        for substitution in self:
            substitution.cut(cut)

    def values(self) -> dict[str, Tensor]:
        """Return the values that are shipped, for every parameter that has another value now."""
        with self.folded() as aside:
            return {name: self._parameters[name].detach().clone() for name in aside}

    @contextmanager
    def folded(self) -> Iterator[dict[str, Tensor]]:
        """Set parameters to the values that are shipped inside the block; yield the values that are restored at its
        end.

        Inside another such block nothing changes: values would be folded twice.
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
        """Return whether a substitution computes in inference something else than the folded network."""
        return not all(substitution.ships for substitution in self)

    @contextmanager
    def inferring(self) -> Iterator[None]:
        """Evaluate the network inside the block as the substitutions do it, where they have a way of their own."""
        with ExitStack() as stack:
            for substitution in self:
                way = substitution.inference()
                if way is not None:
                    stack.enter_context(way)
            yield
