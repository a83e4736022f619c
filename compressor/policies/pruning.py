"""Asks a pruner for masks at its epochs, and inside them every so many steps."""

from typing import ClassVar

from pydantic import Field

from compressor.policies.policy import Context, Memory, Policy
from compressor.pruners.pruner import Pruner
from compressor.sparsity.topk import pruned_count


class PruningPolicy(Policy, name="pruner"):
    """Masks by a pruner. They stay in force after the window and between its epochs."""

    component: ClassVar[str | None] = "pruners"

    pruner: Pruner
    mini_batch_pruning_frequency: int = Field(
        default=0,
        ge=0,
        description="also recompute the masks every so many optimizer steps; 0: at epoch begin only",
    )

    def init(self, ctx: Context, memory: Memory) -> None:
        memory["pruner"] = self.pruner.init(ctx.parameters, memory["targets"])

    def on_epoch_begin(self, ctx: Context, memory: Memory) -> None:
        self._prune(ctx, memory)

    def on_minibatch_begin(self, ctx: Context, memory: Memory) -> None:
        every = self.mini_batch_pruning_frequency
        if every and ctx.step > 0 and ctx.global_step % every == 0:
            self._prune(ctx, memory)

    def _prune(self, ctx: Context, memory: Memory) -> None:
        masks = self.pruner.keep(ctx.parameters, memory["targets"], self.window, ctx.epoch, memory["pruner"])
        for name, keep in masks.items():
            ctx.masks.set(memory["owner"], name, keep)
        ctx.masks.apply()

    def settled(self) -> int:
        return self.window.last

    def shortfalls(self, ctx: Context, memory: Memory) -> list[str]:
        lines = []
        for name, sparsity in self.pruner.goals(memory["targets"], self.window, self.window.last).items():
            weight = ctx.parameters[name]
            zeros = weight.numel() - int(weight.count_nonzero())
            if zeros < pruned_count(sparsity, weight.numel()):
                lines.append(
                    f"target missed by {memory['owner']}: {name} should have sparsity {sparsity:.4f},"
                    f" has {zeros / weight.numel():.4f} (the policy fires last in epoch {self.window.last},"
                    f" the run has {ctx.epochs} epochs)"
                )
        return lines
