"""The base class of all policies: the events of a run, and what a policy may do at each of them.

The loop of `session/session.py` and `training/trainer.py`:

    bind the schedule to the model; build the optimizer; policy.init, or load the saved state
    for epoch in epochs:
        policy.before_epoch                           # reads the network before it changes
        policy.on_epoch_begin                         # masks, phases
        for batch in training data:                   # one batch = one optimizer step; accumulation is inside it
            policy.on_minibatch_begin                 # masks recomputed inside an epoch; thinning at the first one
            masks.before_forward()                    # weights of the other mask modes are masked
            substitutions.before_forward()            # gates: values in place of parameters
            loss = criterion(model(images), labels)
            policy.before_backward_pass(loss)         # may add to the loss; few need it
            loss.backward()
            substitutions.after_backward()            # the weights are restored, with their gradients
            policy.penalty_gradients                  # closed-form gradients of penalties, added to .grad
            policy.before_parameter_optimization      # may skip the optimizer's step
            policy.collect_gradients                  # of hashed numbers, from the weights' gradients
            masks.zero_gradients()                    # for masks that act on gradients, too
            masks.before_step()                       # dense copies are restored
            clip the gradients
            optimizer.step()                          # at the rates times ctx.optimizer.scale
            masks.apply()                             # the only place where masked weights become +0.0
            substitutions.after_step()
            policy.on_minibatch_end                   # proximal steps, learning rates by the step
            averages of the weights are updated
        validate on the validation images              # with the masked, folded (and averaged) weights
        best.pt, if it is the best so far
        policy.on_epoch_end                           # learning rates
        observers are called; checkpoint

Policies run in file order at every event, learning-rate policies after all others, and only in the epochs in which
their window is active (for a window in steps: only at its steps, without the two epoch events). Windows count
the run's epochs; those of learning-rate policies count from the clock's origin.

A window has three more events, each in the policy's own turn:

    on_enter               at its first epoch, in the turn of the event that the policy's `enters` names; at its first
                           step in the turn of on_minibatch_begin. Before that event.
    on_last_step           in the last step, after on_minibatch_end
    on_exit(run_ends)      after the last epoch, after on_epoch_end; of a window in steps after on_last_step.
                           `run_ends`: the run ends then.

What acts beside the optimizer must not change what training minimizes:

    gradients of penalties    (L1, L2, group lasso, group variance, gates) are added once a step, however many parts the
                              batch has, in the weights' own precision, before clipping: loss + penalty is minimized.
                              Those of a gate's own tensors are collected after all of them.
    proximal steps            have the size `ctx.optimizer.proximal_step`, which knows momentum, Adam and clipping
    weight decay              is a part of the gradient, not clipped (SGD, Adam), or acts beside it (AdamW), as in torch
    thresholds                compare values: no rate is in them
    `ctx.optimizer.unmoved`   has no gradient (frozen, skipped, not used): no proximal step and no threshold moves it
    averages                  are of the weights after all this; a zero that no mask holds is small in them, not zero

A policy is frozen. Its state is its memory, a dataclass of tensors, numbers, strings and containers of them, which is
saved with the run. Before a run it answers what is wrong with it (`check`), what it will do (`predict`,
`learning_rates`), and what it needs (`needs_validation`, `needs_images`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

from pydantic import Field
from torch import Tensor

from compressor.component import Component, Targets
from compressor.context import Context, Finding, Groups, Prediction, View
from compressor.errors import UserError
from compressor.sparsity import Slices
from compressor.thinning import ChannelGraph
from compressor.timing import Clock, Window

__all__ = ["Context", "Finding", "Memory", "Policy", "Prediction", "View"]


@dataclass
class Memory:
    """The state of a policy; a policy with state has a dataclass of its own that derives from this one."""


DERIVED = {"derived": True}
"""Metadata of a memory's field that is not saved, because it can be computed again."""

Moment = Literal["enter", "step", "epoch"]
"""When learning rates are set: when a window is entered, after a step, after an epoch."""

Rates = list[dict[str, Any]]
"""The values that are set for each parameter group: lr, and momentum or betas where a schedule cycles them."""


