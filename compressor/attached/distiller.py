"""The events of a step and an epoch by the names and with the arguments of Distiller's `CompressionScheduler`."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor
from torch.optim import Optimizer

from compressor.errors import CompressError
from compressor.session import Session


class LossComponent(NamedTuple):
    """One term beside the loss: the name of a penalty, and its value."""

    name: str
    value: float


class PolicyLoss(NamedTuple):
    """The loss to differentiate, and the values of all penalties.

    Penalties are not a part of `overall_loss`: their gradients are added after the backward pass, which is the same
    training.
    """

    overall_loss: Tensor
    loss_components: list[LossComponent]


_FIGURES = {"min": "loss", "max": "top1"}
"""Distiller's names of validation figures: `min` is one that should fall, `max` one that should rise."""


class DistillerEvents(Session):
    """Distiller's names. `optimizer` arguments are there for its callers: the session knows its optimizer."""

    def on_epoch_begin(self, epoch: int, optimizer: Optimizer | None = None, **kwargs: Any) -> None:
        """Begin an epoch, before its first mini-batch.

        Args:
            epoch: The epoch, counted from 0.
            optimizer: Not used.
            kwargs: Not used.
        """
        self.begin_epoch(epoch)

    def on_minibatch_begin(
        self, epoch: int, minibatch_id: int, minibatches_per_epoch: int, optimizer: Optimizer | None = None
    ) -> None:
        """Begin a step, before its forward pass.

        Args:
            epoch: The epoch, counted from 0.
            minibatch_id: The step of the epoch, counted from 0; one step is one step of the optimizer.
            minibatches_per_epoch: The number of steps of an epoch.
            optimizer: Not used.

        Raises:
            CompressError: Another step comes next.
        """
        self._check_time("on_minibatch_begin", epoch, minibatch_id, minibatches_per_epoch)
        self.enter()

    def before_backward_pass(
        self,
        epoch: int,
        minibatch_id: int,
        minibatches_per_epoch: int,
        loss: Tensor,
        optimizer: Optimizer | None = None,
        return_loss_components: bool = False,
    ) -> Any:
        """Return the loss to differentiate, with the terms of policies, after the forward pass.

        Args:
            epoch: The epoch, counted from 0.
            minibatch_id: The step of the epoch, counted from 0.
            minibatches_per_epoch: The number of steps of an epoch.
            loss: The mean loss of the mini-batch, a scalar.
            optimizer: Not used.
            return_loss_components: Return a `PolicyLoss`, which also has the values of penalties; they are computed
                for it.

        Returns:
            The loss, a scalar tensor, or a `PolicyLoss`.
        """
        self._check_time("before_backward_pass", epoch, minibatch_id, minibatches_per_epoch)
        whole = self.before_backward(loss)
        if not return_loss_components:
            return whole
        return PolicyLoss(whole, [LossComponent(name, value) for name, value in self.events.losses().items()])

    def before_parameter_optimization(
        self, epoch: int, minibatch_id: int, minibatches_per_epoch: int, optimizer: Optimizer | None = None
    ) -> None:
        """Prepare the optimizer's step, between the backward pass and it: weights are restored, penalties added,
        gradients masked and clipped.

        Args:
            epoch: The epoch, counted from 0.
            minibatch_id: The step of the epoch, counted from 0.
            minibatches_per_epoch: The number of steps of an epoch.
            optimizer: Not used.
        """
        self._check_time("before_parameter_optimization", epoch, minibatch_id, minibatches_per_epoch)
        self.after_backward()
        self.before_optimizer()

    def on_minibatch_end(
        self, epoch: int, minibatch_id: int, minibatches_per_epoch: int, optimizer: Optimizer | None = None
    ) -> None:
        """End a step, after the optimizer's.

        Args:
            epoch: The epoch, counted from 0.
            minibatch_id: The step of the epoch, counted from 0.
            minibatches_per_epoch: The number of steps of an epoch.
            optimizer: Not used.
        """
        self._check_time("on_minibatch_end", epoch, minibatch_id, minibatches_per_epoch)
        self.after_optimizer()

    def on_epoch_end(
        self,
        epoch: int,
        optimizer: Optimizer | None = None,
        metrics: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """End an epoch, after its validation.

        Args:
            epoch: The epoch, counted from 0.
            optimizer: Not used.
            metrics: The figures of the validation: `loss` and `top1` (percent), or Distiller's `min` (a loss) and
                `max` (a top-1 accuracy).
            kwargs: Not used.
        """
        if epoch != self.clock.epoch:
            raise CompressError(f"on_epoch_end of epoch {epoch} was called, the session is in epoch {self.clock.epoch}")
        before = self.data.validation
        if metrics is not None:
            self.data.validation = {_FIGURES.get(name, name): float(value) for name, value in metrics.items()}
        try:
            self.end_epoch()
        except BaseException:
            self.data.validation = before
            raise

    def _check_time(self, event: str, epoch: int, minibatch: int, per_epoch: int) -> None:
        """Raise `CompressError` where a caller's time is not the session's."""
        clock = self.clock
        if per_epoch != clock.steps_per_epoch:
            raise CompressError(
                f"{event} says that an epoch has {per_epoch} mini-batches, attach was told"
                f" steps_per_epoch={clock.steps_per_epoch}"
            )
        if (epoch, minibatch) != (clock.epoch, clock.step):
            raise CompressError(
                f"{event} of mini-batch {minibatch} of epoch {epoch} was called, the session is at mini-batch"
                f" {clock.step} of epoch {clock.epoch}: was on_minibatch_end or on_epoch_end forgotten?"
            )
