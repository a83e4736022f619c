"""The one owner of every mask."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from compressor.errors import UserError

_SAME_WIDTH = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

MaskState = dict[str, dict[str, Tensor]]


class Masks:
    """Each owner (a policy) has its own keep-masks; in force is their intersection, applied after the optimizer's step.

    A mask is int8, one byte a weight: -1 (all bits set) keeps, 0 prunes. Applying it is a bitwise AND with the weight's
    own bits: in place, exact, +0.0 even where the weight was negative, infinite or NaN, as fast as a multiplication.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._parameters = dict(parameters)
        self._owned: MaskState = {}
        self._in_force: dict[str, Tensor] = {}

    def set(self, owner: str, name: str, keep: Tensor) -> None:
        """Replace `owner`'s contribution to one weight by the boolean tensor `keep` (true = stays)."""
        weight = self._parameters[name]
        if keep.shape != weight.shape:
            raise ValueError(f"mask of {name!r}: shape should be {tuple(weight.shape)}, got {tuple(keep.shape)}")
        bits = keep.to(device=weight.device, dtype=torch.int8).neg_()
        self._owned.setdefault(owner, {})[name] = bits.contiguous(memory_format=_layout(weight))
        self._intersect(name)

    def release(self, owner: str, name: str) -> None:
        """Drop `owner`'s contribution to one weight; what it pruned is free unless another owner prunes it too."""
        self._owned.get(owner, {}).pop(name, None)
        self._intersect(name)

    def keep(self, name: str) -> Tensor | None:
        """The mask in force as booleans (true = kept), or None where nothing is masked."""
        bits = self._in_force.get(name)
        return None if bits is None else bits.bool()

    @property
    def names(self) -> list[str]:
        """The weights that have a mask in force."""
        return list(self._in_force)

    @torch.no_grad()
    def apply(self) -> None:
        """Zero every masked weight, in place."""
        for name, bits in self._in_force.items():
            weight = self._parameters[name].detach()
            weight.view(_SAME_WIDTH[weight.element_size()]).bitwise_and_(bits)

    def state_dict(self) -> MaskState:
        """Every owner's contributions: int8, -1 keeps and 0 prunes."""
        return {owner: dict(masks) for owner, masks in self._owned.items()}

    def load_state_dict(self, state: MaskState) -> None:
        """Take over a saved state; raises `UserError` where it does not fit the weights."""
        for owner, masks in state.items():
            for name, bits in masks.items():
                weight = self._parameters.get(name)
                if weight is None or weight.shape != bits.shape:
                    raise UserError(f"the checkpoint's mask of {name!r} does not fit this model")
                self.set(owner, name, bits.bool())

    def _intersect(self, name: str) -> None:
        parts = [masks[name] for masks in self._owned.values() if name in masks]
        if not parts:
            self._in_force.pop(name, None)
            return
        in_force = parts[0]
        for part in parts[1:]:
            in_force = in_force & part
        self._in_force[name] = in_force


def _layout(weight: Tensor) -> torch.memory_format:
    """The memory format of the weight, so that masking walks both tensors in the same order."""
    if weight.dim() == 4 and weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous():
        return torch.channels_last
    return torch.contiguous_format
