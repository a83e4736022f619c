"""Layers that are not trained, for rounds in which others are retrained."""

from typing import ClassVar

from pydantic import Field

from compressor.component import Weights as Selection
from compressor.policies.policy import Context, Memory, Policy
from compressor.sparsity import biases_of


class FreezePolicy(Policy, name="freeze"):
    """Do not update the selected weights and the biases of their layers in the window (Han et al. 2015)."""

    example: ClassVar[str] = """
    version: 2
    policies:
      - freeze: {weights: [conv2.weight]}
    """

    weights: Selection = Field(
        description="weights that are not updated: a name, a glob, re:EXPRESSION, type:CLASS or '*', or a list of them"
    )

    def before_parameter_optimization(self, ctx: Context, memory: Memory) -> None:
        for name in ctx.targets["weights"]:
            for key in (name, *biases_of(name)):
                if key in ctx.parameters:
                    # Without a gradient an optimizer leaves a parameter alone: no momentum, no weight decay.
                    ctx.parameters[key].grad = None
