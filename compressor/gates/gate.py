"""The base class of all gates: a substitution of weights in the forward pass, with tensors of its own that are
trained.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from compressor.component import Component, Targets
from compressor.context import View
from compressor.sparsity import Substitution


@dataclass(frozen=True)
class Place:
    """The place where a gate on an output channel acts: entries `places` of a parameter, and the filter of each."""

    name: str
    places: Tensor
    filters: Tensor

    def to(self, device: torch.device) -> "Place":
        """Return the same place, its indices on a device: copied in every step, they would make the host wait."""
        return Place(self.name, self.places.to(device), self.filters.to(device))


@dataclass(frozen=True)
class Site:
    """The network in which a gate is installed. `owner` is its policy's key, `images` the number of training images."""

    owner: str
    model: nn.Module
    parameters: Mapping[str, nn.Parameter]
    targets: Targets
    images: int
    sample: Callable[[], Tensor]
    behind: Callable[[str], Sequence[Place]]
    """Returns where gates on the filters of a weight act: the batch norms that follow directly, or weight and bias."""
    regroup: Callable[..., None]
    """`OptimizerView.regroup`."""
    average: Callable[[str, Tensor], None]
    """Averages a tensor as the weights are averaged, under a name of its own."""
    clock: Callable[[], int]
    """Optimizer steps since the gate's window began."""
    keep: Callable[[str], Tensor | None] = lambda name: None
    """Returns the keep mask of a parameter by its name (true = stays); None where nothing is masked."""
    outputs_first: Callable[[str, Tensor], Tensor] = lambda name, tensor: tensor
    """Returns a tensor in the shape of a parameter with the outputs first; or turns it back, which is the same."""
    forget: Callable[[Sequence[nn.Parameter]], None] = lambda parameters: None
    """`OptimizerView.forget`."""
    stream: Callable[[torch.device], torch.Generator | None] = lambda device: None
    """Returns the random numbers for tensors on a device that are the same on all processes; None: torch's own."""


class Installed(Substitution):
    """A gate that is installed in a network."""

    undecayed: Sequence[nn.Parameter] = ()
    """Parameters without weight decay while the gate is active: a group of its own in the optimizer."""

    def penalty_gradients(self) -> None:
        """Add the gradients of the gate's penalty."""

    def collect_gradients(self) -> None:
        """Set the gradients of the gate's own tensors from those of the weights, after all penalties were added."""

    def losses(self) -> dict[str, float]:
        """Return the present penalty, by name."""
        return {}

    def figures(self) -> dict[str, float]:
        """Return the figures for the log, once an epoch."""
        return {}

    def keeps(self) -> dict[str, Tensor]:
        """Return which entries of parameters are not closed for good (true = stays), where some may be."""
        return {}

    def state(self) -> dict[str, Any]:
        """Return everything that changes: tensors (themselves, not copies) and plain values."""
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """Load a saved state."""


class Gate(Component):
    """HOW weights are random or shared. A policy says when."""

    section: ClassVar[str] = "gates"
    makes_zeros: ClassVar[bool] = False
    """Whether zeros of the folded weights stay zeros."""
    counts_images: ClassVar[bool] = False
    """Whether the number of training images is in its penalty."""

    def misfits(self, targets: Targets, model: nn.Module) -> list[str]:
        """Return what is wrong with the selected weights.

        Args:
            targets: what the component's selectors matched.
            model: the network.

        Returns:
            One line for each weight on which this gate cannot act.
        """
        return []

    def check(self, view: View) -> list[str]:
        """Return the same, with all else that is wrong before a run."""
        return self.misfits(view.targets, view.model)

    def gated(self, targets: Targets) -> list[str]:
        """Return the weights that it replaces in the forward pass."""
        return list(targets["weights"])

    def computed(self, targets: Targets) -> list[str]:
        """Return the parameters whose values it computes after each step: what else is written to them is lost."""
        return []

    @property
    def whole_filters(self) -> bool:
        """Return whether it acts on whole output channels: then those that are shared with other layers are left
        out.
        """
        return False

    def install(self, site: Site) -> Installed:
        """Install the gate in a network; its tensors are added to the optimizer, nothing else changes yet.

        Args:
            site: the network, what the selectors matched, and what a gate may ask of the run.

        Returns:
            The installed gate, which substitutes weights from now on.
        """
        raise TypeError(f"{type(self).__name__} cannot be installed")
