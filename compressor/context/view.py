"""What is known before a run, and what a policy answers to it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from torch import nn

from compressor.component import Targets
from compressor.context.optimizer import Groups
from compressor.thinning.graph import ChannelGraph, Untraceable
from compressor.thinning.reading import channel_graph
from compressor.timing.window import Window

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """What is to be said of a policy before a run: an error refuses the schedule; warnings and notes are shown."""

    severity: Severity
    text: str
    field: str = ""
    """The key that it is about, of the component's arguments or the policy's; empty: the component as a whole."""
    of_policy: bool = False
    """Whether it is about the policy, and not about the component that it applies."""


@dataclass(frozen=True)
class Prediction:
    """The zeros that a policy holds at a time, so many together in some weights, and where that cannot be known."""

    zeros: Mapping[tuple[str, ...], int] = field(default_factory=dict)
    """By the names of weights that are ranked together (mostly one)."""
    unknown: Mapping[str, str] = field(default_factory=dict)
    """By weight the reason why only the run tells."""
    asked: float | None = None
    """The sparsity that is asked for, of all these weights together; `zeros` has what whole numbers make of it."""


TRANSPOSED = "is of a transposed convolution: its filters and channels are not supported"


@dataclass(frozen=True)
class View:
    """What is known of a model and a configuration before a run, and what a policy's selectors were bound to."""

    modules: Mapping[str, nn.Module]
    """The model's modules by path; they may be without storage."""
    shapes: Mapping[str, tuple[int, ...]]
    """The shapes of the dense model's parameters."""
    image: tuple[int, int, int] | None = None
    """C, H, W of the images; None where it is not known."""
    version: int = 2
    """Of the schedule's grammar."""
    groups: Groups = ()
    """The optimizer's settings, one mapping for each parameter group."""
    epochs: int = 1
    """Of the run."""
    validates: bool = True
    """Whether images are held out for validation."""
    targets: Targets = field(default_factory=dict)
    window: Window = field(default_factory=Window)
    key: str = ""
    shared: dict[str, Any] = field(default_factory=dict)
    """What was found out for one policy serves the next: the graph."""

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what `make` gives, made for the first policy that asks."""
        if name not in self.shared:
            self.shared[name] = make()
        return self.shared[name]

    @property
    def model(self) -> nn.Module:
        """The whole model."""
        return self.modules[""]

    @cached_property
    def transposed(self) -> set[str]:
        """The weights of transposed convolutions."""
        return {f"{path}.weight" for path, module in self.modules.items() if getattr(module, "transposed", False)}

    @cached_property
    def graph(self) -> ChannelGraph | Untraceable | None:
        """The model's channels, or why they cannot be followed; None where the images' shape is not known."""
        if self.image is None:
            return None

        def make() -> ChannelGraph | Untraceable:
            assert self.image is not None
            try:
                return channel_graph(self.model, self.image)
            except Untraceable as error:
                return error

        found: ChannelGraph | Untraceable = self.once("graph", make)
        return found
