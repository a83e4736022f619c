"""The base class of all pruners: which entries of which weights stay."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from compressor.component import Component, Targets
from compressor.criteria import Criterion, Given
from compressor.rates import BudgetGoal
from compressor.sparsity import Channels, pruned_count
from compressor.sparsity.structures import ELEMENTS, Structure
from compressor.thinning import Cost, Unit
from compressor.timing import Window

Shapes = Mapping[str, Sequence[int]]
Scope = Literal["layer", "global"]
"""Whether weights are ranked (or measured) one by one, or all together."""


def _nothing(name: str) -> Tensor | None:
    return None


@dataclass(frozen=True)
class Request:
    """The data for a pruner at one time, in its window's own unit.

    `memory` holds the instance's constants: it starts empty, is shared by the policies that name one instance, and is
    saved with the run. `before` returns the policy's present mask of a weight, `others` that of all other policies.
    `dense` has the weights' shapes before channels were removed: sparsities refer to them.
    """

    weights: Mapping[str, Tensor]
    targets: Targets
    window: Window
    time: int
    memory: dict[str, Any] = field(default_factory=dict)
    before: Callable[[str], Tensor | None] = _nothing
    others: Callable[[str], Tensor | None] = _nothing
    dense: Shapes = field(default_factory=dict)
    channels: Callable[[], Channels] = Channels
    given: Callable[[Criterion], Given] | None = None
    """Returns the data that a criterion may use; None: the weights only."""
    types: Mapping[str, str] = field(default_factory=dict)
    """The classes of the weights' modules, by weight, where they are known."""
    cost: Callable[[Unit], Cost] | None = None
    """Returns what the network costs, for budgets; None: budgets cannot be met."""
    stream: torch.Generator | None = None
    """The generator of random numbers; None: torch's own."""

    def look(self, criterion: Criterion) -> Given:
        """Return the data that a criterion may use."""
        return Given(self.weights, criterion.name, self.stream) if self.given is None else self.given(criterion)

    def record_zeros(self, names: Sequence[str], zeros: int) -> None:
        """Record the number of zeros where whole channels, or equal groups, cannot give the exact sparsity."""
        self.memory.setdefault("promised", {})["+".join(names)] = zeros

    def removed(self, name: str) -> int:
        """Return how many entries of a weight were removed."""
        now = self.weights[name].shape
        return ELEMENTS.count(self.dense.get(name, now)) - ELEMENTS.count(now)


@dataclass(frozen=True)
class Goal:
    """A sparsity of some weights together; `count` returns how many of a number of structures are pruned."""

    names: tuple[str, ...]
    sparsity: float
    structure: Structure = ELEMENTS
    count: Callable[[float, int], int] = pruned_count

    @property
    def key(self) -> str:
        """Return the name of the goal in `Request.record_zeros`."""
        return "+".join(self.names)

    def zeros(self, shapes: Shapes) -> int:
        """Return the zeros that the goal makes at least, in weights of these shapes."""
        counts = [self.structure.count(shapes[name]) for name in self.names]
        smallest = min(self.structure.size(shapes[name]) for name in self.names)
        return self.count(self.sparsity, sum(counts)) * smallest


@dataclass(frozen=True)
class ReconstructionData:
    """The number of calibration batches of a reconstruction, and of positions of each image's map."""

    batches: int
    points: int


class PrunerBase(Component):
    """WHICH weights are pruned. A policy says when."""

    section: ClassVar[str] = "pruners"
    needs_double_copies: ClassVar[bool] = False
    """Whether it restores weights by their values in the dense copy."""

    @property
    def unit(self) -> Structure:
        """Return the structure: the unit that is pruned. Whole outputs of a layer are pruned with their companions."""
        return ELEMENTS

    @property
    def measured(self) -> Criterion | None:
        """Return the criterion that needs more than the weights themselves; None where they are enough."""
        return None

    @property
    def needs(self) -> frozenset[str]:
        """Return what that criterion needs, by the names of `Criterion.needs`."""
        return frozenset() if self.measured is None else self.measured.needs

    @property
    def images(self) -> int:
        """Return the number of calibration batches."""
        return 8

    @property
    def reconstruction(self) -> ReconstructionData | None:
        """Return the data for reconstructing the outputs of the pruned layers; None without reconstruction."""
        return None

    def scale(self, window: Window, time: int) -> float | None:
        """Return the factor on survivors in the forward pass, where a mask is drawn for one step; None: no factor."""
        return None

    def cuts(self, targets: Targets) -> dict[str, Structure]:
        """Return the structure of each selected weight."""
        return {name: self.unit for selected in targets.values() for name in selected}

    def whole_outputs(self, targets: Targets, names: Sequence[str]) -> list[str]:
        """Return the masked weights that lose whole outputs, with their companions."""
        cuts = self.cuts(targets)
        return [name for name in names if cuts.get(name, self.unit).of_outputs]

    @property
    def extends(self) -> bool:
        """Return whether weights that share channels with the selected ones are pruned with them."""
        return False

    def goals(self, targets: Targets, window: Window, time: int, shapes: Shapes | None = None) -> list[Goal]:
        """Return the sparsities that are reached at least at `time`; empty for pruners with a threshold.

        With the weights' `shapes` there is one for each weight where it is known, else one for some weights together.
        """
        return []

    def budget(self, window: Window, time: int) -> BudgetGoal | None:
        """Return what is left at most after thinning, at `time`; None for pruners without a budget."""
        return None

    def unknown(self, targets: Targets) -> dict[str, str]:
        """Return why `goals` is not exact, for each weight for which it is not."""
        if type(self).goals is not PrunerBase.goals:
            return {}
        said = f"{self.name} has no `goals`: how much it prunes is not known"
        return {name: said for selected in targets.values() for name in selected}

    def threshold(self, targets: Targets, window: Window, time: int) -> str | None:
        """Return in words the pruner's threshold at `time`; None for pruners with a sparsity."""
        return None

    def misfits(self, targets: Targets, shapes: Shapes) -> list[str]:
        """Return one line for each weight that this pruner cannot prune."""
        found = [(name, structure.misfit(shapes[name])) for name, structure in self.cuts(targets).items()]
        return [f"{name}: {why}" for name, why in found if why is not None]

    def keep(self, request: Request) -> dict[str, Tensor]:
        """Return boolean keep masks by weight name, true = stays."""
        raise TypeError(f"{type(self).__name__} has no `keep`")
