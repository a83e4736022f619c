"""What every pruner answers: which entries of which weights stay."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from compressor.component import Component, Targets
from compressor.rates.window import Window

Weights = Mapping[str, Tensor]
Remembered = dict[str, Any]

Before = Callable[[str], Tensor | None]
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
    needs_double_copies: ClassVar[bool] = False
    """Whether it brings weights back by what they became behind the mask."""

    def goals(self, targets: Targets, window: Window, time: int) -> list[Goal]:
        """The sparsities that the pruner imposes at `time`; empty for pruners that go by threshold."""
        return []

    def threshold(self, targets: Targets, window: Window, time: int) -> str | None:
        """In words, the threshold that the pruner goes by at `time`; None for pruners that go by sparsity."""
        return None

    def keep(
        self, weights: Weights, targets: Targets, window: Window, time: int, memory: Remembered
    ) -> dict[str, Tensor]:
        """Boolean masks by weight name, true = stays.

        `memory` holds the instance's constants: it starts empty, is shared by the policies that name one instance, and
        is saved with the run.
        """
        raise TypeError(f"{type(self).__name__} does not say what it keeps")

    def splice(
        self, weights: Weights, targets: Targets, window: Window, time: int, memory: Remembered, before: Before
    ) -> dict[str, Tensor]:
        """`keep`, for pruners that go on from the mask that their policy has now: `before` gives it by weight name."""
        return self.keep(weights, targets, window, time, memory)
