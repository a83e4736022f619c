"""A schedule in the `Trainer` of Hugging Face: `pip install 'compressor[transformers]'`."""

import os
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from compressor.attached import AttachedSession
from compressor.errors import UserError
from compressor.files import replace

FILE = "session.pt"
"""The session's state, in the folder of each checkpoint."""


class CompressionCallback(TrainerCallback):
    """Let a session act in `Trainer.train`.

    The session is attached before the trainer is made, which is given the same optimizer, so that a gate's own
    parameters are in it when a checkpoint is loaded::

        session = compressor.attach(schedule, model, optimizer, epochs=..., steps_per_epoch=..., sample_input=...)
        trainer = Trainer(model, arguments, train_dataset=..., optimizers=(optimizer, None),
                          callbacks=[CompressionCallback(session)])

    The events of a step::

        on_step_begin               session.enter
        forward and backward passes of all batches that are accumulated
        (Trainer clips)             `max_grad_norm`: before penalties are added; 0 turns it off
        on_pre_optimizer_step       session.after_backward, session.before_optimizer
        (the optimizer's step)
        on_optimizer_step           session.after_optimizer

    Trainer clips first: set `max_grad_norm=0` and clip by `attach(clip_norm=...)`, so that the gradient that is clipped
    has the penalties. Trainer evaluates the weights that are trained: masked, but gates are not folded and averages not
    used; `session.shipped_model()` is what is shipped. The session's state is saved in the folder of each checkpoint.

    `bf16` works, `fp16` does not: its gradients are still scaled in these events.

    Where the schedule sets learning rates, Trainer's own schedule must be `lr_scheduler_type="constant"`.
    """

    def __init__(self, session: AttachedSession, *, resume_from: str | os.PathLike[str] | None = None) -> None:
        """Check that the schedule can act here.

        Args:
            session: The session, attached to the model and the optimizer of the trainer.
            resume_from: The folder of the checkpoint that `train(resume_from_checkpoint=...)` is given; default:
                `output_dir/checkpoint-STEP`.

        Raises:
            UserError: A policy changes the loss, which a callback of Trainer cannot.
        """
        if keys := session.needs_loss:
            raise UserError(
                f"{', '.join(keys)} change the loss, which a callback of Trainer cannot: use compressor.attach in a"
                " loop of your own"
            )
        self.session = session
        self._resume_from = None if resume_from is None else Path(resume_from)
        self._rates: list[float] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check the trainer against the session, and continue from a checkpoint."""
        session, clock = self.session, self.session.clock
        if args.world_size > 1 or args.n_gpu > 1:
            raise UserError("a schedule is attached to one process on one device, Trainer has several")
        if args.fp16:
            raise UserError("with fp16 Trainer's gradients are scaled where penalties are added: use bf16=True")
        if state.max_steps != clock.steps:
            raise UserError(
                f"Trainer will take {state.max_steps} steps, attach was told {clock.epochs} epochs of"
                f" {clock.steps_per_epoch} steps"
            )
        optimizer = kwargs.get("optimizer")
        if getattr(optimizer, "optimizer", optimizer) is not session.optimizer.optimizer:
            raise UserError(
                "Trainer has another optimizer than the session: give it Trainer(optimizers=(optimizer, None))"
            )
        keys = session.sets_rates
        if keys and str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)) != "constant":
            raise UserError(
                f"{', '.join(keys)} and Trainer both set the learning rate: give TrainingArguments("
                'lr_scheduler_type="constant")'
            )
        if state.global_step > 0:
            self._resume(args, state)
        self._keep_rates()

    def _resume(self, args: TrainingArguments, state: TrainerState) -> None:
        folder = self._resume_from or Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"
        file = folder / FILE
        if not file.is_file():
            raise UserError(
                f"{file}: there is no state of the session to resume from: name the checkpoint's folder by"
                " CompressionCallback(session, resume_from=...)"
            )
        self.session.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        if self.session.clock.global_step != state.global_step:
            raise UserError(f"{file} is of step {self.session.clock.global_step}, Trainer's of {state.global_step}")

    def _keep_rates(self) -> None:
        self._rates = [group["lr"] for group in self.session.optimizer.groups]

    def _restore_rates(self) -> None:
        """Set the learning rates of the schedule, over which Trainer's scheduler has written."""
        if self.session.sets_rates:
            for group, rate in zip(self.session.optimizer.groups, self._rates, strict=True):
                group["lr"] = rate

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin an epoch; after a checkpoint of an epoch's last step, which Trainer writes before `on_epoch_end`, end
        that one first.
        """
        clock = self.session.clock
        if clock.step == clock.steps_per_epoch:
            self._end_epoch()
        self.session.begin_epoch(clock.epoch)
        self._keep_rates()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin a step."""
        self._restore_rates()
        self.session.enter()
        self._keep_rates()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Restore the weights, add penalties, mask and clip gradients."""
        self._restore_rates()
        self.session.after_backward()
        self.session.before_optimizer()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End the step."""
        self.session.after_optimizer()
        self._keep_rates()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Restore the schedule's learning rates, which are saved then."""
        self._restore_rates()

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End the epoch."""
        self._end_epoch()

    def _end_epoch(self) -> None:
        self._restore_rates()
        self.session.end_epoch()
        self._keep_rates()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save the session's state beside the checkpoint that was written."""
        folder = Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"
        content = self.session.state_dict()
        replace(folder / FILE, lambda file: torch.save(content, file))
