"""The events of a run, and what a policy may do at each of them.

The loop, once and for all; `training/trainer.py` is this text in Python:

    bind the schedule to the model; build the optimizer; policy.init, or load the saved state
    for epoch in epochs:
        policy.before_epoch                           # looks at the network before anything happens to it
        policy.on_epoch_begin                         # masks, phases
        for batch in training data:                   # one batch = one optimizer step; accumulation is inside it
            policy.on_minibatch_begin                 # masks recomputed inside an epoch; thinning at the first one
            masks.before_forward()                    # weights that live on behind their mask are masked
            substitutions.before_forward()            # gates, shared and random weights stand in their places
            loss = criterion(model(images), labels)
            policy.before_backward_pass(loss)         # may add to the loss; most need not
            loss.backward()
            substitutions.after_backward()            # the weights are back, and their gradients
            policy.penalty_gradients                  # closed-form gradients of penalties, added to .grad
            policy.before_parameter_optimization
            masks.zero_gradients()                    # where masks act on gradients, too
            masks.before_step()                       # dense copies come back
            clip the gradients
            optimizer.step()                          # at the rates times ctx.lr_scales
            masks.apply()                             # the one place where masked weights become +0.0
            substitutions.after_step()
            policy.on_minibatch_end                   # proximal steps, learning rates by the step
            averages of the weights are updated
        validate on held-out training images          # with the masked, folded (and averaged) weights
        best.pt, if it is the best so far
        policy.on_epoch_end                           # learning rates, the end of a window
        observers are told; checkpoint

Policies run in file order at every event, learning-rate policies after all others, and only in the epochs in which
their window fires (only at the steps, where it counts steps: then the two epoch events are not theirs). A policy is
frozen: what it must remember lives in its memory, a dict of tensors, numbers, strings and containers of them that is
saved with the run.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.optim import Optimizer

from compressor.component import Component, Targets
from compressor.rates.window import Window
from compressor.sparsity.masks import Masks
from compressor.sparsity.substitution import Substitution
from compressor.thinning.cutting import Cut
from compressor.thinning.graph import ChannelGraph, Untraceable
from compressor.thinning.tracing import trace
from compressor.thinning.verification import verify

Memory = dict[str, Any]


def _no_images() -> Tensor:
    raise LookupError("there are no images here")


def _no_batches(count: int) -> list[tuple[Tensor, Tensor]]:
    raise LookupError("there are no images here")


def _no_accuracies(part: str) -> Mapping[str, float]:
    raise LookupError("there are no images here")


@dataclass
class Context:
    """What a policy sees of the run. `epoch`, `step` and `validation` move; `cache` holds what can be derived again."""

    model: nn.Module
    parameters: Mapping[str, nn.Parameter]
    optimizer: Optimizer
    masks: Masks
    epochs: int
    steps_per_epoch: int
    say: Callable[[str], None]
    sample: Callable[[], Tensor] = _no_images
    """A batch of real training images."""
    batches: Callable[[int], Sequence[tuple[Tensor, Tensor]]] = _no_batches
    """So many batches of training images with their labels, always the same."""
    evaluate: Callable[[str], Mapping[str, float]] = _no_accuracies
    """Accuracies of the network as it is now, on the `validation` or the `test` images."""
    held_out: int = 0
    """How many images are held out for validation."""
    dense: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """The shapes of the parameters before anything was removed; what sparsities and selectors refer to."""
    epoch: int = 0
    step: int = 0
    validation: Mapping[str, float] = field(default_factory=dict)
    constants: dict[str, Memory] = field(default_factory=dict)
    """What a component instance must remember, by its name: the policies that name it share it. Saved with the run."""
    cache: dict[str, Any] = field(default_factory=dict)
    thinnings: list[dict[str, Any]] = field(default_factory=list)
    """What was removed so far, as the report tells it. Saved with the run."""
    lr_scales: dict[str, float] = field(default_factory=dict)
    """Factors on every learning rate, by who asks for them; set anew at each of his steps."""
    images: int = 1
    """How many images are trained on."""
    pace: float = 1.0
    """How many steps of the full run one step stands for: more than 1 in a smoke run."""
    seed: int = 0
    """The run's seed, from which a policy's own draws are derived: they are no part of the global random state."""
    installed: dict[str, Substitution] = field(default_factory=dict)
    """The gates of the run, by their policies."""
    substitutions: dict[str, Substitution] = field(default_factory=dict)
    """What stands in the place of parameters in the forward pass, by who put it there."""
    averaged: dict[str, Tensor] = field(default_factory=dict)
    """Tensors that belong to no module and are averaged where weights are: gates."""
    figures: dict[str, dict[str, float]] = field(default_factory=dict)
    """What each policy last had to say beside losses, by its key. Saved with the run."""
    frozen: set[str] = field(default_factory=set)
    """Weights that nothing is to move in this step."""
    restart_averages: Callable[[list[str]], None] | None = None
    """Tells the averages of the weights that some have become something else, and are averaged from now on."""
    followers: list[Callable[[Cut], None]] = field(default_factory=list)
    """Who else holds tensors in the shapes of the parameters: called when channels were removed."""

    @property
    def global_step(self) -> int:
        """Optimizer steps taken before the current one."""
        return self.epoch * self.steps_per_epoch + self.step

    @property
    def full_step(self) -> int:
        """Steps of the full run that were taken before the current one."""
        return math.floor(self.global_step * self.pace)

    def time(self, window: Window) -> int:
        """Now, in the window's unit."""
        return self.epoch if window.unit == "epoch" else self.global_step

    def epoch_of(self, window: Window, time: int) -> int:
        """The epoch in which a time of the window lies."""
        return time if window.unit == "epoch" else time // max(self.steps_per_epoch, 1)

    def graph(self) -> ChannelGraph | None:
        """The network's channels; None, which is said once, where they cannot be followed."""
        if "graph" not in self.cache:
            try:
                shape = tuple(self.sample().shape[1:])
                traced = trace(self.model, shape)
                verify(traced, self.model, shape)
                self.cache["graph"] = traced
            except Untraceable as error:
                self.cache["graph"] = None
                self.say(f"warning: {error}: structures are ranked weight by weight, and nothing can be thinned")
        graph: ChannelGraph | None = self.cache["graph"]
        return graph

    def cut(self, cut: Cut) -> None:
        """Remove channels: from the network, the optimizer's state, the masks, and whoever follows."""
        cut.model(self.model)
        cut.optimizer(self.optimizer, self.parameters.items())
        self.masks.cut(cut)
        for constants in self.constants.values():
            constants.update(cut.memory(constants))
        for follow in self.followers:
            follow(cut)
        self.cache.clear()

    def rate_of(self, parameter: Tensor) -> float:
        """The learning rate in force for one parameter."""
        groups = self.cache.get("groups")
        if groups is None:
            groups = {id(p): group for group in self.optimizer.param_groups for p in group["params"]}
            self.cache["groups"] = groups
        return float(groups[id(parameter)]["lr"]) * self.lr_scale

    @property
    def lr_scale(self) -> float:
        """The product of all factors on the learning rates."""
        return math.prod(self.lr_scales.values())

    def regroup(self, parameters: Sequence[nn.Parameter], **changed: Any) -> None:
        """Give parameters (known to the optimizer or not) a group of their own, like the first but for what is changed.

        To be called in `init` alone, so that a resumed run has the same groups.
        """
        mine = {id(parameter) for parameter in parameters}
        for group in self.optimizer.param_groups:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in mine]
        first = {key: value for key, value in self.optimizer.param_groups[0].items() if key != "params"}
        if "lr" in changed:
            changed["initial_lr"] = changed["lr"]
        self.optimizer.add_param_group({**first, **changed, "params": list(parameters)})
        self.cache.clear()

    def forget(self, parameters: Sequence[nn.Parameter]) -> None:
        """Drop what the optimizer remembers of parameters that something else is trained in the place of."""
        for parameter in parameters:
            self.optimizer.state.pop(parameter, None)


