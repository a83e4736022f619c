"""The one owner of every mask."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from compressor.errors import UserError

_SAME_WIDTH = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

Mode = Literal["weights", "forward", "dense"]
"""What a masked weight is between two steps: 0 (`weights`); what the step made of it, until the next forward pass
(`forward`); a dense copy that every step goes on updating (`dense`)."""


class Cutter(Protocol):
    """What removes channels from a tensor."""

    def tensor(self, name: str, value: Tensor) -> Tensor:
        """What stays of a tensor that has the shape of the parameter `name` as it was."""


class Masks:
    """Each owner (a policy) has its own keep-masks; in force is their intersection.

    A mask is int8, one byte a weight: -1 (all bits set) keeps, 0 prunes. Applying it is a bitwise AND with the weight's
    own bits: in place, exact, +0.0 even where the weight was negative, infinite or NaN, and nearly as fast as a
    multiplication.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._parameters = dict(parameters)
        self._owned: dict[str, dict[str, Tensor]] = {}
        self._modes: dict[str, Mode] = {}
        self._of_gradients: set[str] = set()
        self._after_step: dict[str, Tensor] = {}
        self._in_forward: dict[str, Tensor] = {}
        self._behind: dict[str, Tensor] = {}
        self._in_pass = False
        """Whether the dense copies are what the weights go back to: from `before_forward` to `before_step`."""
        self.changes = 0
        """How often a mask was set or released, so that others notice."""

    def set(self, owner: str, name: str, keep: Tensor, mode: Mode = "weights", *, mask_gradients: bool = False) -> None:
        """Replace `owner`'s contribution to one weight by the boolean tensor `keep` (true = stays).

        An owner has one mode for all its masks, the last one it gave; with `mask_gradients` they act on gradients, too.
        """
        (self._of_gradients.add if mask_gradients else self._of_gradients.discard)(owner)
        weight = self._parameters[name]
        if keep.shape != weight.shape:
            raise ValueError(f"mask of {name!r}: shape should be {tuple(weight.shape)}, got {tuple(keep.shape)}")
        bits = keep.to(weight.device).view(torch.int8).neg()
        self._owned.setdefault(owner, {})[name] = bits.contiguous(memory_format=_layout(weight))
        changed = {name} if self._modes.get(owner, mode) == mode else set(self._owned[owner])
        self._modes[owner] = mode
        for name in changed:
            self._intersect(name)

    def release(self, owner: str) -> None:
        """Drop `owner`'s masks; what it pruned is free unless another owner prunes it too."""
        self._modes.pop(owner, None)
        self._of_gradients.discard(owner)
        for name in self._owned.pop(owner, {}):
            self._intersect(name)

    def keep(self, name: str) -> Tensor | None:
        """The mask in force as booleans (true = kept), or None where nothing is masked."""
        bits = self._in_forward.get(name, self._after_step.get(name))
        return None if bits is None else bits.bool()

    def before(self, owner: str) -> Callable[[str], Tensor | None]:
        """`owner`'s own mask of a weight by its name, as booleans (true = kept); None where it has none."""
        masks = self._owned.get(owner, {})
        return lambda name: masks[name].bool() if name in masks else None

    def owned(self, owner: str) -> dict[str, Tensor]:
        """`owner`'s own masks, as booleans (true = kept)."""
        return {name: bits.bool() for name, bits in self._owned.get(owner, {}).items()}

    @torch.no_grad()
    def apply(self) -> None:
        """After the optimizer's step: zero every masked weight, but those that an owner lets live between two steps."""
        for name, bits in self._after_step.items():
            _zero(self._parameters[name], bits)

    @torch.no_grad()
    def before_forward(self) -> None:
        """Put the masked weights in place of those that live on behind their mask, whose values are set aside."""
        self._in_pass = True
        for name, bits in self._in_forward.items():
            weight = self._parameters[name].detach()
            if name in self._behind:
                self._behind[name].copy_(weight)
            _zero(weight, bits)

    @torch.no_grad()
    def before_step(self) -> None:
        """Before the optimizer's step: bring the dense copies back, to be updated; nothing outside of a step."""
        for name, dense in self._behind.items() if self._in_pass else ():
            self._parameters[name].detach().copy_(dense)
        self._in_pass = False

    @torch.no_grad()
    def zero_gradients(self) -> None:
        """Zero the gradients of what the owners mask whose masks act on gradients, too."""
        for owner in self._of_gradients:
            for name, bits in self._owned.get(owner, {}).items():
                gradient = self._parameters[name].grad
                if gradient is not None:
                    _zero(gradient, bits)

    def cut(self, cut: "Cutter") -> None:
        """After channels were removed from the weights: remove them from every owner's masks, and the dense copies."""
        for table in (self._behind, *self._owned.values()):
            for name in table:
                table[name] = cut.tensor(name, table[name])
        for name in {name for masks in self._owned.values() for name in masks}:
            self._intersect(name)

    @contextmanager
    def folded(self) -> Iterator[dict[str, Tensor]]:
        """Inside, every weight is masked as in the forward pass; yields the values that are put back at the end."""
        aside = {name: self._parameters[name].detach().clone() for name in self._in_forward}
        with torch.no_grad():
            for name, bits in self._in_forward.items():
                _zero(self._parameters[name], bits)
        try:
            yield aside
        finally:
            with torch.no_grad():
                for name, value in aside.items():
                    self._parameters[name].copy_(value)

    @torch.no_grad()
    def zero(self, tensors: Mapping[str, Tensor], *, forward: bool) -> None:
        """Zero what is masked in other tensors of the weights' names and shapes: averages of them."""
        for name, bits in {**self._after_step, **(self._in_forward if forward else {})}.items():
            _zero(tensors[name], bits)

    def state_dict(self) -> dict[str, Any]:
        """Every owner's contributions (int8, -1 keeps and 0 prunes) and how they act."""
        return {
            "owned": {owner: dict(masks) for owner, masks in self._owned.items()},
            "modes": dict(self._modes),
            "of_gradients": sorted(self._of_gradients),
            "changes": self.changes,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state; raises `UserError` where it does not fit the weights."""
        for owner in list(self._owned):
            self.release(owner)
        for owner, masks in state["owned"].items():
            for name, bits in masks.items():
                weight = self._parameters.get(name)
                if weight is None or weight.shape != bits.shape:
                    raise UserError(f"the checkpoint's mask of {name!r} does not fit this model")
                on_gradients = owner in state["of_gradients"]
                self.set(owner, name, bits.bool(), state["modes"][owner], mask_gradients=on_gradients)
        self.changes = int(state["changes"])

    def _intersect(self, name: str) -> None:
        self.changes += 1
        parts = [(self._modes[owner], masks[name]) for owner, masks in self._owned.items() if name in masks]
        _put(self._after_step, name, [bits for mode, bits in parts if mode == "weights"])
        living = any(mode != "weights" for mode, _ in parts)
        _put(self._in_forward, name, [bits for _, bits in parts] if living else [])
        if any(mode == "dense" for mode, _ in parts):
            self._behind.setdefault(name, self._parameters[name].detach().clone())
        else:
            self._behind.pop(name, None)


def _put(table: dict[str, Tensor], name: str, parts: list[Tensor]) -> None:
    if not parts:
        table.pop(name, None)
        return
    both = parts[0]
    for part in parts[1:]:
        both = both & part
    table[name] = both


def _zero(tensor: Tensor, bits: Tensor) -> None:
    tensor.detach().view(_SAME_WIDTH[tensor.element_size()]).bitwise_and_(bits)


def _layout(weight: Tensor) -> torch.memory_format:
    """The memory format of the weight, so that masking walks both tensors in the same order."""
    if weight.dim() == 4 and weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous():
        return torch.channels_last
    return torch.contiguous_format
