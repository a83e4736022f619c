"""The loop that `policies/policy.py` describes, step by step."""

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from compressor.config import Config
from compressor.errors import CompressError, Interrupted
from compressor.policies.scheduler import Scheduler
from compressor.reports.report import overall_sparsity
from compressor.training import rng
from compressor.training.ema import Ema
from compressor.training.evaluation import Batches, Feed, autocast, evaluate
from compressor.training.meters import Meters
from compressor.training.observers import Observer
from compressor.training.optimizers import scaled


@dataclass
class Progress:
    """How far a run is: epochs finished, steps taken in the current one, seconds spent in it, and the best so far."""

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    best_epoch: int | None = None
    best_score: float = -math.inf
    train: dict[str, float] = field(default_factory=dict)
    validation: dict[str, float] = field(default_factory=dict)
    best_test: dict[str, float] = field(default_factory=dict)
    """Where every epoch is tested, the figures of the one with the highest test top-1: selected on the test set."""


class Trainer:
    """Runs the epochs of one experiment and tells `save` when to write which checkpoint (`checkpoint` or `best`)."""

    def __init__(
        self,
        scheduler: Scheduler,
        feed: Feed,
        config: Config,
        device: torch.device,
        observers: Sequence[Observer],
        save: Callable[[str], None],
        stop_signal: Callable[[], int | None],
        validates: Callable[[int], bool] = lambda epoch: True,
    ) -> None:
        self.scheduler, self.ctx = scheduler, scheduler.ctx
        self.progress = Progress()
        self._feed, self._config, self._device = feed, config, device
        self._observers, self._save, self._stop_signal = observers, save, stop_signal
        self._validates = validates
        self.ctx.evaluate = self._accuracies
        self._meters = Meters(device)
        self._criterion = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
        # Compiled, the network is called through a wrapper; its parameters and their names stay those of the plain one.
        self._forward = torch.compile(self.ctx.model) if config.compile else self.ctx.model
        self._ema = Ema(self.ctx.model, self.ctx.masks, config.ema.decay, self.ctx.averaged) if config.ema else None
        if self._ema is not None:
            self.ctx.followers.append(self._ema.cut)
            self.ctx.restart_averages = self._ema.restart
        # On an accelerator reading the loss waits for the device: there the first bad step is noted on the device.
        self._check_every = 1 if device.type == "cpu" else 50
        self._first_bad = torch.full((), -1, device=device)
        self._saved_at = time.monotonic()

    def run(self) -> None:
        """Train from where `progress` stands to the last epoch. Raises `CompressError`, `Interrupted` on a signal."""
        for epoch in range(self.progress.epoch, self._config.epochs):
            self._epoch(epoch)

    def _epoch(self, epoch: int) -> None:
        ctx, progress = self.ctx, self.progress
        begun = time.monotonic() - progress.seconds
        ctx.epoch, ctx.step = epoch, progress.step
        ctx.model.train()
        if progress.step == 0:
            self._meters = Meters(self._device)
            self.scheduler.on_epoch_begin()
        for images, labels in self._feed.train(epoch, progress.step):
            self._minibatch(images, labels)
            progress.step = ctx.step = ctx.step + 1
            progress.seconds = time.monotonic() - begun
            self._maybe_save()
        tests: dict[str, float] = {}
        progress.train = self._meters.means()
        with self.evaluation_weights():
            validates = self._validates(epoch)
            progress.validation = self.evaluate(self._feed.validation()) if validates else {}
            folded = self.evaluate(self._feed.validation(), folded=True) if validates and self.own_inference else {}
            sparsity = overall_sparsity(ctx.model, ctx.dense)
            figures = self.scheduler.figures()
            ctx.figures.update(figures)
            if self._config.test_every_epoch:
                tests = self.evaluate(self._feed.test())
                if tests["top1"] > progress.best_test.get("top1", -1.0):
                    progress.best_test = {**tests, "epoch": float(epoch)}
        ctx.validation = progress.validation
        record = self._record(epoch, sparsity, tests, time.monotonic() - begun)
        if figures:
            record["figures"] = figures
        if folded:
            record["val_folded"] = folded
        self._refuse_non_finite_weights()
        progress.epoch, progress.step, progress.seconds = epoch + 1, 0, 0.0
        if validates and self._is_best(epoch):
            self._save("best")
        self.scheduler.on_epoch_end()
        for observer in self._observers:
            observer.on_epoch(record)
        stop = self._stop_signal()
        due = progress.epoch % self._config.checkpoint.every_epochs == 0 or progress.epoch == self._config.epochs
        if due or stop is not None:
            self._save("checkpoint")
            self._saved_at = time.monotonic()
        if stop is not None:
            raise Interrupted(stop)

    def _minibatch(self, images: Tensor, labels: Tensor) -> None:
        scheduler, optimizer, masks = self.scheduler, self.ctx.optimizer, self.ctx.masks
        scheduler.on_minibatch_begin()
        masks.before_forward()
        for substitution in self.ctx.substitutions.values():
            substitution.before_forward()
        optimizer.zero_grad(set_to_none=True)
        data_loss = self._forward_backward(images, labels)
        for substitution in reversed(self.ctx.substitutions.values()):
            substitution.after_backward()
        scheduler.penalty_gradients()
        scheduler.before_parameter_optimization()
        masks.zero_gradients()
        masks.before_step()
        if self._config.optimizer.clip_norm is not None:
            every = [parameter for group in optimizer.param_groups for parameter in group["params"]]  # gates', too
            nn.utils.clip_grad_norm_(every, self._config.optimizer.clip_norm)
        with scaled(optimizer, self.ctx.lr_scale):
            optimizer.step()
        masks.apply()
        for substitution in self.ctx.substitutions.values():
            substitution.after_step()
        scheduler.on_minibatch_end()
        if self._ema is not None:
            self._ema.update()
        for observer in self._observers:
            observer.on_step(self.ctx.epoch, self.ctx.step, data_loss)

    def _forward_backward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Gradients of the mean loss of one batch, which may go through the network in parts; returns that loss."""
        total = torch.zeros((), device=self._device)
        size = -(-len(labels) // self._config.optimizer.accumulate)
        for start in range(0, len(labels), size):
            part, truth = images[start : start + size], labels[start : start + size]
            with autocast(self._device, self._config):
                logits = self._forward(part)
            data_loss = self._criterion(logits.float(), truth)
            loss = self.scheduler.before_backward_pass(data_loss)
            self._refuse_non_finite(data_loss, loss)
            share = len(truth) / len(labels)
            torch.autograd.backward(loss * share if share < 1 else loss)
            total += data_loss.detach() * share
            self._meters.add(logits.detach(), truth, data_loss)
        return total

    @property
    def own_inference(self) -> bool:
        """Whether some gate at work answers in another way than the folded network."""
        return any(substitution.inference() is not None for substitution in self.ctx.substitutions.values())

    def evaluate(self, batches: Batches, *, folded: bool = False) -> dict[str, float]:
        """Loss and accuracies inside `evaluation_weights`; raises `CompressError` where the loss is not finite.

        Gates answer by their own inference; `folded`: as the plain network does that is shipped.
        """
        with ExitStack() as stack:
            for substitution in self.ctx.substitutions.values():
                way = None if folded else substitution.inference()
                if way is not None:
                    stack.enter_context(way)
            figures = evaluate(self.ctx.model, batches, self._device, self._config)
        if not math.isfinite(figures.get("loss", 0.0)):
            raise CompressError(
                f"the loss on held-out images is not finite after epoch {self.ctx.epoch}, step {self.ctx.step - 1}"
                f" ({figures['loss']}): a lower learning rate or penalty may help"
            )
        return figures

    def _accuracies(self, part: str) -> dict[str, float]:
        """On the `validation` or the `test` images, with the weights that count now."""
        with self.evaluation_weights():
            return self.evaluate(self._feed.validation() if part == "validation" else self._feed.test())

    @contextmanager
    def evaluation_weights(self) -> Iterator[dict[str, Tensor]]:
        """Inside, the model holds the weights that count: masked, folded, and averaged where averaging is on.

        Yields the values that training goes on from.
        """
        with self.ctx.masks.folded() if self._ema is None else self._ema.averaged() as aside, torch.no_grad():
            parameters, more = self.ctx.parameters, dict[str, Tensor]()
            for substitution in self.ctx.substitutions.values():
                for name, value in substitution.fold().items():
                    more.setdefault(name, parameters[name].detach().clone())
                    parameters[name].copy_(value)
            try:
                yield {**more, **aside}
            finally:
                for name, value in more.items():
                    parameters[name].copy_(value)

    def _refuse_non_finite(self, data_loss: Tensor, loss: Tensor) -> None:
        if self._check_every > 1:
            new = ~torch.isfinite(loss.detach()) & (self._first_bad < 0)
            self._first_bad = torch.where(new, self.ctx.step, self._first_bad)
            if self.ctx.step % self._check_every or (step := int(self._first_bad)) < 0:
                return
        elif math.isfinite(float(loss.detach())):
            return
        else:
            step = self.ctx.step
        parts = {"data": float(data_loss.detach()), **self.scheduler.losses()}
        shown = ", ".join(f"{name} {value:g}" for name, value in parts.items())
        raise CompressError(
            f"the loss is not finite in epoch {self.ctx.epoch}, step {step} ({shown}):"
            f" a lower learning rate or penalty may help"
        )

    def _refuse_non_finite_weights(self) -> None:
        """Before a save: a step may have spoilt the weights after the last loss was looked at."""
        for name, parameter in self.ctx.parameters.items():
            if not bool(torch.isfinite(parameter.detach()).all()):
                raise CompressError(
                    f"{name} is not finite after epoch {self.ctx.epoch}, step {self.ctx.step - 1}:"
                    f" a lower learning rate or penalty may help"
                )

    def _record(self, epoch: int, sparsity: float, tests: dict[str, float], seconds: float) -> dict[str, Any]:
        train = self.progress.train
        return {
            "epoch": epoch,
            "train": dict(train),
            "val": dict(self.progress.validation),
            **({"test": tests} if tests else {}),
            "losses": {"data": train.get("loss"), **self.scheduler.losses()},
            "lr": self.ctx.optimizer.param_groups[0]["lr"],
            "sparsity": sparsity,
            "seconds": round(seconds, 3),
        }

    def _is_best(self, epoch: int) -> bool:
        """Whether this epoch beats the ones before it, among those at or after the last pruning event."""
        if epoch < self.scheduler.settled():
            return False
        validation = self.progress.validation
        if self._config.best == "last" or not validation:
            score = float(epoch)
        else:
            score = -validation["loss"] if self._config.best == "loss" else validation["top1"]
        if self.progress.best_epoch is not None and not score > self.progress.best_score:
            return False
        self.progress.best_epoch, self.progress.best_score = epoch, score
        return True

    def _maybe_save(self) -> None:
        minutes = self._config.checkpoint.every_minutes
        stop = self._stop_signal()
        if stop is not None or (minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes):
            self._refuse_non_finite_weights()
            self._save("checkpoint")
            self._saved_at = time.monotonic()
        if stop is not None:
            raise Interrupted(stop)

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes while a run goes on, but the model itself."""
        return {
            "optimizer": self.ctx.optimizer.state_dict(),
            "masks": self.ctx.masks.state_dict(),
            "policies": self.scheduler.state_dict(),
            "constants": self.ctx.constants,
            "thinnings": self.ctx.thinnings,
            "figures": self.ctx.figures,
            "dense": {name: list(shape) for name, shape in self.ctx.dense.items()},
            "progress": asdict(self.progress),
            "meters": self._meters.state_dict(),
            "rng": rng.capture(),
            "ema": self._ema.state_dict() if self._ema else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state; raises `UserError` where it belongs to another schedule or model."""
        self.ctx.optimizer.load_state_dict(state["optimizer"])
        self.ctx.masks.load_state_dict(state["masks"])
        self.scheduler.load_state_dict(state["policies"])
        self.ctx.constants = copy.deepcopy(dict(state["constants"]))
        self.ctx.figures = copy.deepcopy(dict(state["figures"]))
        self.ctx.thinnings = copy.deepcopy(list(state["thinnings"]))
        self.progress = Progress(**state["progress"])
        self.ctx.validation = self.progress.validation
        self._meters.load_state_dict(state["meters"])
        if self._ema is not None:
            self._ema.load_state_dict(state["ema"])
        rng.restore(state["rng"])