class Policy(Component):
    """WHEN and HOW a component acts on the run. Every event does nothing unless a subclass says otherwise."""

    section: ClassVar[str] = "policies"
    component: ClassVar[str | None] = None
    """The section of the component this policy applies (its field is named like the policy), or None: it is its own."""
    runs_last: ClassVar[bool] = False

    window: Window = Window()

    def init(self, ctx: Context, memory: Memory) -> None:
        """Fill the memory before the first epoch; it holds `owner` (this policy's key), `instance` and `targets`."""

    def resume(self, ctx: Context, memory: Memory) -> None:
        """After `init`, when a saved memory took the place of the one that was filled there."""

    def before_epoch(self, ctx: Context, memory: Memory) -> None:
        """Before any policy's `on_epoch_begin`: to look, not to act."""

    def on_epoch_begin(self, ctx: Context, memory: Memory) -> None:
        """Before the first mini-batch of an epoch."""

    def on_minibatch_begin(self, ctx: Context, memory: Memory) -> None:
        """Before the forward pass."""

    def before_backward_pass(self, ctx: Context, memory: Memory, loss: Tensor) -> Tensor:
        """The loss to differentiate."""
        return loss

    def penalty_gradients(self, ctx: Context, memory: Memory) -> None:
        """After the backward pass: add to the parameters' `.grad`."""

    def before_parameter_optimization(self, ctx: Context, memory: Memory) -> None:
        """Before the optimizer's step."""

    def on_minibatch_end(self, ctx: Context, memory: Memory) -> None:
        """After the masks were applied."""

    def on_epoch_end(self, ctx: Context, memory: Memory) -> None:
        """After validation; `ctx.validation` has its figures."""

    def losses(self, ctx: Context, memory: Memory) -> dict[str, float]:
        """The penalty's value now, for the log; called once an epoch."""
        return {}

    def figures(self, ctx: Context, memory: Memory) -> dict[str, float]:
        """What else the log says of this policy; called once an epoch in which it acts, and at the end."""
        return {}

    def remarks(self, epochs: int) -> list[str]:
        """What a user should know before a run of so many epochs (bound windows only)."""
        return []

    def settled(self, ctx: Context) -> int:
        """The first epoch whose weights have all the zeros this policy will make."""
        return 0

    def shortfalls(self, ctx: Context, memory: Memory) -> list[str]:
        """After the last epoch: one line for each target that was not reached."""
        return []


@dataclass(frozen=True)
class BoundPolicy:
    """A policy with its window closed and its selectors resolved to weight names."""

    key: str
    policy: Policy
    targets: Targets
    instance: str = ""
    """The component's name where several policies can name it; else nothing is shared."""
