"""Adds a penalty's gradient at every step of its epochs."""

from typing import ClassVar

from compressor.policies.policy import Context, Memory, Policy
from compressor.regularizers.regularizer import Regularizer


class RegularizationPolicy(Policy, name="regularizer"):
    """A penalty on weights while the window fires."""

    component: ClassVar[str | None] = "regularizers"

    regularizer: Regularizer

    def penalty_gradients(self, ctx: Context, memory: Memory) -> None:
        self.regularizer.add_gradient(ctx.parameters, memory["targets"])

    def losses(self, ctx: Context, memory: Memory) -> dict[str, float]:
        return {memory["owner"].partition(".")[2]: self.regularizer.value(ctx.parameters, memory["targets"])}
