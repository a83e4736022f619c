"""A check of the channel graph against the network: what is zero in the graph must be zero in the network."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from compressor.copying import copied
from compressor.errors import UserError
from compressor.thinning.graph import ChannelGraph, Node, Untraceable
from compressor.thinning.layers import dims
from compressor.tracing import LayerInputs, probe

_SHARES = (0.3, 0.5, 0.7)
"""The fractions of channels set to zero, one trial after the other: in a narrow network one might agree by chance."""


@torch.no_grad()
def verify(graph: ChannelGraph, model: nn.Module, shape: tuple[int, ...]) -> None:
    """Set some channels of a copy and their companions to zero. Raise `Untraceable` where other channels become zero.

    torch-pruning follows indices, not values: it takes an operation that moves channels (a shuffle, a flip) for one
    that leaves them where they are.
    """
    draws = torch.Generator().manual_seed(0)
    for share in _SHARES:
        gone = torch.rand(max(graph.cells, 1), generator=draws) < share
        trial = _trial(model)
        parameters = dict(trial.named_parameters())
        pruned = {}
        for path, name in graph.weights.items():
            node = graph.by_path.get(path)
            if node is not None and node.kind == "producer" and dims(graph.modules[path])[0] == 0:
                pruned[name] = gone[node.out.clamp(min=0)] & (node.out >= 0)
        for name, entries in {**pruned, **graph.companions(pruned)}.items():
            parameters[name][entries.to(parameters[name].device)] = 0
        seen, lost = probe(trial, shape)
        if lost:
            return  # a comparison in the network: nothing can be told
        dead = graph.zeroed(pruned)
        for node, _, zero in graph.readers(dead):
            _agree(node, zero, seen)
        for number, node in enumerate(graph.nodes):
            if node.kind in ("depthwise", "norm"):
                _agree(node, graph.zero_input(number, dead)[node.out.clamp(min=0)] & (node.out >= 0), seen)


def _trial(model: nn.Module) -> nn.Module:
    try:
        return copied(model)
    except UserError as error:
        raise Untraceable(f"its channels cannot be checked: {error}") from error


def _agree(node: Node, zero: Tensor, seen: Mapping[str, LayerInputs]) -> None:
    if node.label in seen and bool((zero & ~seen[node.label].zero).any()):
        raise Untraceable(f"{node.label} reads other channels than torch-pruning says")
