"""A budget: what is left of the dense network's MACs or parameters, at most, after thinning."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from compressor.rates.agp import agp
from compressor.rates.rate import BudgetGoal, Rate, SparsityGoal, State
from compressor.thinning import Unit
from compressor.timing import Window

Left = Annotated[float, Field(gt=0, le=1)]
"""A fraction that is left."""


class Budget(Rate):
    """A budget. Subclasses have the name of what is counted."""

    main: ClassVar[str] = "left"
    unit: ClassVar[Unit]

    left: Left = Field(description="fraction of the dense network's cost that is left at most")
    initial: Left | None = Field(
        default=None,
        description="fraction that is left at the first event, from which it falls along AGP's cubic; default: all"
        " at once",
    )

    @model_validator(mode="after")
    def _falls(self) -> Self:
        if self.initial is not None and self.initial < self.left:
            raise ValueError(f"initial should be at least left ({self.left:g}), got {self.initial:g}")
        return self

    def now(self, window: Window, time: int) -> BudgetGoal:
        """Return the budget at `time`, in the window's unit."""
        left = self.left if self.initial is None else agp(self.initial, self.left, window, time)
        return BudgetGoal(left, self.unit)

    def goal(self, window: Window, time: int, state: State) -> BudgetGoal:
        return self.now(window, time)

    def unknown(self) -> None:
        """Return None: the counts follow from the widths, where they do not depend on the scores."""


class MacsBudget(Budget, name="macs"):
    """Prune until at most a part of the dense network's MACs is left after thinning."""

    example: ClassVar[str] = "{macs: 0.5}"
    meant: ClassVar[Sequence[str]] = ("flops", "mac", "madds", "operations")
    unit: ClassVar[Unit] = "macs"


class ParametersBudget(Budget, name="parameters"):
    """Prune until at most a part of the dense network's parameters is left after thinning."""

    example: ClassVar[str] = "{parameters: 0.5}"
    unit: ClassVar[Unit] = "parameters"


def least_sparsity(totals: Iterable[int], fits: Callable[[SparsityGoal], bool]) -> SparsityGoal:
    """Return the smallest k / n (k = 0 ... n, n of `totals`) that `fits`, by bisection; 1 where none does.

    `fits` is false up to a sparsity, and true from it on. Counts are exact: k of n structures.
    """
    places = sorted(
        {Fraction(pruned, total) for total in totals if total for pruned in range(total + 1)} | {Fraction(1)}
    )
    found = bisect_left(places, True, key=lambda place: fits(exactly(place)))
    return exactly(places[min(found, len(places) - 1)])


def exactly(sparsity: Fraction) -> SparsityGoal:
    """Return a sparsity whose counts are rounded down without a floating-point error."""
    return SparsityGoal(float(sparsity), lambda total: sparsity.numerator * total // sparsity.denominator)
