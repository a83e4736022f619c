"""What every pruner answers: which entries of which weights stay."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from compressor.component import Component, Targets
from compressor.criteria import Criterion, Given
from compressor.sparsity.channels import Channels
from compressor.sparsity.structures import ELEMENTS, Structure
from compressor.sparsity.topk import pruned_count
from compressor.timing.window import Window

Shapes = Mapping[str, Sequence[int]]
Scope = Literal["layer", "global"]
"""Whether weights are ranked (or measured) tensor by tensor, or all together."""


def _nothing(name: str) -> Tensor | None:
    return None


@dataclass(frozen=True)
class Asked:
    """What a pruner is asked at one time (in its window's own unit), and what it may look at.

    `memory` holds the instance's constants: it starts empty, is shared by the policies that name one instance, and is
    saved with the run. `before` gives the policy's mask of a weight as it is now. `dense` has the weights' shapes
    before anything was removed: sparsities refer to them.
    """

    weights: Mapping[str, Tensor]
    targets: Targets
    window: Window
    time: int
    memory: dict[str, Any] = field(default_factory=dict)
    before: Callable[[str], Tensor | None] = _nothing
    dense: Shapes = field(default_factory=dict)
    channels: Callable[[], Channels] = Channels
    given: Callable[[Criterion], Given] | None = None
    """What a criterion may look at; None: the weights alone."""
    types: Mapping[str, str] = field(default_factory=dict)
    """The classes of the weights' modules, by weight, where they are known."""
    stream: torch.Generator | None = None
    """What random numbers are drawn from; None: torch's own generator."""

    def look(self, criterion: Criterion) -> Given:
        """Return what a criterion may look at."""
        return Given(self.weights, criterion.name, self.stream) if self.given is None else self.given(criterion)

    def promise(self, names: Sequence[str], zeros: int) -> None:
        """Remember how many zeros there will be where whole channels, or equal groups, cannot give the exact share."""
        self.memory.setdefault("promised", {})["+".join(names)] = zeros

    def removed(self, name: str) -> int:
        """How many entries of a weight are there no more."""
        now = self.weights[name].shape
        return ELEMENTS.count(self.dense.get(name, now)) - ELEMENTS.count(now)


@dataclass(frozen=True)
class Goal:
    """A share of zeros over some weights taken together; `count` is how many of so many structures go."""

    names: tuple[str, ...]
    sparsity: float
    structure: Structure = ELEMENTS
    count: Callable[[float, int], int] = pruned_count

    @property
    def key(self) -> str:
        """What `Asked.promise` calls it."""
        return "+".join(self.names)

    def zeros(self, shapes: Shapes) -> int:
        """The zeros that this makes in weights of these shapes, at least."""
        counts = [self.structure.count(shapes[name]) for name in self.names]
        smallest = min(self.structure.size(shapes[name]) for name in self.names)
        return self.count(self.sparsity, sum(counts)) * smallest


@dataclass(frozen=True)
class Fit:
    """How many training batches are looked at, and how many positions of each image's map."""

    batches: int
    points: int


class PrunerBase(Component):
    """WHICH weights go. A pruner is asked by a policy, which knows when."""

    section: ClassVar[str] = "pruners"
    needs_double_copies: ClassVar[bool] = False
    """Whether it brings weights back by what they became behind the mask."""

    @property
    def ranks(self) -> Structure:
        """What is pruned as one. Whole outputs of a layer go with all that speaks for them."""
        return ELEMENTS

    @property
    def measured(self) -> Criterion | None:
        """The criterion that needs more than the weights themselves; None where they do."""
        return None

    @property
    def needs(self) -> frozenset[str]:
        """What that criterion needs, as it calls it."""
        return frozenset() if self.measured is None else self.measured.needs

    @property
    def images(self) -> int:
        """How many training batches a statistic is taken from."""
        return 8

    @property
    def fit(self) -> Fit | None:
        """On what the weights that stay are fitted to what their layers gave; None where they stay as they are."""
        return None

    def scale(self, window: Window, time: int) -> float | None:
        """What survivors are multiplied by in the forward pass, where a mask is a draw for one step; None: never."""
        return None

    def cuts(self, targets: Targets) -> dict[str, Structure]:
        """What is pruned as one of each selected weight."""
        return {name: self.ranks for selected in targets.values() for name in selected}

    def whole_outputs(self, targets: Targets, names: Sequence[str]) -> list[str]:
        """Of the weights that get a mask those that lose whole outputs, with all that speaks for them."""
        cuts = self.cuts(targets)
        return [name for name in names if cuts.get(name, self.ranks).of_outputs]

    @property
    def extends(self) -> bool:
        """Whether weights that share channels with the selected ones are pruned with them."""
        return False

    def goals(self, targets: Targets, window: Window, time: int, shapes: Shapes | None = None) -> list[Goal]:
        """Return the sparsities that there will be at least at `time`; empty for pruners that go by threshold.

        With the weights' `shapes` there is one for each weight where it is known; else for some weights together.
        """
        return []

    def unknown(self, targets: Targets) -> dict[str, str]:
        """Return why `goals` does not say exactly what will be pruned, of each weight for which that is so."""
        if type(self).goals is not PrunerBase.goals:
            return {}
        said = f"{self.name} does not say how much it prunes"
        return {name: said for selected in targets.values() for name in selected}

    def threshold(self, targets: Targets, window: Window, time: int) -> str | None:
        """In words, the threshold that the pruner goes by at `time`; None for pruners that go by sparsity."""
        return None

    def misfits(self, targets: Targets, shapes: Shapes) -> list[str]:
        """One line for each weight that this pruner cannot prune."""
        found = [(name, structure.misfit(shapes[name])) for name, structure in self.cuts(targets).items()]
        return [f"{name}: {why}" for name, why in found if why is not None]

    def keep(self, asked: Asked) -> dict[str, Tensor]:
        """Boolean masks by weight name, true = stays."""
        raise TypeError(f"{type(self).__name__} does not say what it keeps")
