"""Asks a pruner for masks: what it may look at, and what goes with the outputs that it prunes."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from compressor.errors import UserError
from compressor.policies.policy import Context, Memory
from compressor.policies.statistics import finite, gather, of_batch_norms
from compressor.pruners.criteria import OF_BATCH_NORMS
from compressor.pruners.pruner import Asked, PrunerBase
from compressor.rates.window import Window
from compressor.sparsity.channels import Channels


def asked_for(ctx: Context, memory: Memory, pruner: PrunerBase) -> list[str]:
    """The weights that a pruner prunes, with those that it takes along because they share channels."""
    names = list(dict.fromkeys(name for selected in memory["targets"].values() for name in selected))
    return _channels(ctx).closure(names, pruner.ranks.dim or 0) if pruner.extends else names


def need_norms(ctx: Context, memory: Memory, pruner: PrunerBase) -> None:
    """Where a criterion goes by batch norms and there are none, this says so before training begins."""
    kind = pruner.statistic
    if kind in OF_BATCH_NORMS:
        for name in asked_for(ctx, memory, pruner):
            of_batch_norms(ctx, kind, name)


def masks_of(
    ctx: Context,
    memory: Memory,
    pruner: PrunerBase,
    window: Window,
    before: Callable[[str], Tensor | None],
    owned: Iterable[str],
    instead: Mapping[str, Tensor] | None = None,
) -> tuple[list[str], dict[str, Tensor]]:
    """The weights that a pruner prunes, and what it keeps of them and of all that goes with them.

    `before` and `owned` tell of the masks that it made last; `instead` are values that it sees in the weights' places.
    """
    asked = Asked(
        weights={**ctx.parameters, **(instead or {})},
        targets=memory["targets"],
        window=window,
        time=ctx.time(window),
        memory=ctx.constants.setdefault(memory["instance"], {}),
        before=before,
        dense=ctx.dense,
        channels=lambda: _channels(ctx),
        statistics=_statistics(ctx, memory, pruner.images),
    )
    masks = pruner.keep(asked)
    outputs = pruner.whole_outputs(memory["targets"], list(masks))
    if outputs:
        return list(masks), {**speakers(ctx, owned, {name: masks[name] for name in outputs}), **masks}
    return list(masks), masks


def speakers(ctx: Context, owned: Iterable[str], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Masks of what must go with whole outputs: biases, batch norms and depthwise filters behind them.

    `masks` keep or prune each output as a whole.
    """
    graph = ctx.graph()
    if graph is None:
        biases = {f"{name.rpartition('.')[0]}.bias": ~mask.flatten(1)[:, 0] for name, mask in masks.items()}
        return {name: ~gone for name, gone in biases.items() if name in ctx.parameters}
    others = [name for name in owned if name not in masks]
    keep = {name: torch.ones_like(ctx.parameters[name], dtype=torch.bool) for name in others}
    pruned = {name: ~mask.flatten(1)[:, 0] for name, mask in masks.items()}
    for name, gone in graph.speakers(pruned).items():
        parameter = ctx.parameters[name]
        side = (-1,) + (1,) * (parameter.dim() - 1)
        keep[name] = (~gone).reshape(side).expand(parameter.shape)
    return keep


def _statistics(ctx: Context, memory: Memory, batches: int) -> Callable[[str, str], Tensor]:
    """Statistics of the network as it is now, taken when the first is asked for."""
    taken: dict[str, Tensor] = {}

    def of(kind: str, name: str) -> Tensor:
        if kind in OF_BATCH_NORMS:
            return of_batch_norms(ctx, kind, name)
        if not taken:
            how = "feature_map" if kind == "running_feature_map" else kind
            running = _running(ctx, memory) if kind == "running_feature_map" else {}
            taken.update(running or gather(ctx.model, how, ctx.batches(batches)))
        if name not in taken:
            raise UserError(f"{memory['owner']}: criterion {kind}: the forward pass does not use {name}")
        if kind != "gradient" and len(taken[name]) != len(ctx.parameters[name]):
            raise UserError(f"{memory['owner']}: criterion {kind}: the outputs of {name} are not channels (dim 1)")
        return finite(taken[name], kind, name)

    return of


def _running(ctx: Context, memory: Memory) -> dict[str, Tensor]:
    """The running means; none before the first step, nor from before channels were removed."""
    found: dict[str, Tensor] = memory.get("running", {})
    mine = memory["targets"]["weights"]
    return found if all(len(found.get(name, ())) == len(ctx.parameters[name]) for name in mine) else {}


def _channels(ctx: Context) -> Channels:
    graph = ctx.graph()
    return Channels() if graph is None else graph.channels
