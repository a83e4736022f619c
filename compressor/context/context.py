"""The parts of a run that one policy sees."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from compressor.component import Targets
from compressor.context.data import Data
from compressor.context.network import Network
from compressor.context.optimizer import OptimizerView
from compressor.evaluating import evaluating
from compressor.sparsity import Masks, Substitutions
from compressor.timing import Clock
from compressor.world import World


class Averages(Protocol):
    """Running averages of the weights. Where a run has them, they are what is shipped."""

    def also(self, name: str, tensor: Tensor) -> None:
        """Average a tensor that belongs to no module, such as a gate's."""

    def restart(self, names: Sequence[str]) -> None:
        """Restart the averages of some weights from their present values, where the weights were replaced."""


class NoAverages:
    """The averages of a run without averages."""

    def also(self, name: str, tensor: Tensor) -> None:
        """Do nothing."""

    def restart(self, names: Sequence[str]) -> None:
        """Do nothing."""


@dataclass
class Records:
    """Results of policies for the report; saved with the run."""

    figures: dict[str, dict[str, float]] = field(default_factory=dict)
    """The last figures of each policy beside losses, by its key."""
    thinnings: list[dict[str, Any]] = field(default_factory=list)
    """The removals so far, as the report has them."""


@dataclass(frozen=True)
class Context:
    """The parts of a run, and those of one policy: its key, its targets, its instance's constants."""

    clock: Clock
    network: Network
    optimizer: OptimizerView
    masks: Masks
    substitutions: Substitutions
    data: Data
    averages: Averages
    records: Records
    world: World
    say: Callable[[str], None]
    seed: int = 0
    """The run's seed. A policy's own random draws are derived from it, not from the global random state."""
    key: str = ""
    targets: Targets = field(default_factory=dict)
    """The names that the component's selectors matched."""
    constants: dict[str, Any] = field(default_factory=dict)
    """The memory of a component instance, shared by the policies that name it. Saved with the run."""

    def of(self, key: str, targets: Targets, constants: dict[str, Any]) -> "Context":
        """Return the same run for one policy."""
        return replace(self, key=key, targets=targets, constants=constants)

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Return the network's parameters by name."""
        return self.network.parameters

    @contextmanager
    def as_shipped(self) -> Iterator[None]:
        """Make the network inside the block the one that would be shipped now: masked, folded, in eval mode, without
        gradients.

        Averages of the weights are not used: a policy acts on the weights that are trained.
        """
        with evaluating(self.network.model), torch.no_grad(), self.masks.applied(), self.substitutions.folded():
            yield
