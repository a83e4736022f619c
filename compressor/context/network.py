"""The network of a run: its parameters, its channels, and their removal."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from compressor.errors import CompressError
from compressor.thinning.cutting import Cut
from compressor.thinning.graph import ChannelGraph, Untraceable
from compressor.thinning.reading import channel_graph
from compressor.thinning.verification import verify


class Network:
    """A model with its parameters by plain name. `dense` has their shapes before anything was removed: sparsities and
    selectors refer to them."""

    def __init__(
        self,
        model: nn.Module,
        sample: Callable[[], Tensor],
        say: Callable[[str], None],
        dense: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self.model = model
        self.parameters: Mapping[str, nn.Parameter] = dict(model.named_parameters())
        self.dense = dict(dense or {name: list(parameter.shape) for name, parameter in self.parameters.items()})
        self.held: dict[str, str] = {}
        """Why no channels can be removed, by who says so."""
        self._sample, self._say = sample, say
        self._graph: ChannelGraph | None = None
        self._traced = False
        self._followers: list[Callable[[Cut], None]] = []

    def graph(self) -> ChannelGraph | None:
        """Return the network's channels; None, which is said once, where they cannot be followed."""
        if not self._traced:
            self._traced = True
            try:
                shape = tuple(self._sample().shape[1:])
                traced = channel_graph(self.model, shape)
                verify(traced, self.model, shape)
                self._graph = traced
            except Untraceable as error:
                self._say(f"warning: {error}: structures are ranked weight by weight, and nothing can be thinned")
        return self._graph

    def when_cut(self, follow: Callable[[Cut], None]) -> None:
        """Call `follow` when channels were removed: it holds tensors in the shapes of the parameters."""
        self._followers.append(follow)

    def cut(self, cut: Cut) -> None:
        """Remove channels from the model and from all that follows it; raises `CompressError` where they are held."""
        for reason in self.held.values():
            raise CompressError(reason)
        cut.model(self.model)
        for follow in self._followers:
            follow(cut)
        self._graph, self._traced = None, False
