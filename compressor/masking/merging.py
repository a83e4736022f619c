"""Weights with the batch norm that follows them merged."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compressor.context import Context
from compressor.thinning import ChannelGraph


@torch.no_grad()
def merge_batch_norms(ctx: Context, names: Sequence[str]) -> dict[str, Tensor]:
    """Return w gamma / sqrt(var + eps), by filter, for the weights whose outputs are read by one batch norm alone."""
    graph = ctx.network.graph()
    folded = {}
    for name, norm in ({} if graph is None else direct_norms(graph, ctx.network.model, names)).items():
        factor = (norm.running_var + norm.eps).rsqrt()
        if isinstance(norm.weight, Tensor):
            factor = factor * norm.weight
        weight = ctx.network.outputs_first(name, ctx.parameters[name].detach())
        merged = weight * factor.reshape((-1,) + (1,) * (weight.dim() - 1))
        folded[name] = ctx.network.outputs_first(name, merged)
    return folded


def direct_norms(graph: ChannelGraph, model: nn.Module, names: Sequence[str]) -> dict[str, Any]:
    """Return the batch norm with running statistics that alone reads a weight's outputs, for weights that have one."""
    paths = {name: path for path, name in graph.weights.items()}
    found = {}
    for name in names:
        node = graph.by_path.get(paths.get(name, ""))
        if name not in paths or node is None or not graph.makes_outputs(node):
            continue
        calls = [number for number, one in enumerate(graph.nodes) if one.weight == name and not one.training]
        readers = [graph.nodes[number] for call in calls for number in graph.readers_of[call]]
        if len(readers) == 1 and readers[0].kind == "norm" and readers[0].owned:
            norm = model.get_submodule(readers[0].label)
            if isinstance(getattr(norm, "running_var", None), Tensor):
                found[name] = norm
    return found
