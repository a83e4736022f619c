"""The session of a user's own loop."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from compressor.attached.distiller import DistillerEvents, LossComponent, PolicyLoss
from compressor.attached.draws import Draws
from compressor.attached.images import accuracies
from compressor.context import Data
from compressor.copying import copied, without_storage
from compressor.errors import CompressError, UserError
from compressor.policies.policy import BoundPolicy, Policy
from compressor.session import Epoch, Session, Settings, Step, Undo, rng
from compressor.thinning import Cut, Thinned, describe, nothing_removed, resize
from compressor.timing import Clock
from compressor.world import World

__all__ = ["AttachedSession", "LossComponent", "PolicyLoss"]

_TITLES = {
    "enter": "enter (on_minibatch_begin)",
    "before_backward": "before_backward (before_backward_pass)",
    "after_backward": "after_backward (before_parameter_optimization)",
    "before_optimizer": "before_optimizer (before_parameter_optimization)",
    "after_optimizer": "after_optimizer (on_minibatch_end)",
}
"""The events of a step, with Distiller's names for them."""


class AttachedSession(DistillerEvents, Session):
    """A schedule at work on a model and its optimizer, in a loop of one's own. `compressor.attach` returns it.

    With context managers::

        for number in range(session.clock.epoch, epochs):
            with session.epoch(number) as epoch:
                for images, labels in loader:
                    with session.step() as step:
                        step.backward(criterion(model(images), labels))
                epoch.validation = {"loss": loss, "top1": top1}  # optional

    or with events, where the loop owns the backward pass and the optimizer's step: `begin_epoch`; for each step
    `enter`, the forward pass, `before_backward` (returns the loss to differentiate), the backward pass,
    `after_backward`, `before_optimizer`, the optimizer's step, `after_optimizer`; `end_epoch`. Distiller's names for
    these are there, too (`on_epoch_begin`, `on_minibatch_begin`, ...).

    An event happens completely or not at all. Where one of a step's events raises before the optimizer's step, the
    session is as it was before the step; else as it was before the event, which can be called again. Random numbers of
    policies come from generators of the session's own: they do not depend on what the loop draws.

    Attributes:
        model: The model that is trained. Its parameters keep their names and stay the same objects.
        clock: The time: `clock.epoch` and `clock.step`, of `clock.epochs` and `clock.steps_per_epoch`.
        masks: The masks of all policies; `masks.keep(name)` is a boolean tensor (true = stays), or None.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        policies: Sequence[BoundPolicy],
        clock: Clock,
        data: Data,
        world: World,
        settings: Settings,
        say: Callable[[str], None],
        sample: Tensor,
        validation: Iterable[Any] | None,
    ) -> None:
        """Start the policies; `attach` has checked that they fit the model. `sample`: images (N, C, H, W)."""
        self._draws, self._opened = Draws(settings.seed), False
        self._sample, self._validation = sample, validation
        self._before_step: tuple[Undo, Mapping[str, Any]] | None = None
        """What takes an open step back."""
        self._dense = without_storage(model)
        self._policies = [bound.policy for bound in policies]
        self._keys = [bound.key for bound in policies]
        data.evaluate = self._evaluate
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        with self._draws.drawing(device):
            super().__init__(model, optimizer, policies, clock, data, world, settings, say)

    # What the policies are

    def policies_with(self, quality: Callable[[Policy], bool]) -> list[str]:
        """Return the keys of the policies that have a quality.

        Args:
            quality: Returns whether a policy has it.
        """
        return [key for key, policy in zip(self._keys, self._policies, strict=True) if quality(policy)]

    @property
    def needs_loss(self) -> list[str]:
        """Return the keys of the policies that change the loss: without `before_backward` they cannot act."""
        return self.policies_with(lambda policy: type(policy).before_backward_pass is not Policy.before_backward_pass)

    @property
    def sets_rates(self) -> list[str]:
        """Return the keys of the policies that set learning rates."""
        return self.policies_with(lambda policy: policy.sets_rates)

    @property
    def in_step(self) -> bool:
        """Return whether a step is open."""
        return self._next != "enter"

    @property
    def sample_input(self) -> Tensor:
        """Return the images (N, C, H, W) that were given to `attach`."""
        return self._sample

    @property
    def dense(self) -> nn.Module:
        """Return the model before channels were removed, without storage: its shapes alone are known."""
        return self._dense

    @property
    def removals(self) -> int:
        """Return how often channels were removed; a DistributedDataParallel must be built again after each of them."""
        return self.network.removals

    # Events

    @contextmanager
    def _whole(self, *, weights: bool = True) -> Iterator[None]:
        """Restore the state of before, to the bit, where the block raises. It draws the session's random numbers.

        `weights`: whether the model may change.
        """
        undo, bits = Undo(self, weights=weights), self._draws.state_dict()
        try:
            with self._draws.drawing(self.network.device):
                yield
        except BaseException:
            undo.restore()
            self._draws.load_state_dict(bits)
            raise

    @contextmanager
    def _in_step(self) -> Iterator[None]:
        """Take the whole step back where the block raises."""
        try:
            with self._draws.drawing(self.network.device):
                yield
        except BaseException:
            self.abandon()
            raise

    def _changes_weights(self, event: str) -> bool:
        """Return whether more than masks may change the weights at an event of a step."""
        return bool(self.substitutions.owned()) or self.events.may_change_weights(event)

    def _title(self, event: str) -> str:
        return _TITLES[event]

    @contextmanager
    def epoch(self, number: int) -> Iterator[Epoch]:
        """Open an epoch; leaving the block ends it.

        Entered again in mid-epoch, after an exception or `load_state_dict`, it goes on at `clock.step` without
        repeating an event. An exception inside leaves it open.

        Args:
            number: The epoch, counted from 0: `clock.epoch`.

        Yields:
            The epoch. `epoch.validation = {"loss": ..., "top1": ...}` (top-1 in percent) gives the figures of your
            own validation to policies that watch them; else they evaluate the model on `validation`.

        Raises:
            CompressError: Another epoch is open or comes next, or the epoch has fewer steps than `attach` was told.
        """
        with super().epoch(number) as opened:
            yield opened

    def begin_epoch(self, number: int) -> None:
        """Begin an epoch, or go on with it.

        Args:
            number: The epoch, counted from 0.

        Raises:
            CompressError: Another epoch is open or comes next.
        """
        clock = self.clock
        if self.in_step:
            raise CompressError(f"epoch {number} begins within a step: {self._title(self._next)} was not called")
        if number != clock.epoch:
            said = f"epoch {number} begins where epoch {clock.epoch} comes next"
            if self._begun:
                said = f"epoch {number} begins, but end_epoch (on_epoch_end) of epoch {clock.epoch} was not called"
            raise CompressError(said)
        if number >= clock.epochs:
            raise CompressError(f"epoch {number} begins, but the run has {clock.epochs}: attach(epochs=...)")
        if self._begun:
            self._opened = True
            return
        with self._whole():
            super().begin_epoch(number)
            self.data.validation = {}
        self._opened = True

    def end_epoch(self) -> None:
        """End the open epoch, after its validation.

        Raises:
            CompressError: No epoch is open, a step is, or the epoch has fewer steps than `attach` was told.
        """
        self._check_open("end_epoch (on_epoch_end)")
        clock = self.clock
        if self._next == "enter" and clock.step != clock.steps_per_epoch:
            raise CompressError(
                f"epoch {clock.epoch} ends after {clock.step} steps, it should have {clock.steps_per_epoch}:"
                f" {_TITLES['enter']} was not called for the others, or attach(steps_per_epoch=...) is wrong"
            )
        self.data.validation = self.world.decide(lambda: dict(self.data.validation))
        with self._whole():
            if not self.data.validation and self._validation is not None:
                watching = self.policies_with(lambda policy: policy.needs_validation)
                self.data.validation = self._evaluate("validation") if watching else {}
            super().end_epoch()
        self._opened = False

    def _check_open(self, event: str) -> None:
        if not self._opened:
            raise CompressError(f"{event} was called, but begin_epoch (on_epoch_begin) was not: no epoch is open")

    @contextmanager
    def step(self) -> Iterator[Step]:
        """Open a step of the optimizer, with forward passes and `backward` inside; leaving the block takes the step.

        Yields:
            The step. `step.backward(loss, share=1.0)` is called once, or once for each part of a batch whose gradients
            are summed; `share` is the part's weight, and the shares of a step sum to 1.

        Raises:
            CompressError: No epoch is open, it has had all of its steps, or `step.backward` was not called.
        """
        self.enter()
        try:
            self.optimizer.optimizer.zero_grad(set_to_none=True)
            yield Step(self)
            if self._next == "before_backward":
                raise CompressError(
                    "step.backward was not called in this step: call it with the loss, in place of loss.backward()"
                )
            self.after_backward()
            self.before_optimizer()
            self.optimizer.optimizer.step()
        except BaseException:
            self.abandon()
            raise
        self.after_optimizer()

    def abandon(self) -> None:
        """End an open step after an error of your own.

        Before the optimizer's step the session and the model are as before `enter` then, and gradients, too. After it
        the optimizer's step stays, masks are applied, and the step is counted as not done.
        """
        before, self._before_step = self._before_step, None
        if before is None or self._next == "after_optimizer":
            super().abandon()
            return
        undo, bits = before
        undo.restore()
        self._draws.load_state_dict(bits)

    def enter(self) -> None:
        """Begin a step, before its forward pass: masks are applied and substitutions put in place.

        Raises:
            CompressError: No epoch is open, it has had all of its steps, or another event comes next.
        """
        self._check_open(_TITLES["enter"])
        self._expect("enter")
        clock = self.clock
        if clock.step >= clock.steps_per_epoch:
            raise CompressError(
                f"step {clock.step} of epoch {clock.epoch} begins, but an epoch has {clock.steps_per_epoch} steps:"
                " end_epoch (on_epoch_end) was not called, or attach(steps_per_epoch=...) is wrong"
            )
        weights = self._changes_weights("on_minibatch_begin") or self.masks.in_forward
        self._before_step = Undo(self, weights=weights), self._draws.state_dict()
        with self._in_step():
            super().enter()

    def before_backward(
        self,
        loss: Tensor,
        *,
        images: Tensor | None = None,
        labels: Tensor | None = None,
        logits: Tensor | None = None,
    ) -> Tensor:
        """Return the loss to differentiate, with the terms of policies; several times a step, once for each part.

        Args:
            loss: The mean loss of the images, a scalar.
            images: The images (N, C, H, W), for policies that look at them.
            labels: Their labels (N).
            logits: Their logits (N, classes).

        Returns:
            The loss, a scalar. Penalties of the schedule are not in it: their gradients are added after the backward
            pass.
        """
        with self._in_step():
            return super().before_backward(loss, images=images, labels=labels, logits=logits)

    def after_backward(self) -> None:
        """Restore the weights, with their gradients, and add the gradients of penalties, after the backward pass.

        With a `GradScaler` gradients must be unscaled by now (`scaler.unscale_(optimizer)`): penalties are not scaled.
        """
        self._expect("after_backward")
        with self._in_step():
            super().after_backward()

    def before_optimizer(self) -> None:
        """Prepare the optimizer's step, which comes next: mask and clip gradients, scale learning rates.

        A loop that clips does it after this event, or by `attach(clip_norm=...)` in it.
        """
        self._expect("before_optimizer")
        with self._in_step():
            super().before_optimizer()

    def after_optimizer(self) -> None:
        """End the step, after the optimizer's: mask weights, update averages, advance the clock."""
        self._expect("after_optimizer")
        with self._whole(weights=self._changes_weights("on_minibatch_end")):
            super().after_optimizer()
        self._before_step = None

    # Results

    def _evaluate(self, part: str) -> Mapping[str, float]:
        if self._validation is None or part != "validation":
            raise UserError(f"there are no {part} images: attach was given none")
        return self.world.decide(lambda: accuracies(self, self._validation or ()))

    def shipped_model(self) -> nn.Module:
        """Return a copy of the model as it is shipped now: masked, folded, averaged where there are averages; in eval
        mode.
        """
        if self.in_step:
            raise CompressError(f"within a step: {self._title(self._next)} was not called")
        with self.as_shipped():
            return copied(self.model).eval()

    def thin(self, images: Tensor | None = None, *, round_to: int = 1) -> Thinned:
        """Remove all unused channels of the model now, from the parameters, their gradients, masks, and the
        optimizer's state.

        The parameters stay the same objects, so that the optimizer goes on with them.

        Args:
            images: Images (N, C, H, W) on which the logits must stay equal; default: `sample_input`.
            round_to: Numbers of channels stay multiples of this.

        Returns:
            What was removed (`cut`, empty where no filter and no channel is all zero), what stays and why (`stays`),
            and the largest difference of a logit.

        Raises:
            CompressError: A step is open; a gate is at work; some are all zero and none can be removed; or the outputs
                would change.
        """
        if self.in_step:
            raise CompressError(f"thin was called within a step: {self._title(self._next)} was not called")
        if self.network.held:
            key = next(iter(self.network.held))
            raise CompressError(
                f"{key}: channels of gated weights cannot be removed here: thin a copy, at the end,"
                " by compressor.thin(session.shipped_model(), sample_input)"
            )
        given = (self._sample if images is None else images).to(self.network.device)
        before = sum(parameter.numel() for parameter in self.model.parameters())
        with self._whole():
            thinned = super().thin(given, round_to=round_to)
            if thinned.stays and not thinned.cut:
                raise CompressError(nothing_removed(thinned.stays))
            if thinned.cut:
                self.records.thinnings.append(
                    {
                        "when": f"session.thin(), epoch {self.clock.epoch}, step {self.clock.step}",
                        "parameters_before": before,
                        "parameters_after": sum(parameter.numel() for parameter in self.model.parameters()),
                        "images": thinned.images,
                        "largest_difference": thinned.largest_difference,
                        "exact_difference": thinned.exact,
                        "stays": [str(stay) for stay in thinned.stays],
                    }
                )
        return thinned

    # What is saved

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of everything that changes in a run except the model, for `torch.save`.

        With the model's own state dict the run goes on, to the same bits: build the model and the optimizer, `attach`,
        `session.load_state_dict`, `model.load_state_dict`. The optimizer's state and the states of the global random
        generators (Python, NumPy, torch) are in it. Plain values and tensors: `torch.load(weights_only=True)` reads it.

        Raises:
            CompressError: A step is open.
        """
        if self.in_step:
            raise CompressError(f"state_dict was called within a step: {self._title(self._next)} was not called")
        state = {
            **super().state_dict(),
            "run": {"epochs": self.clock.epochs, "steps_per_epoch": self.clock.steps_per_epoch},
            "architecture": describe(self.model),
            "validation": dict(self.data.validation),
            "draws": self._draws.state_dict(),
        }
        return copy.deepcopy(state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state, completely or not at all. Load the model's state dict after it.

        The optimizer continues with its saved state, and the global random generators with theirs (of several processes
        they stay as they are: the saved ones are those of one). Where channels were removed before, they are removed
        from the model here, so that its own state dict fits then. The number of processes may be another one.

        Args:
            state: What `state_dict` has returned.

        Raises:
            UserError: The state belongs to another schedule, model, or length of the run, or is damaged.
        """
        undo = Undo(self, trained=True)
        try:
            self._load(state)
        except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError, AttributeError) as error:
            undo.restore()
            reason = str(error).splitlines() or [type(error).__name__]
            raise UserError(f"this state cannot be loaded into this session: {reason[0]}") from error
        except BaseException:
            undo.restore()
            raise
        self._opened, self._before_step = self._begun, None

    def _load(self, state: Mapping[str, Any]) -> None:
        if not isinstance(state, Mapping) or not {"run", "architecture", "validation", "draws"} <= state.keys():
            raise UserError("this is no state of a session: give what its state_dict() returned")
        now = {"epochs": self.clock.epochs, "steps_per_epoch": self.clock.steps_per_epoch}
        for key, value in now.items():
            if state["run"][key] != value:
                raise UserError(f"the state was saved with {key}={state['run'][key]}, this session has {key}={value}")
        self._take_shapes(state["architecture"])
        outside = rng.capture(self.network.device)
        super().load_state_dict(state)
        if self.world.size > 1:  # the saved ones are those of one process
            rng.restore(outside, self.network.device)
        self.data.validation = dict(state["validation"])
        self._draws.load_state_dict(state["draws"])

    def _take_shapes(self, architecture: Any) -> None:
        """Remove channels so that the model has the shapes of a saved one; the values are loaded later."""
        if describe(self.model) == architecture:
            return
        wanted = without_storage(self.model)
        resize(wanted, architecture, "this state")
        shapes = {name: tensor.shape for name, tensor in (*wanted.named_parameters(), *wanted.named_buffers())}
        kept, before = {}, {}
        for name, tensor in (*self.model.named_parameters(), *self.model.named_buffers()):
            if name in shapes and shapes[name] != tensor.shape:
                places = torch.arange(tensor.numel()).view(tensor.shape)
                for dim, size in enumerate(shapes[name]):
                    places = places.narrow(dim, 0, size)
                kept[name], before[name] = places, tensor.shape
        modules = {path for path, _ in self.model.named_modules()}
        mine = describe(self.model)
        sizes = {path: own for path, own in architecture.items() if path in modules and own != mine[path]}
        self.network.cut(Cut(kept, before, sizes))
