"""Adds a penalty's gradient at every step of its epochs."""

from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from compressor.errors import UserError
from compressor.policies.policy import Context, Memory, Policy
from compressor.regularizers.regularizer import Regularizer


class RegularizationPolicy(Policy, name="regularizer"):
    """A penalty on weights while the window fires."""

    component: ClassVar[str | None] = "regularizers"

    regularizer: Regularizer
    keep_mask: bool = Field(
        default=False, description="the zeros that a threshold or proximal step has made at the end stay masked"
    )

    @model_validator(mode="after")
    def _something_to_keep(self) -> Self:
        if self.keep_mask and not self.regularizer.makes_zeros:
            raise ValueError("`keep_mask: true`, but this regularizer makes no zeros (threshold, proximal)")
        return self

    def init(self, ctx: Context, memory: Memory) -> None:
        shapes = {name: ctx.dense.get(name, parameter.shape) for name, parameter in ctx.parameters.items()}
        if misfits := self.regularizer.misfits(memory["targets"], shapes):
            raise UserError(f"{memory['owner']}: {'; '.join(misfits)}")

    def penalty_gradients(self, ctx: Context, memory: Memory) -> None:
        self.regularizer.add_gradient(ctx.parameters, memory["targets"])

    def on_minibatch_end(self, ctx: Context, memory: Memory) -> None:
        targets = memory["targets"]
        if ctx.frozen:
            targets = {key: _without(selected, ctx.frozen) for key, selected in targets.items()}
        self.regularizer.after_step(ctx.parameters, targets, ctx.rate_of)
        last = ctx.time(self.window) == self.window.last
        if self.window.unit == "epoch":
            last = last and ctx.step == ctx.steps_per_epoch - 1
        if last and self.keep_mask:
            for name in {name for field in memory["targets"].values() for name in field}:
                ctx.masks.set(memory["owner"], name, ctx.parameters[name].detach() != 0)

    def settled(self, ctx: Context) -> int:
        return ctx.epoch_of(self.window, self.window.last) if self.keep_mask else 0

    def losses(self, ctx: Context, memory: Memory) -> dict[str, float]:
        return {memory["owner"].partition(".")[2]: self.regularizer.value(ctx.parameters, memory["targets"])}


def _without(selected: Any, names: set[str]) -> Any:
    """A list of names, or a mapping by name, without some."""
    if isinstance(selected, dict):
        return {name: value for name, value in selected.items() if name not in names}
    return [name for name in selected if name not in names]
