"""What one policy sees of a run."""

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
from compressor.sparsity.masks import Masks
from compressor.sparsity.substitution import Substitutions
from compressor.timing.clock import Clock
from compressor.world import World


class Averages(Protocol):
    """Running averages of the weights, which are what is shipped where a run has them."""

    def also(self, name: str, tensor: Tensor) -> None:
        """Average a tensor that belongs to no module, too: a gate's."""

    def restart(self, names: Sequence[str]) -> None:
        """Begin the averages of some weights again from what they are now: they have become something else."""


class NoAverages:
    """For a run without averages."""

    def also(self, name: str, tensor: Tensor) -> None:
        """Do nothing."""

    def restart(self, names: Sequence[str]) -> None:
        """Do nothing."""


@dataclass
class Records:
    """What policies leave for the report; saved with the run."""

    figures: dict[str, dict[str, float]] = field(default_factory=dict)
    """What each policy last had to say beside losses, by its key."""
    thinnings: list[dict[str, Any]] = field(default_factory=list)
    """What was removed so far, as the report tells it."""


@dataclass(frozen=True)
class Context:
    """The parts of a run, and of the policy that looks at it: its key, its targets, its instance's constants."""

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
    """The run's seed, from which a policy's own draws are derived: they are no part of the global random state."""
    key: str = ""
    targets: Targets = field(default_factory=dict)
    """What the component's selectors were bound to."""
    constants: dict[str, Any] = field(default_factory=dict)
    """What a component instance must remember: the policies that name it share it. Saved with the run."""

    def of(self, key: str, targets: Targets, constants: dict[str, Any]) -> "Context":
        """Return the same run, as one policy sees it."""
        return replace(self, key=key, targets=targets, constants=constants)

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The network's parameters by plain name."""
        return self.network.parameters

    @contextmanager
    def as_shipped(self) -> Iterator[None]:
        """Inside, the network is the one that would be shipped now: masked, folded, in eval mode, without gradients.

        Averages of the weights are left out: a policy acts on the weights that are trained.
        """
        with evaluating(self.network.model), torch.no_grad(), self.masks.applied(), self.substitutions.folded():
            yield