class Policy(Component):
    """WHEN and HOW a component acts on the run. Every event does nothing unless a subclass defines it."""

    section: ClassVar[str] = "policies"
    component: ClassVar[str | None] = None
    """The section of the component that it applies, in the field of the policy's name; None: it has no component."""
    runs_last: ClassVar[bool] = False
    enters: ClassVar[Literal["before_epoch", "on_epoch_begin", "on_minibatch_begin"]] = "on_epoch_begin"
    """The event in whose turn a window in epochs is entered."""
    prunes: ClassVar[bool] = False
    """Whether its masks prune weights."""
    sets_rates: ClassVar[bool] = False
    """Whether it sets learning rates."""

    window: Window = Field(default=Window(), description="when the policy acts: see its keys")

    # Before a run

    @property
    def applied(self) -> Component:
        """Return the component that it applies; the policy itself where there is none."""
        found: Component = self if self.component is None else getattr(self, self.name)
        return found

    @property
    def counts_steps(self) -> bool:
        """Return whether its times are optimizer steps."""
        return self.window.unit == "step"

    @property
    def needs_validation(self) -> bool:
        """Return whether it uses the validation figures."""
        return False

    @property
    def needs_test(self) -> bool:
        """Return whether it uses the test images."""
        return False

    @property
    def counts_images(self) -> bool:
        """Return whether the number of training images is in what it computes."""
        return False

    @property
    def needs_images(self) -> bool:
        """Return whether it uses training images."""
        return False

    @property
    def allows_empty_layers(self) -> bool:
        """Return whether the run goes on where the logits no longer depend on the image."""
        return False

    def normal(self, removals: Sequence[Window]) -> Self:
        """Return the policy in the one form that all policies of its meaning have.

        `removals`: when policies of its schedule remove channels.
        """
        return self

    @property
    def refused_by_version_2(self) -> str | None:
        """Return why a version 2 schedule cannot have it, whatever the model; None where it can."""
        return None

    def check(self, view: View) -> list[Finding]:
        """Return the findings on this model: faults, and what a user should know before the run.

        Args:
            view: the model, its shapes and graph, and this policy's targets and window.

        Returns:
            Findings with a severity (error, warning, note); an error refuses the run.
        """
        return []

    @property
    def shares_channels(self) -> bool:
        """Return whether it acts on more than the selected weights: on all that share channels with them."""
        return False

    def complete(self, targets: Targets, graph: ChannelGraph | None) -> Targets:
        """Return the targets with all weights on which it acts because they share channels with the selected ones."""
        return targets

    def gated(self, targets: Targets) -> list[str]:
        """Return the weights that it replaces in the forward pass, for policies that cannot act on such weights."""
        return []

    def computed(self, targets: Targets) -> list[str]:
        """Return the parameters whose values it computes after each step: what other policies write there is lost."""
        return []

    def predict(self, view: View, clock: Clock, time: int) -> Prediction:
        """Return the zeros that it holds at the end of an epoch or step.

        Args:
            view: the model, and this policy's targets and window.
            clock: the number of epochs, and of steps in one.
            time: epoch, or step for a window in steps.

        Returns:
            Zeros by weight, or why they are not known.
        """
        return Prediction()

    def whole_slices(self, view: View) -> list[Slices]:
        """Return the weights of which it prunes whole filters (dim 0) or whole channels (dim 1)."""
        return []

    @property
    def removes_channels(self) -> Literal["none", "zero", "some"]:
        """Return which channels it removes: none, all whose filters are zero, or some of them, or others."""
        return "none"

    def pruned_outputs(self, view: View, time: int) -> Mapping[str, int] | None:
        """Return how many whole outputs of each weight are zero after its event at `time`; None where it makes other
        zeros, or not known ones.
        """
        found = self.predict(view, Clock(view.epochs, 1), time)
        return None if found.zeros or found.unknown else {}

    def thresholds(self, view: View, time: int) -> str | None:
        """Return in words the threshold that it applies at `time`; None without a threshold."""
        return None

    def learning_rates(self, clock: Clock, moment: Moment, groups: Groups) -> Rates | None:
        """Return the rates that it sets at a moment.

        Args:
            clock: the time.
            moment: whether a window is entered, or a step or an epoch has ended.
            groups: the optimizer's parameter groups.

        Returns:
            A mapping for each group (`lr`, and `momentum` or `betas` where they are cycled); None: no change.
        """
        return None

    def rate_factor(self, clock: Clock) -> float:
        """Return the factor on all learning rates at a time in its window; the rates themselves do not change."""
        return 1.0

    def jump(self, clock: Clock, groups: Groups) -> str | None:
        """Return in words how the learning rate jumps when its window opens; None where it does not."""
        return None

    # In a run

    def init(self, ctx: Context) -> Memory:
        """Return its memory before the first epoch.

        Args:
            ctx: the network, the optimizer, the data and the masks of the run.

        Returns:
            A dataclass of tensors, numbers, strings and containers of them, which is saved with the run.

        Raises:
            UserError: the network or the optimizer is not one that it can act on.
        """
        return Memory()

    def resume(self, ctx: Context, memory: Any) -> None:
        """Continue with a saved memory, after `init`."""

    def on_enter(self, ctx: Context, memory: Any) -> None:
        """Act when the window is entered."""

    def before_epoch(self, ctx: Context, memory: Any) -> None:
        """Read the network, before any policy's `on_epoch_begin`."""

    def on_epoch_begin(self, ctx: Context, memory: Any) -> None:
        """Act before the first mini-batch of an epoch."""

    def on_minibatch_begin(self, ctx: Context, memory: Any) -> None:
        """Act before the forward pass."""

    def before_backward_pass(self, ctx: Context, memory: Any, loss: Tensor) -> Tensor:
        """Return the loss to differentiate.

        Args:
            ctx: the run.
            memory: what `init` has returned.
            loss: the mean loss of a part of the batch.

        Returns:
            The loss, or another one in its place.
        """
        return loss

    def penalty_gradients(self, ctx: Context, memory: Any) -> None:
        """Add to the parameters' `.grad` after the backward pass."""

    def before_parameter_optimization(self, ctx: Context, memory: Any) -> None:
        """Act before the optimizer's step."""

    def collect_gradients(self, ctx: Context, memory: Any) -> None:
        """Set the gradients of tensors of its own from those of the weights, which are final now."""

    def on_minibatch_end(self, ctx: Context, memory: Any) -> None:
        """Act after the masks were applied."""

    def on_last_step(self, ctx: Context, memory: Any) -> None:
        """Act after the window's last step, before validation."""

    def on_epoch_end(self, ctx: Context, memory: Any) -> None:
        """Act after validation; `ctx.data.validation` has the figures."""

    def on_exit(self, ctx: Context, memory: Any, run_ends: bool) -> None:
        """Act when the window is over, after validation and best.pt.

        Called again, without `run_ends`, where a run is trained on after its end.

        Args:
            ctx: the run.
            memory: what `init` has returned.
            run_ends: whether the run ends then.
        """

    def losses(self, ctx: Context, memory: Any) -> dict[str, float]:
        """Return the penalty's present value, for the log; called once an epoch."""
        return {}

    def figures(self, ctx: Context, memory: Any) -> dict[str, float]:
        """Return other figures for the log; called once in each active epoch, and at the end."""
        return {}

    def settled(self, clock: Clock) -> int:
        """Return the first epoch whose weights have all the zeros that it will make."""
        return 0

    def shortfalls(self, ctx: Context, memory: Any) -> list[str]:
        """Return after the last epoch one line for each target that was not reached."""
        return []


@dataclass(frozen=True)
class BoundPolicy:
    """A policy with the end of its window set and its selectors resolved to weight names."""

    key: str
    policy: Policy
    targets: Targets
    instance: str = ""
    """The component's name where several policies may name it; empty: nothing is shared."""
    open: bool = False
    """Whether its targets must be completed when the session starts: the images' shape was not known before."""

    def view(self, view: View) -> View:
        """Return the view of a model with this policy's targets and window."""
        return replace(view, key=self.key, targets=self.targets, window=self.policy.window)

    @property
    def names(self) -> Sequence[str]:
        """Return all names that its selectors matched, each once."""
        return list(dict.fromkeys(name for selected in self.targets.values() for name in selected))


def refuse(ctx: Context, misfits: Sequence[str]) -> None:
    """Raise `UserError` with the misfits, if there are any."""
    if misfits:
        raise UserError(f"{ctx.key}: {'; '.join(misfits)}")
