"""Weights with the batch norm that follows them merged."""

from collections.abc import Sequence

import torch
from torch import Tensor

from compressor.context import Context
from compressor.thinning import dims


@torch.no_grad()
def merge_batch_norms(ctx: Context, names: Sequence[str]) -> dict[str, Tensor]:
    """Return w gamma / sqrt(var + eps), by filter, for the weights whose outputs are read by one batch norm alone."""
    graph = ctx.network.graph()
    if graph is None:
        return {}
    paths = {name: path for path, name in graph.weights.items()}
    folded = {}
    for name in names:
        if name not in paths or paths[name] not in graph.by_path or dims(graph.modules[paths[name]])[0] != 0:
            continue
        number = next(n for n, node in enumerate(graph.nodes) if node.label == paths[name])
        readers = [node for node in graph.nodes if number in node.inputs]
        norm = (
            ctx.network.model.get_submodule(readers[0].label)
            if len(readers) == 1 and readers[0].kind == "norm"
            else None
        )
        if norm is None or not isinstance(norm.running_var, Tensor):
            continue
        factor = (norm.running_var + float(norm.eps)).rsqrt()  # type: ignore[arg-type]
        if isinstance(norm.weight, Tensor):
            factor = factor * norm.weight
        weight = ctx.parameters[name].detach()
        folded[name] = weight * factor.reshape((-1,) + (1,) * (weight.dim() - 1))
    return folded
