"""The network of a run: its parameters, its channels, and their removal."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from compressor.errors import CompressError
from compressor.sparsity import outputs_first, shape_outputs_first, turned_layers
from compressor.thinning import ChannelGraph, Cost, Cut, Unit, Untraceable, channel_graph, cost_of
from compressor.tracing import logits_weights, trace_on_meta


class Network:
    """A model with its parameters by name.

    `dense` has their shapes, outputs first, before channels were removed: sparsities and selectors refer to them.
    """

    def __init__(
        self,
        model: nn.Module,
        shape: Callable[[], tuple[int, ...]],
        say: Callable[[str], None],
        dense: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self.model = model
        self.parameters: Mapping[str, nn.Parameter] = dict(model.named_parameters())
        self.turned = turned_layers(model)
        """The layers whose weights have their inputs first, by weight."""
        self.dense = dict(dense or {name: list(shape) for name, shape in self.shapes().items()})
        self.held: dict[str, str] = {}
        """The reasons why no channels can be removed, by owner."""
        self.removals = 0
        """How often channels were removed."""
        self._shape, self._say = shape, say
        self._graph: ChannelGraph | None = None
        self._traced = False
        self._logits: tuple[str, ...] | None = None
        self._costs: dict[Unit, Cost] = {}
        self._followers: list[Callable[[Cut], None]] = []

    @property
    def device(self) -> torch.device:
        """Return the device of the parameters; the CPU where there are none."""
        return next((parameter.device for parameter in self.parameters.values()), torch.device("cpu"))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the present shapes of the parameters, outputs first."""
        every = self.parameters.items()
        return {name: shape_outputs_first(parameter.shape, self.turned.get(name)) for name, parameter in every}

    def outputs_first(self, name: str, tensor: Tensor) -> Tensor:
        """Return a tensor in the shape of a parameter with the outputs first; or turn it back, which is the same."""
        return outputs_first(tensor, self.turned.get(name))

    def graph(self) -> ChannelGraph | None:
        """Return the network's channel graph; None, with one message, where it cannot be traced."""
        if not self._traced:
            self._traced = True
            try:
                shape = self.shape
                self._graph = channel_graph(self.model, shape)
            except Untraceable as error:
                self._say(f"warning: {error}: structures are ranked weight by weight, and nothing can be thinned")
        return self._graph

    def cost(self, unit: Unit) -> Cost | None:
        """Return what the network costs, by its widths; None where its channels cannot be traced."""
        graph = self.graph()
        if graph is not None and unit not in self._costs:
            self._costs[unit] = cost_of(unit, graph, self.model, self.shape)
        return self._costs.get(unit)

    def logits(self) -> tuple[str, ...]:
        """Return the weights of the layers that make the logits; empty where the forward pass cannot be traced."""
        if self._logits is None:
            try:
                found = trace_on_meta(self.model, self.shape)
            except Untraceable:
                found = None
            self._logits = () if found is None else logits_weights(found)
        return self._logits

    @property
    def shape(self) -> tuple[int, ...]:
        """Return C, H, W of the images. Raises `Untraceable` where there are none."""
        try:
            return self._shape()
        except LookupError as error:
            raise Untraceable(f"channels cannot be traced: {error}") from error

    def when_cut(self, follow: Callable[[Cut], None]) -> None:
        """Call `follow` whenever channels were removed, for the owner of tensors in the shapes of parameters."""
        self._followers.append(follow)

    def cut(self, cut: Cut) -> None:
        """Remove channels from the model and all tensors of its shapes.

        Raises `CompressError` where removal is blocked.
        """
        for reason in self.held.values():
            raise CompressError(reason)
        cut.model(self.model)
        self.removals += 1
        for follow in self._followers:
            follow(cut)
        self.forget()

    def forget(self) -> None:
        """Trace the network again when it is asked for: its channels have changed."""
        self._graph, self._traced, self._logits, self._costs = None, False, None, {}
