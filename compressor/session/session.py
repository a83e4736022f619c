"""The session: one step of a run. It owns all that changes in a run except the loop, and the order of events.

    session = Session(model, optimizer, policies, clock, data, world, settings, say)
    with session.epoch(n) as epoch:
        for images, labels in loader:
            with session.step() as step:
                step.backward(criterion(model(images), labels))
        epoch.validation = figures

Where another loop owns the optimizer's step, its events are called one by one: `enter`, `before_backward`,
`after_backward`, `before_optimizer`, `after_optimizer`; after an error in between, `abandon`. `policies/policy.py` says
what happens at each.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from compressor.context import Context, Data, Network, NoAverages, OptimizerView, Part, Records
from compressor.errors import CompressError
from compressor.policies.policy import BoundPolicy
from compressor.session import rng
from compressor.session.averages import Averages
from compressor.session.churn import INIT, Churn
from compressor.session.events import Events
from compressor.session.logits import LogitsCheck
from compressor.session.undo import Undo
from compressor.session.zeros import masks_of_zeros
from compressor.sparsity import Masks, Substitutions
from compressor.thinning import Cut, Thinned, thin
from compressor.timing import Clock
from compressor.world import World

_ORDER = ("enter", "before_backward", "after_backward", "before_optimizer", "after_optimizer")
"""The events of a step; `before_backward` may be called several times, once for each part of a batch."""


@dataclass(frozen=True)
class Settings:
    """The settings of a step: the largest norm of the gradient, the decay of averages, the run's seed."""

    clip_norm: float | None = None
    average_decay: float | None = None
    seed: int = 0
    allows_empty_layers: bool = False
    """Whether the run goes on where the logits no longer depend on the image."""


@dataclass
class Epoch:
    """An open epoch; its validation figures are set before it ends."""

    _data: Data

    @property
    def validation(self) -> Mapping[str, float]:
        """Return the validation figures; empty without validation."""
        return self._data.validation

    @validation.setter
    def validation(self, figures: Mapping[str, float]) -> None:
        self._data.validation = figures


@dataclass(frozen=True)
class Step:
    """An open step."""

    _session: "Session"

    def backward(
        self,
        loss: Tensor,
        *,
        share: float = 1.0,
        images: Tensor | None = None,
        labels: Tensor | None = None,
        logits: Tensor | None = None,
    ) -> Tensor:
        """Differentiate the loss of one part of the batch, with the terms of policies.

        Args:
            loss: The mean loss of the part, a scalar.
            share: The part's weight in the batch: its number of images divided by the batch's. Of several processes,
                whose gradients are averaged: multiplied by their number.
            images: The images of the part (N, C, H, W), for policies that look at them.
            labels: Their labels (N).
            logits: Their logits (N, classes).

        Returns:
            The whole loss of the part, detached, not multiplied by its share.
        """
        whole = self._session.before_backward(loss, images=images, labels=labels, logits=logits)
        torch.autograd.backward(whole if share == 1 else whole * share)
        return whole.detach()


@dataclass(frozen=True)
class Shipped:
    """The data of a checkpoint beside the weights: the values with which training continues, removals, figures."""

    live: Mapping[str, Tensor]
    thinnings: Sequence[Mapping[str, Any]] = ()
    figures: Mapping[str, dict[str, float]] = field(default_factory=dict)


