"""Asks a pruner for masks at its epochs (or steps), and decides how they act between two steps."""

import math
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from compressor.component import CountsSteps
from compressor.errors import UserError
from compressor.policies.asking import asked_for, masks_of, need_norms
from compressor.policies.channel_event import Event, misfits
from compressor.policies.folding import fold_norms
from compressor.policies.policy import Context, Memory, Policy
from compressor.policies.scaling import Scaling, factors
from compressor.policies.statistics import Running
from compressor.pruners.pruner import PrunerBase
from compressor.sparsity.counting import count_nonzero
from compressor.sparsity.masks import Mode


class PruningPolicy(Policy, name="pruner"):
    """Masks by a pruner; they stay in force between its epochs and after the window.

    Distiller's modes `mask_on_forward_only`, `use_double_copies` and `discard_masks_at_minibatch_end` say otherwise.
    """

    component: ClassVar[str | None] = "pruners"

    pruner: PrunerBase
    mini_batch_pruning_frequency: Annotated[int, CountsSteps()] = Field(
        default=0, ge=0, description="also recompute the masks every so many optimizer steps; 0: at epoch begin only"
    )
    mask_on_forward_only: bool = Field(
        default=False, description="masked weights are not zeroed after the step, but before the next forward pass"
    )
    use_double_copies: bool = Field(
        default=False, description="forward and backward on masked weights; the step updates a dense copy"
    )
    mask_gradients: bool = Field(default=False, description="masked weights get no gradient either")
    discard_masks_at_minibatch_end: bool = Field(default=False, description="a mask lives for one step")
    skip_first_minibatch: bool = Field(default=False, description="the first masks are made at the second mini-batch")
    keep_mask: bool = Field(
        default=False, description="in those three modes: the last mask becomes permanent instead of being forgotten"
    )
    fold_batchnorm: bool = Field(
        default=False, description="rank by what the weights are with the batch norm right behind folded in"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.pruner.needs_double_copies and not self.use_double_copies:
            raise ValueError(f"{self.pruner.name} needs `use_double_copies: true`: without it no weight can come back")
        if self.window.unit == "step" and (self.mini_batch_pruning_frequency or self.skip_first_minibatch):
            raise ValueError(
                "a window in steps says itself at which steps masks are made:"
                " mini_batch_pruning_frequency and skip_first_minibatch have no place in it"
            )
        inside = self.mini_batch_pruning_frequency or self.window.unit == "step" or self.skip_first_minibatch
        if self.pruner.fit is not None and (inside or self._forgets):
            raise ValueError(f"{self.pruner.name} fits weights anew: at the beginning of epochs, and for good")
        return self

    @property
    def _mode(self) -> Mode:
        if self.use_double_copies:
            return "dense"
        return "forward" if self.mask_on_forward_only else "weights"

    @property
    def _forgets(self) -> bool:
        """Whether the masks end with the window, if they are not kept on purpose."""
        return self._mode != "weights" or self.discard_masks_at_minibatch_end

    @property
    def _scales(self) -> bool:
        """Whether the weights that stay are scaled: in forward passes on a draw that lives for one step."""
        return self.discard_masks_at_minibatch_end and self.pruner.scale(self.window, self.window.first) is not None

    def _scaling(self, ctx: Context, memory: Memory) -> Scaling:
        found = ctx.substitutions[memory["owner"]]
        assert isinstance(found, Scaling)
        return found

    @property
    def permanent(self) -> bool:
        """Whether the last masks stay in force after the window."""
        return self.keep_mask or not self._forgets

    def init(self, ctx: Context, memory: Memory) -> None:
        need_norms(ctx, memory, self.pruner)
        if self.fold_batchnorm and ctx.graph() is None:
            said = "where batch norms stand is not known: see the warning above"
            raise UserError(f"{memory['owner']}: fold_batchnorm: {said}")
        if self.fold_batchnorm and not fold_norms(ctx, asked_for(ctx, memory, self.pruner)):
            raise UserError(f"{memory['owner']}: fold_batchnorm: no batch norm stands right behind any of its weights")
        if self.pruner.statistic == "running_feature_map":
            ctx.substitutions[memory["owner"]] = Running(ctx, memory)
        if self._scales:
            ctx.substitutions[memory["owner"]] = Scaling(ctx)

        modules = dict(ctx.model.named_modules())
        if self.pruner.fit is not None and (lines := misfits(asked_for(ctx, memory, self.pruner), modules)):
            raise UserError(f"{memory['owner']}: {'; '.join(lines)}")

    def figures(self, ctx: Context, memory: Memory) -> dict[str, float]:
        return ctx.figures.get(memory["owner"], {})

    def resume(self, ctx: Context, memory: Memory) -> None:
        running = ctx.substitutions.get(memory["owner"])
        if isinstance(running, Running):
            running.take(memory)

    def on_epoch_begin(self, ctx: Context, memory: Memory) -> None:
        # What lives for one step is made in it: nobody who looks at the network before takes it for pruned.
        if not self.discard_masks_at_minibatch_end and not self._skips(ctx):
            self._prune(ctx, memory)

    def _skips(self, ctx: Context) -> bool:
        return self.skip_first_minibatch and ctx.epoch == self.window.first

    def on_minibatch_begin(self, ctx: Context, memory: Memory) -> None:
        if self._asks_inside(ctx):
            self._prune(ctx, memory)

    def _asks_inside(self, ctx: Context) -> bool:
        if self.window.unit == "step":
            return True
        if ctx.step == (1 if self._skips(ctx) else 0):
            return self._skips(ctx) or self.discard_masks_at_minibatch_end
        every = self.mini_batch_pruning_frequency
        return every > 0 and ctx.step > 0 and ctx.global_step % every == 0

    def _prune(self, ctx: Context, memory: Memory) -> None:
        owner = memory["owner"]
        shapes = {name: parameter.shape for name, parameter in ctx.parameters.items()}
        if misfits := self.pruner.misfits(memory["targets"], shapes):
            # Channels were removed meanwhile; the masks stay as they are, and the run says so at its end.
            if "refused" not in memory:
                ctx.say(f"warning: {owner} prunes no more, now that channels were removed: {'; '.join(misfits)}")
            memory["refused"] = f"{owner} could not go on pruning after a thinning: {'; '.join(misfits)}"
            return
        before, owned = ctx.masks.before(owner), ctx.masks.owned(owner)
        # w dL/dw is the same before and behind a batch norm, and other statistics do not look at weights.
        folds = self.fold_batchnorm and self.pruner.statistic is None
        folded = fold_norms(ctx, asked_for(ctx, memory, self.pruner)) if folds else {}
        names, masks = masks_of(ctx, memory, self.pruner, self.window, before, owned, folded)
        if self.pruner.fit is not None:
            fit = self.pruner.fit
            Event(ctx, owner, fit.batches, fit.points, stay=masks).run(names)
        for name, keep in masks.items():
            ctx.masks.set(owner, name, keep, self._mode, mask_gradients=self.mask_gradients)
        if self._scales:
            scale = self.pruner.scale(self.window, ctx.time(self.window)) or 1.0
            outputs = self.pruner.whole_outputs(memory["targets"], names)
            self._scaling(ctx, memory).put(factors(ctx, names, outputs, scale))
        if self.discard_masks_at_minibatch_end and self.keep_mask:
            memory["last"] = masks
        ctx.masks.apply()
        if ctx.time(self.window) == self.window.last:
            self._say_what_is_out_of_reach(ctx, memory)

    def _say_what_is_out_of_reach(self, ctx: Context, memory: Memory) -> None:
        """Shares that whole channels, or equal groups of a grouped convolution, cannot give exactly."""
        constants = ctx.constants.get(memory["instance"], {})
        for goal in self.pruner.goals(memory["targets"], self.window, self.window.last):
            shapes = {name: ctx.dense.get(name, ctx.parameters[name].shape) for name in goal.names}
            total, due = sum(math.prod(shape) for shape in shapes.values()), goal.zeros(shapes)
            promised = constants.get("promised", {}).get(goal.key, due)
            if promised < due:
                names = goal.names[0] if len(goal.names) == 1 else f"{len(goal.names)} weights"
                ctx.say(
                    f"warning: {memory['owner']}: {names} has sparsity {promised / total:.4f}, not {goal.sparsity:.4f}:"
                    f" shared channels and groups of a convolution go only as wholes, equally many of each group"
                )

    def on_minibatch_end(self, ctx: Context, memory: Memory) -> None:
        owner = memory["owner"]
        if self.discard_masks_at_minibatch_end:
            ctx.masks.release(owner)
            if self._scales:
                self._scaling(ctx, memory).put({})
        by_step = self.window.unit == "step"
        last = ctx.time(self.window) == self.window.last and (by_step or ctx.step == ctx.steps_per_epoch - 1)
        if last and self._forgets and self.keep_mask:
            for name, keep in (memory.pop("last", None) or ctx.masks.owned(owner)).items():
                ctx.masks.set(owner, name, keep, mask_gradients=self.mask_gradients)
            ctx.masks.apply()
        elif last and by_step and ctx.global_step + 1 < ctx.epochs * ctx.steps_per_epoch:
            self._forget(ctx, memory)

    def on_epoch_end(self, ctx: Context, memory: Memory) -> None:
        # After validation, which sees what was trained: masked weights.
        if ctx.epoch == self.window.last and ctx.epoch + 1 < ctx.epochs:
            self._forget(ctx, memory)

    def _forget(self, ctx: Context, memory: Memory) -> None:
        """The window's end in a mode that forgets; not at the run's end: what was trained masked is shipped masked."""
        if not self.permanent:
            ctx.masks.release(memory["owner"])

    def remarks(self, epochs: int) -> list[str]:
        ends = self.window.unit == "step" or self.window.last + 1 < epochs
        if self.permanent or not ends:
            return []
        unit = self.window.unit
        return [f"its masks are forgotten after {unit} {self.window.last} and leave no zeros (keep_mask is false)"]

    def settled(self, ctx: Context) -> int:
        if self.discard_masks_at_minibatch_end and not self.keep_mask:
            return 0  # no network that is evaluated has its zeros
        return ctx.epoch_of(self.window, self.window.last)

    def shortfalls(self, ctx: Context, memory: Memory) -> list[str]:
        if not self.permanent:
            return []
        lines = [memory["refused"]] if "refused" in memory else []
        promised: dict[str, int] = ctx.constants.get(memory["instance"], {}).get("promised", {})
        for goal in self.pruner.goals(memory["targets"], self.window, self.window.last):
            shapes = {name: ctx.dense.get(name, ctx.parameters[name].shape) for name in goal.names}
            total = sum(math.prod(shape) for shape in shapes.values())
            zeros = total - sum(count_nonzero(ctx.parameters[name]) for name in goal.names)
            if zeros < min(goal.zeros(shapes), promised.get(goal.key, total)):
                names = goal.names[0] if len(goal.names) == 1 else f"{len(goal.names)} weights together"
                lines.append(
                    f"target missed by {memory['owner']}: {names} should have sparsity {goal.sparsity:.4f},"
                    f" has {zeros / total:.4f} (the policy fires last in {self.window.unit} {self.window.last},"
                    f" the run has {ctx.epochs} epochs of {ctx.steps_per_epoch} steps)"
                )
        return lines
