"""What every rate answers: how much is pruned, as a function of time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from compressor.component import Component, Named
from compressor.timing.window import Window

Sparsity = Annotated[float, Field(ge=0, le=1)]
"""A share of zeros."""


@dataclass(frozen=True)
class SparsityGoal:
    """A sparsity. `count` says how many of so many structures that is, where it is not the sparsity's own rounding."""

    sparsity: float
    count: Callable[[int], int] | None = None


@dataclass(frozen=True)
class ThresholdGoal:
    """What is not above `of[name]` is pruned."""

    of: Mapping[str, float]


@dataclass(frozen=True)
class State:
    """What a rate may look at: the weights as they are now, with the masks that the policy made last.

    `memory` is the component instance's: it starts empty and is saved with the run. `stream` is what random numbers are
    drawn from; None: torch's own generator. `together`: all weights that are measured as one; none: each by itself.
    """

    names: Sequence[str]
    weights: Mapping[str, Tensor]
    before: Callable[[str], Tensor | None] = lambda name: None
    memory: dict[str, Any] = field(default_factory=dict)
    together: Sequence[str] = ()
    stream: torch.Generator | None = None


class Rate(Component):
    """How much is pruned: a sparsity or a threshold, by time.

    `goal` is asked once for all weights of a policy, at each of its events.
    """

    section: ClassVar[str] = "rates"
    by_threshold: ClassVar[bool] = False
    """Whether its goal is a threshold."""
    by_all: ClassVar[bool] = False
    """Whether its threshold is another one where weights are taken together."""
    final: ClassVar[bool] = False
    """Whether what is pruned stays pruned."""
    by_itself: ClassVar[bool] = False
    """Whether each structure is pruned by chance, whatever becomes of the others and what was removed before."""

    def goal(self, window: Window, time: int, state: State) -> SparsityGoal | ThresholdGoal:
        """Return what is to be reached at `time`, in the window's unit."""
        known = self.foresee(window, time)
        if known is None:
            raise TypeError(f"{type(self).__name__} has no goal")
        return known

    def foresee(self, window: Window, time: int) -> SparsityGoal | None:
        """Return the goal where it is a sparsity that is a function of time alone, or else the least that is sure."""
        return None

    def unknown(self) -> str | None:
        """Return why nobody knows before a run how much it prunes; None where `foresee` says it exactly."""
        exact = type(self).foresee is not Rate.foresee
        return None if exact else f"`rate: {self.name}` depends on what it finds"

    def threshold(self, window: Window, time: int) -> str | None:
        """Return, in words, what stands in the place of a sparsity that is known; None where there is none."""
        return None

    def scale(self, window: Window, time: int) -> float | None:
        """Return what survivors are multiplied by in the forward pass, where a mask lives for one step; None: never."""
        return None


AnyRate = Annotated[Rate, Named("rate", "rates")]
"""A field that names a rate."""
