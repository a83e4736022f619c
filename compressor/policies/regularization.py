"""The gradient of a penalty, added at every step of a window."""

from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from compressor.context import TRANSPOSED
from compressor.masking import check_classes
from compressor.policies.policy import Context, Finding, Memory, Policy, Prediction, View, refuse
from compressor.regularizers import Regularizer
from compressor.timing import Clock


class RegularizationPolicy(Policy, name="regularizer"):
    """Add a penalty on weights in the window."""

    component: ClassVar[str | None] = "regularizers"

    regularizer: Regularizer
    keep_mask: bool = Field(
        default=False, description="mask the zeros that a threshold or proximal step has made at the end"
    )

    @model_validator(mode="after")
    def _something_to_keep(self) -> Self:
        if self.keep_mask and not self.regularizer.makes_zeros:
            raise ValueError("`keep_mask: true`, but this regularizer makes no zeros (threshold, proximal)")
        return self

    def check(self, view: View) -> list[Finding]:
        lines = self.regularizer.misfits(view.targets, view.shapes)
        cuts = self.regularizer.structures(view.targets)
        one_sided = {name for name in cuts if any((0 in cut.members) != (1 in cut.members) for cut in cuts[name])}
        lines += [f"{name} {TRANSPOSED}" for name in sorted(view.transposed & one_sided)]
        found = [Finding("error", line) for line in lines]
        return found + (check_classes(view, cuts) if self.regularizer.makes_zeros and not lines else [])

    def predict(self, view: View, clock: Clock, time: int) -> Prediction:
        if not self.regularizer.makes_zeros or time < self.window.first:
            return Prediction()
        names = [name for selected in view.targets.values() for name in selected]
        return Prediction(unknown=dict.fromkeys(names, "a threshold or proximal step depends on the values"))

    def init(self, ctx: Context) -> Memory:
        shapes = {name: ctx.network.dense.get(name, parameter.shape) for name, parameter in ctx.parameters.items()}
        refuse(ctx, self.regularizer.misfits(ctx.targets, shapes))
        return Memory()

    def penalty_gradients(self, ctx: Context, memory: Memory) -> None:
        self.regularizer.add_gradient(ctx.parameters, ctx.targets)

    def on_minibatch_end(self, ctx: Context, memory: Memory) -> None:
        targets, frozen = ctx.targets, ctx.optimizer.frozen
        if frozen:
            targets = {key: _without(selected, frozen) for key, selected in targets.items()}
        self.regularizer.after_step(ctx.parameters, targets, ctx.optimizer.rate_of)

    def on_last_step(self, ctx: Context, memory: Memory) -> None:
        if self.keep_mask:
            for name in {name for selected in ctx.targets.values() for name in selected}:
                ctx.masks.set(ctx.key, name, ctx.parameters[name].detach() != 0)

    def settled(self, clock: Clock) -> int:
        return clock.epoch_of(self.window, self.window.last) if self.keep_mask else 0

    def losses(self, ctx: Context, memory: Memory) -> dict[str, float]:
        return {ctx.key.partition(".")[2]: self.regularizer.value(ctx.parameters, ctx.targets)}


def _without(selected: Any, names: set[str]) -> Any:
    """Return a list of names, or a mapping by name, without some of them."""
    if isinstance(selected, dict):
        return {name: value for name, value in selected.items() if name not in names}
    return [name for name in selected if name not in names]
