"""Dropout that follows the connections that are left: Han et al., NIPS 2015, section 3.2."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import nn

from compressor.component import Selects
from compressor.errors import UserError
from compressor.evaluating import evaluating
from compressor.policies.policy import Context, Memory, Policy
from compressor.sparsity.counting import count_nonzero
from compressor.sparsity.weights import prunable

DROPOUTS = ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout")


class DropoutPolicy(Policy, name="dropout"):
    """Dropout ratios D_r = D_o sqrt(C_ir / C_io) while the window fires: C_ir of C_io connections are left (Han 2015).

    The layer whose connections count is the nearest weight upstream, unless `follow` names it. The ratio is given back
    at the window's end.
    """

    example: ClassVar[str] = """
    version: 2
    policies:
      - dropout: {modules: ['drop*'], follow: {drop: fc1.weight}}
    """

    modules: Annotated[str | list[str], Selects(DROPOUTS)] = Field(description="dropout modules, by name or glob")
    follow: Annotated[dict[str, str], Selects(DROPOUTS, values=True)] = Field(
        default={}, description="the weight that a module follows"
    )

    def init(self, ctx: Context, memory: Memory) -> None:
        upstream = _upstream(ctx)
        follow = memory["targets"]["follow"]
        memory["follows"] = {}
        for path in memory["targets"]["modules"]:
            weight = follow.get(path, upstream.get(path))
            if weight is None:
                raise UserError(f"{memory['owner']}: no weight lies before {path}: `follow: {{{path}: ...}}` names one")
            memory["follows"][path] = weight
        memory["given"] = {path: _dropout(ctx, path).p for path in memory["follows"]}

    def on_epoch_begin(self, ctx: Context, memory: Memory) -> None:
        self._adjust(ctx, memory)

    def on_minibatch_begin(self, ctx: Context, memory: Memory) -> None:
        # The ratio is no part of a checkpoint's model; and masks may be made inside an epoch.
        if "ratios" not in memory or memory["masks"] != ctx.masks.changes:
            self._adjust(ctx, memory)
        self._put(ctx, memory["ratios"])

    def resume(self, ctx: Context, memory: Memory) -> None:
        # Between two epochs of a window with gaps the ratio stays; a module's ratio is no part of the model.
        self._put(ctx, memory.get("ratios", {}))

    def _put(self, ctx: Context, ratios: Mapping[str, float]) -> None:
        for path, ratio in ratios.items():
            _dropout(ctx, path).p = ratio

    def on_minibatch_end(self, ctx: Context, memory: Memory) -> None:
        if self.window.unit == "step" and ctx.global_step == self.window.last:
            self._give_back(ctx, memory)

    def _adjust(self, ctx: Context, memory: Memory) -> None:
        memory["masks"] = ctx.masks.changes
        memory["ratios"] = {}
        folded = {name: value for gate in ctx.substitutions.values() for name, value in gate.fold().items()}
        for path, weight in memory["follows"].items():
            value, keep = folded.get(weight, ctx.parameters[weight].detach()), ctx.masks.keep(weight)
            left = count_nonzero(value if keep is None else value * keep)
            dense = math.prod(ctx.dense.get(weight, ctx.parameters[weight].shape))
            memory["ratios"][path] = memory["given"][path] * math.sqrt(left / dense)

    def on_epoch_end(self, ctx: Context, memory: Memory) -> None:
        if ctx.epoch == self.window.last:
            self._give_back(ctx, memory)

    def _give_back(self, ctx: Context, memory: Memory) -> None:
        self._put(ctx, memory["given"])
        memory["ratios"] = dict(memory["given"])

    def figures(self, ctx: Context, memory: Memory) -> dict[str, float]:
        return dict(memory.get("ratios", {}))


def _dropout(ctx: Context, path: str) -> Any:
    return ctx.model.get_submodule(path)


def _upstream(ctx: Context) -> dict[str, str]:
    """By dropout module the weight of the layer that is called last before it."""
    weights = {id(weight): name for name, weight in prunable(ctx.model).items()}
    found: dict[str, str] = {}
    last: list[str] = []

    def look(path: str) -> Any:
        def hook(module: nn.Module, given: Any) -> None:
            weight = getattr(module, "weight", None)
            if id(weight) in weights:
                last.append(weights[id(weight)])
            elif last:
                found[path] = last[-1]

        return hook

    kinds = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
    handles = [
        module.register_forward_pre_hook(look(path))
        for path, module in ctx.model.named_modules()
        if isinstance(module, kinds) or id(getattr(module, "weight", None)) in weights
    ]
    try:
        with torch.no_grad(), evaluating(ctx.model):
            ctx.model(ctx.sample()[:1])
    finally:
        for handle in handles:
            handle.remove()
    return found
