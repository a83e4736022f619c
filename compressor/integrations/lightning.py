"""A schedule in Lightning's `Trainer.fit`: `pip install 'compressor[lightning]'`."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from os import PathLike
from typing import Any

import lightning.pytorch as pl
from torch import Tensor
from torch.optim import Optimizer

from compressor.attached import AttachedSession, attach
from compressor.errors import UserError

_KEY = "compressor.session"
"""The key of the session's state in a checkpoint of Lightning."""


class CompressionCallback(pl.Callback):
    """Attach a schedule to a LightningModule with automatic optimization and one optimizer.

    Epochs and steps come from the trainer; a step is one of the optimizer, however many batches are accumulated in it.
    The events of a step::

        on_train_batch_start        session.enter, at the first batch of a step
        forward and backward passes of all batches that are accumulated
        on_before_optimizer_step    session.after_backward, session.before_optimizer
        (Lightning clips)           `gradient_clip_val`: after penalties were added and gradients masked
        (the optimizer's step)
        on_train_batch_end          session.after_optimizer

    Proximal steps and thresholds of regularizers do not know how much Lightning clips: with these, clip by `clip_norm`
    of this callback, and leave `gradient_clip_val` out. Validation sees the weights that would be shipped: masked,
    folded, averaged where there are averages. A checkpoint of Lightning has the weights that are trained, and the
    session's state, from which `fit(ckpt_path=...)` goes on.

    Attributes:
        session: The session, from the beginning of `fit`; None before it.
    """

    def __init__(
        self,
        schedule: str | PathLike[str] | Mapping[str, Any],
        sample_input: Tensor,
        *,
        module: str = "",
        metrics: Mapping[str, str] | None = None,
        calibration: Iterable[Any] | None = None,
        validation: Iterable[Any] | None = None,
        images: int | None = None,
        clip_norm: float | None = None,
        ema_decay: float | None = None,
        seed: int = 0,
        allow_plugins: bool = False,
        say: Callable[[str], None] = print,
    ) -> None:
        """Keep what is attached when `fit` begins.

        Args:
            schedule: A path, a bare name, or the schedule's content as a mapping.
            sample_input: A batch of images (N, C, H, W), as the model takes them.
            module: The path of the model inside the LightningModule (`"model"`), from which names of weights begin;
                empty: the LightningModule itself, whose `forward` gives the logits then.
            metrics: The names under which the LightningModule logs the figures of its validation:
                `{"loss": "val_loss", "top1": "val_accuracy"}` (top-1 in percent). Without them policies that watch
                figures evaluate the model on `validation`.
            calibration: As of `compressor.attach`; so are all that follow.
            validation: Batches of validation images.
            images: The number of training images.
            clip_norm: The largest L2 norm of the gradient.
            ema_decay: The decay of running averages of the weights.
            seed: The seed of the schedule's random numbers.
            allow_plugins: Import and run the code that the schedule names.
            say: Receives messages, one line each.
        """
        self.session: AttachedSession | None = None
        self._schedule, self._sample, self._module, self._metrics = schedule, sample_input, module, metrics or {}
        self._more = {
            "calibration": calibration,
            "validation": validation,
            "images": images,
            "clip_norm": clip_norm,
            "ema_decay": ema_decay,
            "seed": seed,
            "allow_plugins": allow_plugins,
            "say": say,
        }
        self._loaded: Mapping[str, Any] | None = None
        self._stepped = False
        self._shipped = ExitStack()

    @property
    def _it(self) -> AttachedSession:
        assert self.session is not None
        return self.session

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Attach the schedule. Raises `UserError` where the trainer, or the schedule in it, cannot be used."""
        if trainer.world_size > 1:
            raise UserError(f"a schedule is attached to one process, Trainer has {trainer.world_size}: use devices=1")
        if not pl_module.automatic_optimization or len(trainer.optimizers) != 1:
            raise UserError(
                "a schedule is attached to automatic optimization with one optimizer; this LightningModule has"
                f" {len(trainer.optimizers)}, automatic_optimization={pl_module.automatic_optimization}: use"
                " compressor.attach in its training_step"
            )
        steps = trainer.estimated_stepping_batches  # sets up the data
        epochs, batches = trainer.max_epochs, trainer.num_training_batches
        if epochs is None or epochs < 0 or trainer.max_steps != -1 or steps == float("inf"):
            raise UserError("a schedule needs the number of epochs and of batches: give Trainer(max_epochs=...) alone")
        model = pl_module.get_submodule(self._module)
        groups = len(trainer.optimizers[0].param_groups)
        self.session = attach(
            self._schedule,
            model,
            trainer.optimizers[0],
            epochs=epochs,
            steps_per_epoch=-(-int(batches) // trainer.accumulate_grad_batches),
            sample_input=self._sample.to(pl_module.device),
            **self._more,  # type: ignore[arg-type]
        )
        if keys := self.session.needs_loss:
            raise UserError(
                f"{', '.join(keys)} change the loss, which a callback of Lightning cannot: use compressor.attach in"
                " training_step, with manual optimization"
            )
        if trainer.lr_scheduler_configs and (keys := self.session.sets_rates):
            raise UserError(
                f"{', '.join(keys)} and a scheduler of configure_optimizers both set the learning rate: remove one"
            )
        if trainer.lr_scheduler_configs and len(trainer.optimizers[0].param_groups) > groups:
            raise UserError(
                "a gate of the schedule has added parameters to the optimizer, which the scheduler of"
                " configure_optimizers does not know: set the learning rate by an lr_scheduler of the schedule"
            )

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the session's state of a checkpoint: there is no session yet."""
        if _KEY not in checkpoint:
            raise UserError(f"this checkpoint has no {_KEY!r}: it was written without the schedule")
        self._loaded = checkpoint[_KEY]

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the session's state to a checkpoint. Raises `CompressError` within a step, where batches are
        accumulated.
        """
        checkpoint[_KEY] = self._it.state_dict()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Continue from a checkpoint, after Lightning has loaded it."""
        if self._loaded is not None:
            self._it.load_state_dict(self._loaded)
            self._loaded = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin an epoch."""
        self._begin_epoch(trainer)

    def _begin_epoch(self, trainer: pl.Trainer) -> None:
        """Begin an epoch, or go on with it.

        From a checkpoint of an epoch's last step Lightning goes on with the next epoch, and calls neither the end of
        the one nor the beginning of the other.
        """
        clock = self._it.clock
        if clock.step == clock.steps_per_epoch:
            self._end_epoch(trainer)
        self._it.begin_epoch(clock.epoch)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Begin a step, at its first batch."""
        if not self._it.in_step:
            self._begin_epoch(trainer)
            self._it.enter()

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Restore the weights, add penalties, mask gradients."""
        self._it.after_backward()
        self._it.before_optimizer()
        self._stepped = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End the step, where the optimizer's was taken."""
        if self._stepped:
            self._stepped = False
            self._it.after_optimizer()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate the weights that would be shipped; within a step, where batches are accumulated, those in place."""
        if self.session is not None and not self.session.in_step:
            self._shipped.enter_context(self.session.as_shipped())

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the weights that are trained."""
        self._shipped.close()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End the epoch, with the figures of its validation."""
        self._end_epoch(trainer)

    def _end_epoch(self, trainer: pl.Trainer) -> None:
        logged = trainer.callback_metrics
        self._it.data.validation = {name: float(logged[key]) for name, key in self._metrics.items() if key in logged}
        self._it.end_epoch()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Take an open step back."""
        self._shipped.close()
        self._stepped = False
        if self.session is not None:
            self.session.abandon()
