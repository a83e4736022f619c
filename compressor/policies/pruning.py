"""Masks from a pruner, at epochs (or steps), and how they act between two steps."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor

from compressor.component import CountsSteps, Targets, Version2
from compressor.errors import UserError
from compressor.masking import (
    AFTER_REMOVALS,
    RunningMeans,
    Scaling,
    check_logits,
    check_pruner,
    complete_targets,
    left_of,
    masks_of,
    merge_batch_norms,
    predict_outputs,
    predict_zeros,
    pruned_weights,
    require_batch_norms,
    running_criterion,
    survivor_factors,
)
from compressor.policies.policy import DERIVED, Context, Finding, Memory, Policy, Prediction, View, refuse
from compressor.pruners import PrunerBase
from compressor.reconstruction import Event, reconstruction_misfits
from compressor.sparsity import Mode, Slices, count_nonzero
from compressor.thinning import ChannelGraph
from compressor.timing import Clock, Window


@dataclass
class Pruning(Memory):
    """The reason why it stopped pruning; the masks of the last step, where they are used for one step; running
    statistics; the shapes at the last event to which sparsities refer, where they are not the dense ones.
    """

    refused: str = ""
    shapes: dict[str, list[int]] = field(default_factory=dict)
    last: dict[str, Tensor] = field(default_factory=dict)
    running: dict[str, Tensor] = field(default_factory=dict)
    scaling: Scaling | None = field(default=None, metadata=DERIVED)


class PruningPolicy(Policy, name="pruner"):
    """Mask weights as a pruner says; masks stay between the epochs of the window and after it.

    Distiller's modes `mask_on_forward_only`, `use_double_copies` and `discard_masks_at_minibatch_end` change this.
    """

    component: ClassVar[str | None] = "pruners"
    prunes: ClassVar[bool] = True

    pruner: PrunerBase = Field(description="what chooses the weights: a component of `pruners`")
    mini_batch_pruning_frequency: Annotated[int, CountsSteps()] = Field(
        default=0,
        ge=0,
        description="also recompute the masks after this many optimizer steps; 0: only at the beginning of an epoch",
    )
    mask_on_forward_only: bool = Field(
        default=False,
        description="true: set masked weights to 0 before the next forward pass; false: after the optimizer's step",
    )
    use_double_copies: bool = Field(
        default=False, description="true: compute on masked weights, and let the optimizer's step update a dense copy"
    )
    mask_gradients: bool = Field(default=False, description="true: set the gradients of masked weights to 0, too")
    discard_masks_at_minibatch_end: bool = Field(default=False, description="true: use each mask for one step only")
    skip_first_minibatch: bool = Field(
        default=False, description="true: make the first masks at the second mini-batch of the window"
    )
    keep_mask: bool = Field(
        default=False,
        description="true: in these three modes the last mask stays after the window, and masked weights are 0",
    )
    fold_batchnorm: bool = Field(
        default=False, description="true: rank the weights with the batch norm that follows directly merged"
    )
    sparsity_of: Annotated[Literal["dense", "current"], Version2()] = Field(
        default="dense",
        description="the weights to which sparsities refer after channels were removed: those of the dense network, or"
        " those that there are at the event (as in Distiller, and in version 1)",
    )
    allow_empty_layers: Annotated[bool, Version2()] = Field(
        default=False,
        description="true: warn, and go on, where the logits no longer depend on the image; false: the run ends",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.window.unit == "step" and (self.mini_batch_pruning_frequency or self.skip_first_minibatch):
            raise ValueError(
                "masks are made at the steps of the window:"
                " remove mini_batch_pruning_frequency and skip_first_minibatch"
            )
        if self.pruner.reconstruction is not None and (self._prunes_in_epochs or self._restores):
            raise ValueError(f"{self.pruner.name} reconstructs outputs: use a window in epochs, and masks that stay")
        return self

    def normal(self, removals: Sequence[Window]) -> Self:
        after = any(self._acts_after(window) for window in removals)
        return self if after else self.model_copy(update={"sparsity_of": "dense"})

    def _acts_after(self, removal: Window) -> bool:
        """Return whether it may make masks after a removal, which is in the first mini-batch of its epoch."""
        if self.window.unit == "step" or removal.unit == "step" or self.window.open:
            return True
        return self.window.last + self._prunes_in_epochs > removal.first

    @property
    def _mode(self) -> Mode:
        if self.use_double_copies:
            return "dense"
        return "forward" if self.mask_on_forward_only else "weights"

    @property
    def _prunes_in_epochs(self) -> bool:
        """Return whether it makes masks after the first mini-batch of an epoch."""
        return self.mini_batch_pruning_frequency > 0 or self.skip_first_minibatch or self.window.unit == "step"

    @property
    def _restores(self) -> bool:
        """Return whether masked weights may get other values than 0 while the policy acts."""
        return self._mode != "weights" or self.discard_masks_at_minibatch_end

    @property
    def _forgets(self) -> bool:
        """Return whether the masks end with the window, unless `keep_mask` is set.

        Double copies alone keep them, as in Distiller: the dense copies are trained on, the weights stay masked.
        """
        return self.mask_on_forward_only or self.discard_masks_at_minibatch_end

    @property
    def _scales(self) -> bool:
        """Return whether the survivors are scaled: in forward passes with a draw that is used for one step."""
        return self.discard_masks_at_minibatch_end and self.pruner.scale(self.window, self.window.first) is not None

    @property
    def allows_empty_layers(self) -> bool:
        return self.allow_empty_layers

    @property
    def permanent(self) -> bool:
        """Return whether the last masks stay after the window."""
        return self.keep_mask or not self._forgets

    @property
    def needs_images(self) -> bool:
        return self.pruner.measured is not None or self.pruner.reconstruction is not None

    @property
    def refused_by_version_2(self) -> str | None:
        if not self.pruner.needs_double_copies or self.use_double_copies:
            return None
        return f"{self.pruner.name} needs `use_double_copies: true`: without it no weight can come back"

    def check(self, view: View) -> list[Finding]:
        found = check_pruner(view, self.pruner, "fold_batchnorm" if self.fold_batchnorm else None, masks=True)
        if said := self.refused_by_version_2:
            found.append(Finding("error" if view.version > 1 else "warning", said, of_policy=True))
        if not self.discard_masks_at_minibatch_end and not any(finding.severity == "error" for finding in found):
            goals = self.pruner.goals(view.targets, self.window, self.window.last, view.shapes)
            found += check_logits(view, goals, allowed=self.allow_empty_layers)
        if self._draws_from_zero:
            said = (
                f"{view.key}: weights pruned in one draw start again from 0, and stay 0 before a batch norm and a relu:"
                f" set `use_double_copies: true` to restore them"
            )
            found.append(Finding("note", said))
        if view.version > 1 and self.sparsity_of == "current" and self.pruner.budget(self.window, 0) is not None:
            said = f"{view.key}: a budget is a part of the dense network: remove `sparsity_of: current`"
            found.append(Finding("error", said, of_policy=True))
        last, unit = self.window.last, self.window.unit
        if not self.permanent and (unit == "step" or last + 1 < view.epochs):
            said = f"{view.key}: its masks end after {unit} {last} and leave no zeros (keep_mask is false)"
            found.append(Finding("note", said, of_policy=True))
        return found

    @property
    def _draws_from_zero(self) -> bool:
        """Return whether weights pruned in one random mask may stay in the next, but without their value."""
        if self.use_double_copies or self.pruner.scale(self.window, self.window.first) is None:
            return False
        inside = self.mini_batch_pruning_frequency > 0 or self.discard_masks_at_minibatch_end
        return inside or self.window.firings > 1

    @property
    def shares_channels(self) -> bool:
        return self.pruner.extends

    def complete(self, targets: Targets, graph: ChannelGraph | None) -> Targets:
        return complete_targets(self.pruner, targets, graph)

    def whole_slices(self, view: View) -> list[Slices]:
        return [(name, cut.dim) for name, cut in self.pruner.cuts(view.targets).items() if cut.dim is not None]

    def predict(self, view: View, clock: Clock, time: int) -> Prediction:
        fired = self.window.last_firing(time)
        over = time > self.window.last
        if fired is None or (not self.permanent and (over or self.discard_masks_at_minibatch_end)):
            return Prediction()
        if self.sparsity_of == "current" and view.widths.removes and self._prunes_in_epochs:
            names = [name for selected in view.targets.values() for name in selected]
            return Prediction(unknown=dict.fromkeys(names, AFTER_REMOVALS))
        return predict_zeros(view, self.pruner, self.window, fired, current=self.sparsity_of == "current")

    def pruned_outputs(self, view: View, time: int) -> Mapping[str, int] | None:
        if not self.permanent or self._prunes_in_epochs:
            return None
        return predict_outputs(view, self.pruner, self.window, time, current=self.sparsity_of == "current")

    def thresholds(self, view: View, time: int) -> str | None:
        return self.pruner.threshold(view.targets, self.window, time)

    def init(self, ctx: Context) -> Pruning:
        memory = Pruning()
        require_batch_norms(ctx, self.pruner)
        if self.fold_batchnorm and ctx.network.graph() is None:
            said = "the places of batch norms are not known: see the warning above"
            raise UserError(f"{ctx.key}: fold_batchnorm: {said}")
        if self.fold_batchnorm and not merge_batch_norms(ctx, pruned_weights(ctx, self.pruner)):
            raise UserError(f"{ctx.key}: fold_batchnorm: no batch norm follows any of its weights directly")
        if (running := running_criterion(self.pruner)) is not None:
            ctx.substitutions.put(ctx.key, RunningMeans(ctx, memory, running))
        if self._scales:
            memory.scaling = Scaling(ctx.parameters)
            ctx.substitutions.put(ctx.key, memory.scaling)
        if self.pruner.reconstruction is not None:
            refuse(
                ctx, reconstruction_misfits(pruned_weights(ctx, self.pruner), dict(ctx.network.model.named_modules()))
            )
        return memory

    def resume(self, ctx: Context, memory: Pruning) -> None:
        memory.running = {name: mean.to(ctx.network.device) for name, mean in memory.running.items()}

    def figures(self, ctx: Context, memory: Pruning) -> dict[str, float]:
        return ctx.records.figures.get(ctx.key, {})

    def on_epoch_begin(self, ctx: Context, memory: Pruning) -> None:
        # What lives for one step is made in it: nobody who looks at the network before takes it for pruned.
        if not self.discard_masks_at_minibatch_end and not self._skips(ctx):
            self._prune(ctx, memory)

    def _skips(self, ctx: Context) -> bool:
        return self.skip_first_minibatch and ctx.clock.epoch == self.window.first

    def on_minibatch_begin(self, ctx: Context, memory: Pruning) -> None:
        if self._asks_inside(ctx):
            self._prune(ctx, memory)

    def _asks_inside(self, ctx: Context) -> bool:
        if self.window.unit == "step":
            return True
        if ctx.clock.step == (1 if self._skips(ctx) else 0):
            return self._skips(ctx) or self.discard_masks_at_minibatch_end
        every = self.mini_batch_pruning_frequency
        return every > 0 and ctx.clock.step > 0 and ctx.clock.global_step % every == 0

    def _prune(self, ctx: Context, memory: Pruning) -> None:
        shapes = ctx.network.shapes()
        if lines := self.pruner.misfits(ctx.targets, shapes):
            # Channels were removed meanwhile; the masks stay as they are, and the run says so at its end.
            if not memory.refused:
                ctx.say(f"warning: {ctx.key} stops pruning, because channels were removed: {'; '.join(lines)}")
            memory.refused = f"{ctx.key} stopped pruning after a thinning: {'; '.join(lines)}"
            return
        before, owned = ctx.masks.before(ctx.key), ctx.masks.names(ctx.key)
        # w dL/dw is the same before and behind a batch norm, and other statistics do not look at weights.
        folds = self.fold_batchnorm and self.pruner.measured is None
        folded = merge_batch_norms(ctx, pruned_weights(ctx, self.pruner)) if folds else {}
        if self.sparsity_of == "current":
            dense = ctx.network.dense
            memory.shapes = {name: list(shape) for name, shape in shapes.items() if list(shape) != dense.get(name)}
        of = self._shapes(ctx, memory)
        names, masks = masks_of(ctx, self.pruner, self.window, before, owned, folded, memory.running, of)
        if self.pruner.reconstruction is not None:
            Event(ctx, self.pruner.reconstruction.batches, self.pruner.reconstruction.points, stay=masks).run(names)
        for name, keep in masks.items():
            ctx.masks.set(ctx.key, name, keep, self._mode, mask_gradients=self.mask_gradients)
        if memory.scaling is not None:
            scale = self.pruner.scale(self.window, ctx.clock.time(self.window)) or 1.0
            outputs = self.pruner.whole_outputs(ctx.targets, names)
            memory.scaling.put(survivor_factors(ctx, names, outputs, scale))
        if self.discard_masks_at_minibatch_end and self.keep_mask:
            memory.last = masks
        ctx.masks.apply()
        if ctx.clock.time(self.window) == self.window.last:
            self._say_what_is_out_of_reach(ctx, memory)
            self._say_what_is_left(ctx)

    def _shapes(self, ctx: Context, memory: Pruning) -> Mapping[str, Sequence[int]]:
        """Return the shapes of the weights to which sparsities refer."""
        return {**ctx.network.dense, **memory.shapes}

    def _say_what_is_left(self, ctx: Context) -> None:
        """Record what a budget leaves after thinning, for the log and the report."""
        if not self.permanent or (goal := self.pruner.budget(self.window, self.window.last)) is None:
            return
        with ctx.masks.applied():
            left, dense, _ = left_of(ctx, self.pruner, goal)
        ctx.records.figures[ctx.key] = {f"{goal.unit}_after_thinning": left, "of_the_dense_network": left / dense}
        ctx.say(f"{ctx.key}: after thinning {left:,} of {dense:,} {goal.name} are left ({100 * left / dense:.2f} %)")

    def _say_what_is_out_of_reach(self, ctx: Context, memory: Pruning) -> None:
        """Warn of sparsities that whole channels, or equal groups of a grouped convolution, cannot reach exactly."""
        for goal in self.pruner.goals(ctx.targets, self.window, self.window.last):
            dense = self._shapes(ctx, memory)
            shapes = {name: dense.get(name, ctx.parameters[name].shape) for name in goal.names}
            total, due = sum(math.prod(shape) for shape in shapes.values()), goal.zeros(shapes)
            promised = ctx.constants.get("promised", {}).get(goal.key, due)
            if promised < due:
                names = goal.names[0] if len(goal.names) == 1 else f"{len(goal.names)} weights"
                ctx.say(
                    f"warning: {ctx.key}: {names} has sparsity {promised / total:.4f}, not {goal.sparsity:.4f}:"
                    f" shared channels are pruned only as a whole, and the same number in each group of a convolution"
                )

    def on_minibatch_end(self, ctx: Context, memory: Pruning) -> None:
        if self.discard_masks_at_minibatch_end:
            ctx.masks.release(ctx.key)
            if memory.scaling is not None:
                memory.scaling.put({})

    def on_last_step(self, ctx: Context, memory: Pruning) -> None:
        if self._restores and self.keep_mask:
            for name, keep in (memory.last or ctx.masks.owned(ctx.key)).items():
                ctx.masks.set(ctx.key, name, keep, mask_gradients=self.mask_gradients)
            memory.last = {}
            ctx.masks.apply()

    def on_exit(self, ctx: Context, memory: Pruning, run_ends: bool) -> None:
        # After validation, which sees what was trained: masked weights. At the run's end they are shipped so.
        if not self.permanent and not run_ends:
            ctx.masks.release(ctx.key)

    def settled(self, clock: Clock) -> int:
        if self.discard_masks_at_minibatch_end and not self.keep_mask:
            return 0  # no network that is evaluated has its zeros
        return clock.epoch_of(self.window, self.window.last)

    def shortfalls(self, ctx: Context, memory: Pruning) -> list[str]:
        if not self.permanent:
            return []
        lines = [memory.refused] if memory.refused else []
        if (budget := self.pruner.budget(self.window, self.window.last)) is not None:
            left, whole, most = left_of(ctx, self.pruner, budget)
            if left > most:
                lines.append(
                    f"target missed by {ctx.key}: {left:,} {budget.name} are left after thinning,"
                    f" {100 * left / whole:.2f} % of the dense network's; it should be {most:,} at most"
                )
        promised: dict[str, int] = ctx.constants.get("promised", {})
        for goal in self.pruner.goals(ctx.targets, self.window, self.window.last):
            dense = self._shapes(ctx, memory)
            shapes = {name: dense.get(name, ctx.parameters[name].shape) for name in goal.names}
            total = sum(math.prod(shape) for shape in shapes.values())
            zeros = total - sum(count_nonzero(ctx.parameters[name]) for name in goal.names)
            if zeros < min(goal.zeros(shapes), promised.get(goal.key, total)):
                names = goal.names[0] if len(goal.names) == 1 else f"{len(goal.names)} weights together"
                lines.append(
                    f"target missed by {ctx.key}: {names} should have sparsity {goal.sparsity:.4f},"
                    f" has {zeros / total:.4f} (the policy acts last in {self.window.unit} {self.window.last},"
                    f" the run has {ctx.clock.epochs} epochs of {ctx.clock.steps_per_epoch} steps)"
                )
        return lines
