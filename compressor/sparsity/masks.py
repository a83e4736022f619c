"""The masks of all policies, and where a masked weight is set to zero."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from compressor.errors import UserError
from compressor.sparsity.cutter import Cutter
from compressor.sparsity.entries import any_nonzero, set_to_zero
from compressor.sparsity.mask_changes import Change, MaskChanges, kept
from compressor.sparsity.pieces import new_like

Mode = Literal["weights", "forward", "dense"]
"""The value of a masked weight between two steps. `weights`: 0. `forward`: the result of the optimizer's step, until
the next forward pass. `dense`: a dense copy that each step updates."""


class Masks:
    """The keep masks of each owner (a policy); a weight stays where all of them keep it.

    A mask is int8, one byte for each weight: -1 (all bits set) keeps, 0 prunes. It is applied by a bitwise AND with the
    weight's own bits: in place, exact, +0.0 even where the weight was negative, infinite or NaN, and nearly as fast as
    a multiplication.
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
        """Whether the weights have their masked values: from `before_forward` to `before_step`."""
        self.changes = 0
        """The number of changes of masks, so that others can see one."""
        self._changed = MaskChanges()

    def set(self, owner: str, name: str, keep: Tensor, mode: Mode = "weights", *, mask_gradients: bool = False) -> None:
        """Replace the mask of one weight that belongs to `owner` by the boolean tensor `keep` (true = stays).

        An owner has one mode for all its masks, the last one that was given. With `mask_gradients` they mask gradients,
        too.
        """
        (self._of_gradients.add if mask_gradients else self._of_gradients.discard)(owner)
        weight = self._parameters[name]
        if keep.shape != weight.shape:
            raise ValueError(f"mask of {name!r}: shape should be {tuple(weight.shape)}, got {tuple(keep.shape)}")
        given = keep.to(weight.device).view(torch.int8)
        bits = torch.neg(given, out=new_like(given))
        self._owned.setdefault(owner, {})[name] = bits.contiguous(memory_format=_layout(weight))
        changed = {name} if self._modes.get(owner, mode) == mode else set(self._owned[owner])
        self._modes[owner] = mode
        for name in changed:
            self._intersect(name)

    def release(self, owner: str) -> None:
        """Drop the masks of `owner`; its weights are no longer pruned where no other owner prunes them."""
        self._modes.pop(owner, None)
        self._of_gradients.discard(owner)
        for name in self._owned.pop(owner, {}):
            self._intersect(name)

    def keep(self, name: str) -> Tensor | None:
        """Return the keep mask of all owners together, as booleans (true = stays); None where nothing is masked."""
        bits = self._in_force(name)
        return None if bits is None else _booleans(bits)

    def _in_force(self, name: str) -> Tensor | None:
        return self._in_forward.get(name, self._after_step.get(name))

    def take_changes(self) -> dict[str, Change]:
        """Return for each weight of two or more dims how many entries were pruned, and how many revived, since the last
        call: by the masks in force then and now. Entries that were kept, and are removed with their channel, are
        pruned.
        """
        if not self._changed:
            return {}
        self._changed.compare(self._in_force)
        return self._changed.take()

    @property
    def in_forward(self) -> bool:
        """Return whether there are masks of the other modes, for which a forward pass changes weights."""
        return bool(self._in_forward)

    def emptied(self) -> frozenset[str]:
        """Return the weights of two or more dims of which nothing stays."""
        every = {**self._after_step, **self._in_forward}
        return frozenset(name for name, bits in every.items() if bits.dim() > 1 and not any_nonzero(bits))

    def before(self, owner: str) -> Callable[[str], Tensor | None]:
        """Return a function that gives the owner's own mask of a weight, as booleans (true = stays), or None."""
        masks = self._owned.get(owner, {})
        return lambda name: _booleans(masks[name]) if name in masks else None

    def others(self, owner: str) -> Callable[[str], Tensor | None]:
        """Return a function that gives the mask that all other owners together have of a weight, or None."""

        def keep(name: str) -> Tensor | None:
            found: Tensor | None = None
            for other, masks in self._owned.items():
                if other != owner and name in masks:
                    mine = _booleans(masks[name])
                    found = mine if found is None else found.logical_and_(mine)
            return found

        return keep

    def names(self, owner: str) -> list[str]:
        """Return the names of the owner's masks."""
        return list(self._owned.get(owner, ()))

    def owned(self, owner: str) -> dict[str, Tensor]:
        """Return the owner's own masks, as booleans (true = stays)."""
        return {name: _booleans(bits) for name, bits in self._owned.get(owner, {}).items()}

    @torch.no_grad()
    def apply(self) -> None:
        """Set masked weights to zero after the optimizer's step, except those that may keep their values between two
        steps.
        """
        for name, bits in self._after_step.items():
            set_to_zero(self._parameters[name], bits)

    @torch.no_grad()
    def before_forward(self) -> None:
        """Set the masked weights of the other modes to zero for the forward pass, and save their values."""
        self._in_pass = True
        for name, bits in self._in_forward.items():
            weight = self._parameters[name].detach()
            if name in self._behind:
                self._behind[name].copy_(weight)
            set_to_zero(weight, bits)

    @torch.no_grad()
    def before_step(self) -> None:
        """Restore the dense copies before the optimizer's step, which updates them; do nothing outside of a step."""
        for name, dense in self._behind.items() if self._in_pass else ():
            self._parameters[name].detach().copy_(dense)
        self._in_pass = False

    @torch.no_grad()
    def zero_gradients(self) -> None:
        """Set gradients to zero where an owner masks them, too."""
        for owner in self._of_gradients:
            for name, bits in self._owned.get(owner, {}).items():
                gradient = self._parameters[name].grad
                if gradient is not None:
                    set_to_zero(gradient, bits)

    def cut(self, cut: "Cutter") -> None:
        """Remove channels from all masks and dense copies, after they were removed from the weights."""
        self._changed.compare(self._in_force)  # in the old shapes
        weights = {name: shape for name, shape in cut.shapes.items() if name in self._parameters and len(shape) > 1}
        before = {name: kept(self._in_force(name), shape) for name, shape in weights.items()}
        for table in (self._behind, *self._owned.values()):
            for name in table:
                table[name] = cut.tensor(name, table[name])
        for name in {name for masks in self._owned.values() for name in masks}:
            self._intersect(name)
        self._changed.skip()
        for name, count in before.items():
            self._changed.removes(name, count - kept(self._in_force(name), self._parameters[name].shape))

    @contextmanager
    def applied(self) -> Iterator[dict[str, Tensor]]:
        """Apply the masks inside the block, as in the forward pass; yield the values that are restored at its end."""
        aside = {name: self._parameters[name].detach().clone() for name in self._in_forward}
        with torch.no_grad():
            for name, bits in self._in_forward.items():
                set_to_zero(self._parameters[name], bits)
        try:
            yield aside
        finally:
            with torch.no_grad():
                for name, value in aside.items():
                    self._parameters[name].copy_(value)

    @torch.no_grad()
    def zero(self, tensors: Mapping[str, Tensor], *, forward: bool) -> None:
        """Apply the masks to other tensors of the weights' names and shapes, such as their averages."""
        for name, bits in {**self._after_step, **(self._in_forward if forward else {})}.items():
            set_to_zero(tensors[name], bits)

    def state_dict(self) -> dict[str, Any]:
        """Return the masks of every owner (int8, -1 keeps and 0 prunes) and their modes."""
        return {
            "owned": {owner: dict(masks) for owner, masks in self._owned.items()},
            "modes": dict(self._modes),
            "of_gradients": sorted(self._of_gradients),
            "changes": self.changes,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load saved masks. Raises `UserError` where their shapes are not those of the weights."""
        self._in_pass = False
        for owner in list(self._owned):
            self.release(owner)
        for owner, masks in state["owned"].items():
            for name, bits in masks.items():
                weight = self._parameters.get(name)
                if weight is None or weight.shape != bits.shape:
                    raise UserError(f"the checkpoint's mask of {name!r} has another shape than this model's weight")
                on_gradients = owner in state["of_gradients"]
                self.set(owner, name, bits.bool(), state["modes"][owner], mask_gradients=on_gradients)
        self.changes = int(state["changes"])
        self._changed.forget()

    def _intersect(self, name: str) -> None:
        self.changes += 1
        if self._parameters[name].dim() > 1:
            self._changed.replaces(name, self._in_force(name))
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


def _booleans(bits: Tensor) -> Tensor:
    """Return a mask as booleans (true = stays)."""
    return torch.ne(bits, 0, out=new_like(bits, torch.bool))


def _layout(weight: Tensor) -> torch.memory_format:
    """Return the memory format of the weight, so that both tensors are read in the same order."""
    if weight.dim() == 4 and weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous():
        return torch.channels_last
    return torch.contiguous_format