class Session:
    """The masks, substitutions, averages and memories of the policies for one model and its optimizer.

    Raises `UserError` where a policy does not fit the model.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        policies: Sequence[BoundPolicy],
        clock: Clock,
        data: Data | None = None,
        world: World | None = None,
        settings: Settings | None = None,
        say: Callable[[str], None] = print,
        dense: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        """`dense` has the shapes of the parameters at the beginning of the run, where channels were removed since."""
        self.model, self.clock, self.say = model, clock, say
        self.data, self.world = data or Data(), world or World()
        self._settings = settings or Settings()
        self.network = Network(model, self.data.image_shape, lambda text: self.say(text), dense)
        self.optimizer = OptimizerView(optimizer, self.network.parameters)
        self.masks = Masks(self.network.parameters)
        self.substitutions = Substitutions(self.network.parameters, [bound.key for bound in policies])
        self.records = Records()
        decay = self._settings.average_decay
        self._averages = None if decay is None else Averages(model, self.masks, decay)
        self._constants: dict[str, dict[str, Any]] = {}
        self._rates: Sequence[float] = ()
        """The rates of the schedule while the scaled ones are in force."""
        self._next = "enter"
        self._begun = False
        """Whether the events at the beginning of the current epoch are over."""
        self._live: Mapping[str, Tensor] | None = None
        """Inside `as_shipped`: the values with which training continues."""
        for follow in (self.optimizer.cut, self.masks.cut, self._cut_constants):
            self.network.when_cut(follow)
        ctx = Context(
            clock=clock,
            network=self.network,
            optimizer=self.optimizer,
            masks=self.masks,
            substitutions=self.substitutions,
            data=self.data,
            averages=self._averages or NoAverages(),
            records=self.records,
            world=self.world,
            say=lambda text: self.say(text),
            seed=self._settings.seed,
        )
        self.churn = Churn(self.masks, clock)
        """The changes of the masks in the current epoch, to be taken when it is over."""
        self.events = Events(self._completed(policies), ctx, self._constants, self.churn)
        self._logits = LogitsCheck(ctx, allowed=self._settings.allows_empty_layers) if policies else None
        self._masks_seen, self._emptied = 0, frozenset[str]()
        self.network.when_cut(self.substitutions.cut)
        if self._averages is not None:
            self.network.when_cut(self._averages.cut)

    def _completed(self, policies: Sequence[BoundPolicy]) -> list[BoundPolicy]:
        """Return the policies with all weights that share channels with the selected ones, where they prune them,
        too.
        """
        done = []
        for bound in policies:
            targets = bound.targets if not bound.open else bound.policy.complete(bound.targets, self.network.graph())
            done.append(BoundPolicy(bound.key, bound.policy, targets, bound.instance))
        return done

    def _cut_constants(self, cut: Cut) -> None:
        for constants in self._constants.values():
            constants.update(cut.memory(constants))

    # An epoch

    @contextmanager
    def epoch(self, number: int) -> Iterator[Epoch]:
        """Open an epoch; leaving it ends it. Entered in mid-epoch, after `load_state_dict`, no event is repeated."""
        self.begin_epoch(number)
        yield Epoch(self.data)
        self.end_epoch()

    def begin_epoch(self, number: int) -> None:
        """Begin an epoch; in mid-epoch, after `load_state_dict`, no event is repeated."""
        clock = self.clock
        if clock.epoch != number:
            clock.epoch, clock.step, self._begun = number, 0, False
        if not self._begun:
            self.events.fire("before_epoch")
            self.events.fire("on_epoch_begin")
            if self.masks.changes != self._masks_seen:
                self._emptied = self.masks.emptied()
                self.check_logits()
            self._begun = True

    def end_epoch(self) -> None:
        """End the open epoch, after its validation."""
        if self._next != "enter":
            raise CompressError(f"the epoch ends within a step: {self._title(self._next)} was not called")
        # Figures of a loop's own may differ by process: those of rank 0 count.
        self.data.validation = self.world.decide(lambda: dict(self.data.validation))
        self.events.fire("on_epoch_end")
        self.clock.epoch, self.clock.step, self._begun = self.clock.epoch + 1, 0, False

    def check_logits(self) -> None:
        """Raise `CompressError` where the logits of the network that would be shipped now do not depend on the image
        any more, and name the classes that were lost; to be called before a network is saved.
        """
        self._masks_seen = self.masks.changes
        if self._logits is not None and self.data.shape is not None:
            with self.as_shipped():
                self._logits()

    def _check_emptied(self) -> None:
        """Check the logits where a mask that stays has left nothing of a weight."""
        if self.masks.changes == self._masks_seen:
            return
        before, self._emptied, self._masks_seen = self._emptied, self.masks.emptied(), self.masks.changes
        if self._emptied - before:
            self.check_logits()

    # A step

    @contextmanager
    def step(self) -> Iterator[Step]:
        """Open a step, with forward passes and `backward` inside; leaving it takes the optimizer's step.

        An error inside leaves the parameters restored, and all masks applied.
        """
        try:
            self.enter()
            self.optimizer.optimizer.zero_grad(set_to_none=True)
            yield Step(self)
            self.after_backward()
            self.before_optimizer()
            self.optimizer.optimizer.step()
            self.after_optimizer()
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> None:
        """End an open step after an error: parameters and learning rates are restored, all masks applied."""
        self.substitutions.withdraw()
        self._restore_rates()
        self.masks.before_step()
        self.masks.apply()
        self.data.part = Part()
        self._next = "enter"

    def _expect(self, event: str) -> None:
        """Raise `CompressError` where an event was forgotten."""
        wanted = self._next
        if event == wanted or (event == "before_backward" and wanted == "after_backward"):
            return
        if event == "after_backward" and wanted == "before_backward":
            asking = [ctx.key for _, ctx, _ in self.events.active("before_backward_pass")]
            if not asking:
                return
            raise CompressError(
                f"{self._title(wanted)} was not called in this step, and {', '.join(asking)} needs the loss: call it"
                f" with the loss, and differentiate the loss that it returns"
            )
        raise CompressError(
            f"{self._title(event)} was called where {self._title(wanted)} comes next: the order is {', '.join(_ORDER)}"
        )

    def _title(self, event: str) -> str:
        """Return the name of an event in messages."""
        return event

    def enter(self) -> None:
        """Begin a step, before its forward pass: masks are applied and substitutions put in place."""
        self._expect("enter")
        self.optimizer.unmoved, self.optimizer.clipped, self.optimizer.skips = set(), 1.0, False
        self.events.fire("on_minibatch_begin")
        self.masks.before_forward()
        self.substitutions.before_forward()
        self._next = "before_backward"

    def before_backward(
        self,
        loss: Tensor,
        *,
        images: Tensor | None = None,
        labels: Tensor | None = None,
        logits: Tensor | None = None,
    ) -> Tensor:
        """Return the loss to differentiate, with the terms of policies."""
        self._expect("before_backward")
        self.data.part = Part(images, labels, logits)
        loss = self.events.before_backward_pass(loss)
        self._next = "after_backward"
        return loss

    def after_backward(self) -> None:
        """Restore the weights, with their gradients, and add the gradients of penalties."""
        self._expect("after_backward")
        self.data.part = Part()
        self.substitutions.after_backward()
        self.events.fire("penalty_gradients")
        self._next = "before_optimizer"

    def before_optimizer(self) -> None:
        """Prepare the optimizer's step, which comes next: mask and clip gradients, scale learning rates."""
        self._expect("before_optimizer")
        self.events.fire("before_parameter_optimization")
        self.events.fire("collect_gradients")
        self.masks.zero_gradients()
        self.masks.before_step()
        every = [parameter for group in self.optimizer.groups for parameter in group["params"]]  # gates', too
        if self.optimizer.skips:
            for parameter in every:
                parameter.grad = None
        self.optimizer.unmoved = {name for name, p in self.network.parameters.items() if p.grad is None}
        if (largest := self._settings.clip_norm) is not None:
            norm = nn.utils.clip_grad_norm_(every, largest)
            self.optimizer.clipped = (largest / (norm + 1e-6)).clamp(max=1.0)  # torch's own factor
        self._rates = [group["lr"] for group in self.optimizer.groups]
        if self.optimizer.scale != 1.0:
            for group in self.optimizer.groups:
                group["lr"] *= self.optimizer.scale
        self._next = "after_optimizer"

    def _restore_rates(self) -> None:
        for group, rate in zip(self.optimizer.groups, self._rates, strict=False):
            group["lr"] = rate
        self._rates = ()

    def after_optimizer(self) -> None:
        """End the step: mask weights, update averages, and advance the clock."""
        self._expect("after_optimizer")
        self._restore_rates()
        if not self.world.alone:  # each process had its own images: running statistics are those of rank 0's
            self.world.share(list(self.model.buffers()))
        self.masks.apply()
        self.substitutions.after_step()
        self.events.fire("on_minibatch_end")
        self._check_emptied()
        if self._averages is not None:
            self._averages.update()
        self._next = "enter"
        self.clock.step += 1

    # What is shipped

    @contextmanager
    def as_shipped(self) -> Iterator[Shipped]:
        """Put the weights that are shipped into the model inside the block: masked, folded, averaged where there are
        averages.

        Inside another such block nothing changes, and the record is the same.

        Yields:
            The values with which training continues (`live`, by name), the removals of channels so far (`thinnings`),
            and the last figures of policies (`figures`, by key).
        """
        if self._live is not None:
            yield self._shipped(self._live)
            return
        averaged = self.masks.applied() if self._averages is None else self._averages.averaged()
        with averaged as aside, torch.no_grad(), self.substitutions.folded() as more:
            self._live = {**more, **aside}
            try:
                yield self._shipped(self._live)
            finally:
                self._live = None

    def _shipped(self, live: Mapping[str, Tensor]) -> Shipped:
        return Shipped(live, tuple(self.records.thinnings), dict(self.records.figures))

    @property
    def has_own_inference(self) -> bool:
        """Return whether a substitution computes in inference something else than the shipped network."""
        return self.substitutions.own_inference

    @contextmanager
    def own_inference(self) -> Iterator[None]:
        """Evaluate substitutions that have an inference of their own (DropConnect) in that way, inside `as_shipped`."""
        with self.substitutions.inferring():
            yield

    def keep_zeros(self) -> int:
        """Hold at zero, to the end of the run, all weights that are zero now; return their number.

        Every mask of a policy only adds to these zeros. A method that restores pruned weights (splicing, network
        surgery, the dense phases of dsd and iht) restores its own, not these.
        """
        held = masks_of_zeros(self.network)
        for name, keep in held.items():
            self.masks.set(INIT, name, keep)
        self.churn.note(INIT)
        return sum(keep.numel() - int(keep.sum()) for keep in held.values() if keep.dim() > 1)

    def thin(self, images: Tensor, *, round_to: int = 1) -> Thinned:
        """Remove all unused channels now; outputs on `images` stay equal, or `CompressError` is raised."""
        with self.masks.applied():
            thinned = self.world.decide(lambda: thin(self.model, images, round_to=round_to, training=True))
            self.world.share(list(self.model.parameters()))  # biases may have absorbed constants
        if thinned.cut:
            self.network.cut(thinned.cut)
        return thinned

    # Trials, and what is saved

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Restore the model and everything in `state_dict`, bit for bit, at the end of the block: inside, all may be
        tried.

        Raises `CompressError` where it begins within a step, and where channels are removed inside.
        """
        if self._next != "enter":
            raise CompressError(f"a trial cannot begin within a step: {self._title(self._next)} was not called yet")
        undo = Undo(self, trained=True)
        self.network.held["a trial"] = "channels cannot be removed inside a trial: they could not be restored"
        for group in self.optimizer.groups:
            for parameter in group["params"]:
                parameter.grad = None
        try:
            yield
        finally:
            undo.restore()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes in a run, except the model."""
        return {
            **self.state_of_events(),
            "optimizer": self.optimizer.optimizer.state_dict(),
            "masks": self.masks.state_dict(),
            "dense": {name: list(shape) for name, shape in self.network.dense.items()},
            "rng": rng.capture(self.network.device),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state. Raises `UserError` where it belongs to another schedule or model."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.masks.load_state_dict(state["masks"])
        self.load_state_of_events(state)
        rng.restore(state["rng"], self.network.device)

    def state_of_events(self) -> dict[str, Any]:
        """Return what events change, beside the model, masks and the optimizer."""
        return {
            "clock": self.clock.state_dict(),
            "begun": self._begun,
            "churn": self.churn.state_dict(),
            "policies": self.events.state_dict(),
            "constants": self._constants,
            "thinnings": self.records.thinnings,
            "figures": self.records.figures,
            "averages": None if self._averages is None else self._averages.state_dict(),
            "streams": self.world.state_dict(),
        }

    def load_state_of_events(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_of_events` has returned, between two steps."""
        self._next, self._rates = "enter", ()
        self.events.load_state_dict(state["policies"])
        for instance, constants in self._constants.items():
            constants.clear()
            constants.update(copy.deepcopy(dict(state["constants"].get(instance, {}))))
        self.records.figures = copy.deepcopy(dict(state["figures"]))
        self.records.thinnings = copy.deepcopy(list(state["thinnings"]))
        self.clock.load_state_dict(state["clock"])
        self._begun = bool(state["begun"])
        if self._averages is not None:
            self._averages.load_state_dict(state["averages"])
        self.churn.load_state_dict(state.get("churn", {}))
        self.world.load_state_dict(state["streams"])
