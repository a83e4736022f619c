"""Weights with the batch norm that follows them merged."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compressor.context import Context
from compressor.thinning import ChannelGraph, dims


@torch.no_grad()
def merge_batch_norms(ctx: Context, names: Sequence[str]) -> dict[str, Tensor]:
    """Return w gamma / sqrt(var + eps), by filter, for the weights whose outputs are read by one batch norm alone."""
    graph = ctx.network.graph()
    folded = {}
    for name, norm in ({} if graph is None else direct_norms(graph, ctx.network.model, names)).items():
        factor = (norm.running_var + norm.eps).rsqrt()
        if isinstance(norm.weight, Tensor):
            factor = factor * norm.weight
        weight = ctx.parameters[name].detach()
        folded[name] = weight * factor.reshape((-1,) + (1,) * (weight.dim() - 1))
    return folded


def direct_norms(graph: ChannelGraph, model: nn.Module, names: Sequence[str]) -> dict[str, Any]:
    """Return the batch norm with running statistics that alone reads a weight's outputs, for weights that have one."""
    paths = {name: path for path, name in graph.weights.items()}
    found = {}
    for name in names:
        if name not in paths or paths[name] not in graph.by_path or dims(graph.modules[paths[name]])[0] != 0:
            continue
        number = next(n for n, node in enumerate(graph.nodes) if node.label == paths[name])
        readers = [node for node in graph.nodes if number in node.inputs]
        if len(readers) == 1 and readers[0].kind == "norm":
            norm = model.get_submodule(readers[0].label)
            if isinstance(norm.running_var, Tensor):
                found[name] = norm
    return found
