"""The base class of all rates: how much is pruned, as a function of time."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from compressor.component import Component, Named
from compressor.thinning import Unit
from compressor.timing import Window

Sparsity = Annotated[float, Field(ge=0, le=1)]
"""A fraction of zeros."""


@dataclass(frozen=True)
class SparsityGoal:
    """A sparsity. `count` returns the number of structures of a total, where it is not the usual rounding."""

    sparsity: float
    count: Callable[[int], int] | None = None


@dataclass(frozen=True)
class ThresholdGoal:
    """A threshold: structures whose score is not above `of[name]` are pruned."""

    of: Mapping[str, float]


@dataclass(frozen=True)
class BudgetGoal:
    """What is left after thinning, at most: the fraction `left` of the dense network's `unit`."""

    left: float
    unit: Unit

    @property
    def name(self) -> str:
        """Return what is counted, in words."""
        return "MACs" if self.unit == "macs" else "parameters"

    def most(self, dense: int) -> int:
        """Return the largest cost within the budget, of a dense network that costs `dense`."""
        return math.floor(Fraction(str(self.left)) * dense)

    def __str__(self) -> str:
        return f"at most {100 * self.left:.4g} % of the dense network's {self.name} after thinning"


@dataclass(frozen=True)
class State:
    """What a rate may use: the weights as they are now, with the masks that the policy made last.

    `memory` belongs to the component instance: it starts empty and is saved with the run. Random numbers are drawn from
    `stream` (None: torch's own generator). `together`: weights that are measured as one; empty: each by itself.
    """

    names: Sequence[str]
    weights: Mapping[str, Tensor]
    before: Callable[[str], Tensor | None] = lambda name: None
    memory: dict[str, Any] = field(default_factory=dict)
    together: Sequence[str] = ()
    stream: torch.Generator | None = None


class Rate(Component):
    """How much is pruned: a sparsity, a threshold or a budget, by time.

    `goal` is called once for all weights of a policy, at each of its events.
    """

    section: ClassVar[str] = "rates"
    by_threshold: ClassVar[bool] = False
    """Whether its goal is a threshold."""
    by_all: ClassVar[bool] = False
    """Whether its threshold changes where weights are measured together."""
    final: ClassVar[bool] = False
    """Whether pruned weights stay pruned."""
    by_itself: ClassVar[bool] = False
    """Whether each structure is pruned at random, independent of the others and of those removed before."""

    def goal(self, window: Window, time: int, state: State) -> SparsityGoal | ThresholdGoal | BudgetGoal:
        """Return the goal at a time of the window.

        Args:
            window: when the policy acts.
            time: epoch or step, in the window's unit.
            state: the weights, the masks, and the memory of the component instance.

        Returns:
            A sparsity, a threshold by weight, or a budget.
        """
        known = self.foresee(window, time)
        if known is None:
            raise TypeError(f"{type(self).__name__} has no goal")
        return known

    def foresee(self, window: Window, time: int) -> SparsityGoal | None:
        """Return the goal where it depends on the time alone.

        Args:
            window: when the policy acts.
            time: epoch or step, in the window's unit.

        Returns:
            A sparsity, or its lower bound where `unknown` says why; None where nothing is known before a run.
        """
        return None

    def unknown(self) -> str | None:
        """Return why it is not known before a run how much is pruned; None where `foresee` is exact."""
        exact = type(self).foresee is not Rate.foresee
        return None if exact else f"`rate: {self.name}` depends on the weights in the run"

    def threshold(self, window: Window, time: int) -> str | None:
        """Return, in words, what replaces a sparsity that is known.

        Args:
            window: when the policy acts.
            time: epoch or step, in the window's unit.

        Returns:
            Words for the plan and the log; None where there are none.
        """
        return None

    def scale(self, window: Window, time: int) -> float | None:
        """Return the factor on survivors in the forward pass, where a mask is used for one step only.

        Args:
            window: when the policy acts.
            time: epoch or step, in the window's unit.

        Returns:
            The factor; None: no factor.
        """
        return None


AnyRate = Annotated[Rate, Named("rate", "rates")]
"""A field that names a rate."""
