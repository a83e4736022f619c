"""How many entries of the masks in force change."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from compressor.sparsity.counting import count_nonzero

_PIECE = 2**16
"""The number of entries that are compared at once."""

Change = tuple[int, int]
"""How many entries are pruned now that were not, and how many stay now that were pruned."""


class MaskChanges:
    """The changes of the masks in force since they were last taken. Masks are int8: -1 keeps, 0 prunes.

    A mask is replaced, never written to: until it is compared, the one before is kept, and none is copied.
    """

    def __init__(self) -> None:
        self._before: dict[str, Tensor | None] = {}
        self._counted: dict[str, Change] = {}

    def __bool__(self) -> bool:
        return bool(self._before or self._counted)

    def replaces(self, name: str, before: Tensor | None) -> None:
        """Note that the mask of a weight is going to be replaced; None: it has none."""
        self._before.setdefault(name, before)

    def compare(self, now: Callable[[str], Tensor | None]) -> None:
        """Compare the masks that were replaced with those of `now`."""
        for name, before in self._before.items():
            self._add(name, changed(before, now(name)))
        self._before.clear()

    def skip(self) -> None:
        """Do not compare the masks that were replaced: they have new shapes, and are the same."""
        self._before.clear()

    def removes(self, name: str, entries: int) -> None:
        """Count entries that were kept, and are removed with their channel."""
        self._add(name, (entries, 0))

    def take(self) -> dict[str, Change]:
        """Return the changes by weight, and set all counts to zero."""
        found, self._counted = self._counted, {}
        return {name: change for name, change in found.items() if any(change)}

    def forget(self) -> None:
        """Set all counts to zero, and compare with the next masks only."""
        self._before.clear()
        self._counted.clear()

    def _add(self, name: str, change: Change) -> None:
        pruned, revived = self._counted.get(name, (0, 0))
        self._counted[name] = pruned + change[0], revived + change[1]


def changed(before: Tensor | None, after: Tensor | None) -> Change:
    """Return the change from one mask to another; None: everything stays."""
    if before is after:
        return 0, 0
    if before is None or after is None:
        some = after if before is None else before
        assert some is not None
        pruned = some.numel() - count_nonzero(some)
        return (pruned, 0) if before is None else (0, pruned)
    if before.device.type == "cpu":  # NumPy compares several times as fast, and faster where the result stays in cache
        order: Literal["K", "C"] = "K" if before.stride() == after.stride() else "C"  # as in memory: no copy is made
        old, new = before.numpy().ravel(order), after.numpy().ravel(order)
        pruned = revived = 0
        for first in range(0, old.size, _PIECE):
            piece = old[first : first + _PIECE], new[first : first + _PIECE]
            pruned += int(np.count_nonzero(np.less(*piece)))
            revived += int(np.count_nonzero(np.greater(*piece)))
        return pruned, revived
    return int(torch.count_nonzero(before < after)), int(torch.count_nonzero(before > after))


def kept(bits: Tensor | None, shape: Sequence[int]) -> int:
    """Return how many entries of a weight of `shape` a mask keeps; None: all."""
    return math.prod(shape) if bits is None else count_nonzero(bits)
