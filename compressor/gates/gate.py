"""What every gate is: a substitution of weights in the forward pass, with tensors of its own that are trained along."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from compressor.component import Component, Targets
from compressor.sparsity.substitution import Substitution


@dataclass(frozen=True)
class Place:
    """Where a gate on an output channel acts: entries `places` of a parameter, and the filter that each belongs to."""

    name: str
    places: Tensor
    filters: Tensor


@dataclass(frozen=True)
class Site:
    """What a gate is installed in. `owner` is its policy's key, `images` how many are trained on."""

    owner: str
    model: nn.Module
    parameters: Mapping[str, nn.Parameter]
    targets: Targets
    images: int
    sample: Callable[[], Tensor]
    behind: Callable[[str], Sequence[Place]]
    """Where gates on the filters of a weight act: on the batch norms right behind, or on weight and bias."""
    regroup: Callable[..., None]
    """`OptimizerView.regroup`."""
    average: Callable[[str, Tensor], None]
    """Lets a tensor be averaged where weights are, under a name of its own."""
    clock: Callable[[], int]
    """Optimizer steps since the gate's window began."""
    keep: Callable[[str], Tensor | None] = lambda name: None
    """The mask in force of a parameter by its name (true = kept); None where nothing is masked."""
    forget: Callable[[Sequence[nn.Parameter]], None] = lambda parameters: None
    """`OptimizerView.forget`."""


class Installed(Substitution):
    """A gate at work in a network."""

    undecayed: Sequence[nn.Parameter] = ()
    """What the optimizer's weight decay leaves alone while the gate is at work: a group of its own in the optimizer."""

    def penalty_gradients(self) -> None:
        """Add the gradients of the gate's penalty."""

    def losses(self) -> dict[str, float]:
        """The penalty now, by name."""
        return {}

    def figures(self) -> dict[str, float]:
        """What the log says of it once an epoch."""
        return {}

    def keeps(self) -> dict[str, Tensor]:
        """Which entries of parameters are not closed for good (true = stays), where some may be."""
        return {}

    def state(self) -> dict[str, Any]:
        """Everything that changes: tensors (the very ones, not copies) and plain values."""
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state."""


class Gate(Component):
    """HOW weights are random or shared; a policy says when."""

    section: ClassVar[str] = "gates"
    makes_zeros: ClassVar[bool] = False
    """Whether zeros of the folded weights are to stay zeros."""

    def misfits(self, targets: Targets, shapes: Mapping[str, Sequence[int]]) -> list[str]:
        """One line for each weight that this gate cannot act on."""
        return []

    @property
    def whole_filters(self) -> bool:
        """Whether it acts on whole output channels: then those that are shared with other layers are left out."""
        return False

    def install(self, site: Site) -> Installed:
        """Put the gate into a network; its tensors enter the optimizer, nothing else changes yet."""
        raise TypeError(f"{type(self).__name__} cannot be installed")
