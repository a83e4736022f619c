"""What is known before a run, and the answers of a policy to it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from torch import nn

from compressor.component import Targets
from compressor.context.optimizer import Groups
from compressor.thinning import ChannelGraph, NeedsValues, Untraceable, channel_graph
from compressor.timing import Window
from compressor.tracing import Trace, logits_weights, trace_on_meta

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """A message about a policy before a run. An error refuses the schedule; warnings and notes are shown."""

    severity: Severity
    text: str
    field: str = ""
    """The argument of the component or the key of the policy; empty: the whole component."""
    of_policy: bool = False
    """Whether the finding is about the policy, and not about its component."""


@dataclass(frozen=True)
class Budgeted:
    """What a budget leaves of a network after thinning.

    The budget is `most` of the `dense` network's `unit` (macs, parameters), and `asked` the same as a fraction. `left`
    is what will be left, and `shapes` has the shapes of the weights that become smaller; None where only the run shows
    it.
    """

    unit: str
    asked: float
    most: int
    dense: int
    left: int | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Prediction:
    """The zeros that a policy holds at a time, by sets of weights, and the weights for which they are not known."""

    zeros: Mapping[tuple[str, ...], int] = field(default_factory=dict)
    """The number of zeros, by the names of weights that are ranked together (mostly one)."""
    unknown: Mapping[str, str] = field(default_factory=dict)
    """The reason why the number is not known before the run, by weight."""
    asked: float | None = None
    """The sparsity that is asked for, of all these weights together; `zeros` has the rounded numbers."""
    otherwise: str = ""
    """In words: what `asked` refers to, and the sparsity in the other meaning (of the dense weights, of those that are
    left), where they differ.
    """
    budget: Budgeted | None = None
    """What is left after thinning, where that is what is asked for."""


Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Widths:
    """The shapes of weights of which channels were removed, at the events of policies: by key and time."""

    at: Mapping[tuple[str, int], Shapes] = field(default_factory=dict)
    unknown: bool = False
    """Whether the shapes of other events are not known; else they are those of the dense model."""
    removes: bool = False
    """Whether channels are removed in the run."""
    idle: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """The epochs in which a removal finds nothing pruned, by key."""


GATED = "channels of gated weights cannot be removed in training; use `compress thin` after the run"


@dataclass(frozen=True)
class View:
    """What is known of a model and a configuration before a run, and the targets of one policy."""

    modules: Mapping[str, nn.Module]
    """The model's modules by path; they may be without storage."""
    shapes: Mapping[str, tuple[int, ...]]
    """The shapes of the dense model's parameters, outputs first."""
    image: tuple[int, int, int] | None = None
    """C, H, W of the images; None where it is not known."""
    version: int = 2
    """The version of the schedule's grammar."""
    groups: Groups = ()
    """The optimizer's settings, one mapping for each parameter group."""
    epochs: int = 1
    """The number of epochs of the run."""
    steps: int | None = None
    """The number of optimizer steps of an epoch; None where it is only known from the data."""
    examples: int | None = None
    """The number of images that go through the network of a process at once in training; None where it is not known."""
    processes: int = 1
    """The number of processes that train together, each on a part of every batch."""
    validates: bool = True
    """Whether there are validation images."""
    tests: bool = True
    """Whether the run may use the test images."""
    build: Callable[[], nn.Module] | None = None
    """Builds the model with storage; None where that is not possible before the run."""
    gated: Mapping[str, Window] = field(default_factory=dict)
    """The weights that a gate of the schedule replaces in the forward pass, and when."""
    computed: Mapping[str, Window] = field(default_factory=dict)
    """The parameters whose values a gate computes after each step, and when."""
    removals: Sequence[Window] = ()
    """When channels are removed."""
    targets: Targets = field(default_factory=dict)
    window: Window = field(default_factory=Window)
    key: str = ""
    shared: dict[str, Any] = field(default_factory=dict)
    """Results that policies share: the graph."""

    @property
    def widths(self) -> Widths:
        """Return what is known of the shapes over the run."""
        found: Widths = self.shared.get("widths", Widths())
        return found

    def shapes_at(self, time: int) -> Shapes | None:
        """Return the shapes of the parameters at this policy's event at `time`; None where they are not known."""
        known = self.widths
        if known.unknown and (self.key, time) not in known.at:
            return None
        return {**self.shapes, **known.at.get((self.key, time), {})}

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """Return the result of `make`, called for the first policy that asks."""
        if name not in self.shared:
            self.shared[name] = make()
        return self.shared[name]

    @property
    def model(self) -> nn.Module:
        """Return the whole model."""
        return self.modules[""]

    @property
    def opens(self) -> bool:
        """Return whether the policy's window opens in the run, as far as that is known."""
        if self.window.unit == "epoch":
            return self.window.first < self.epochs
        return self.steps is None or self.window.first < self.epochs * self.steps

    @cached_property
    def trace(self) -> Trace | None:
        """Return the trace of a forward pass without storage; None where it cannot be run, or without the images'
        shape.
        """
        if self.image is None:
            return None
        found: Trace | None = self.once("trace", lambda: trace_on_meta(self.model, self.image or ()))
        return found

    @cached_property
    def logits(self) -> tuple[str, ...] | None:
        """Return the weights of the layers that make the logits; None where the trace is not known."""
        return None if self.trace is None else logits_weights(self.trace)

    @cached_property
    def graph(self) -> ChannelGraph | Untraceable | None:
        """Return the channel graph, or the reason why it cannot be traced; None where the images' shape is not
        known.
        """
        if self.image is None:
            return None

        def make() -> ChannelGraph | Untraceable:
            assert self.image is not None
            try:
                return channel_graph(self.model, self.image)
            except NeedsValues as error:
                if self.build is None:
                    return error
            except Untraceable as error:
                return error
            try:
                return channel_graph(self.build(), self.image)
            except Untraceable as error:
                return error

        found: ChannelGraph | Untraceable = self.once("graph", make)
        return found
