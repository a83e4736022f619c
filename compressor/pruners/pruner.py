"""What every pruner answers: which entries of which weights stay."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from compressor.component import Component, Targets
from compressor.rates.window import Window

Weights = Mapping[str, Tensor]
Remembered = dict[str, Any]

Scope = Literal["layer", "global"]
"""Whether weights are ranked (or measured) tensor by tensor, or all together."""


@dataclass(frozen=True)
class Goal:
    """A share of zeros over some weights taken together."""

    names: tuple[str, ...]
    sparsity: float


class PrunerBase(Component):
    """WHICH weights go. A pruner is asked by a policy, which knows when. Times are in the window's own unit."""

    section: ClassVar[str] = "pruners"

    def goals(self, targets: Targets, window: Window, time: int) -> list[Goal]:
        """The sparsities that the pruner imposes at `time`; empty for pruners that go by threshold."""
        return []

    def threshold(self, targets: Targets, window: Window, time: int) -> str | None:
        """In words, the threshold that the pruner goes by at `time`; None for pruners that go by sparsity."""
        return None

    def keep(
        self, weights: Weights, targets: Targets, window: Window, time: int, memory: Remembered
    ) -> dict[str, Tensor]:
        """Boolean masks by weight name, true = stays. `memory` starts empty and is saved with the run."""
        raise TypeError(f"{type(self).__name__} does not say what it keeps")
