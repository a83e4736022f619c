"""The loop around the session: batches, evaluation, checkpoints, observers."""

import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from compressor.config import Config
from compressor.errors import CompressError, Interrupted, UserError
from compressor.reports import sparsities
from compressor.session import Session, rng
from compressor.training.evaluation import Batches, Feed, OwnBatches, autocast, evaluate
from compressor.training.forward import Forward
from compressor.training.meters import Meters
from compressor.training.observers import Observer
from compressor.training.parts import equal_parts, least_images, part_sizes
from compressor.training.weights import restore_live

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""The signals that stop a run after a step."""


@dataclass
class Progress:
    """The progress of a run: epochs finished, steps and seconds of the current one, and the best epoch so far."""

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    best_epoch: int | None = None
    best_score: float = -math.inf
    train: dict[str, float] = field(default_factory=dict)
    validation: dict[str, float] = field(default_factory=dict)
    best_test: dict[str, float] = field(default_factory=dict)
    """Where every epoch is tested: the figures of the epoch with the highest test top-1, selected on the test set."""


Mixed = Callable[[Tensor, Tensor, int, int], tuple[Tensor, Tensor]]
"""From images, labels, epoch and step to what the step takes: mixed images have weights of the classes as labels."""


def _unmixed(images: Tensor, labels: Tensor, epoch: int, step: int) -> tuple[Tensor, Tensor]:
    return images, labels


class Trainer:
    """Runs the epochs of one experiment, and calls `save` for each checkpoint (`checkpoint` or `best`)."""

    def __init__(
        self,
        session: Session,
        feed: Feed,
        config: Config,
        device: torch.device,
        observers: Sequence[Observer],
        save: Callable[[str], None],
        stop_signal: Callable[[], int | None],
        validates: Callable[[int], bool] = lambda epoch: True,
        targets: Callable[[int], Mapping[str, float]] = lambda epoch: {},
        mixed: Mixed = _unmixed,
    ) -> None:
        """`validates` returns after which epochs the network is validated; `targets` the sparsities that are asked for
        at the end of an epoch, by weight; `mixed` a batch as a step takes it.
        """
        self.session = session
        self.progress = Progress()
        self._feed, self._config, self._device = feed, config, device
        self._observers, self._save, self._stop_signal = observers, save, stop_signal
        self._validates, self._targets, self._mixed = validates, targets, mixed
        session.data.evaluate = self._accuracies
        self._meters = Meters(device)
        self._criterion = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
        self._world = session.world
        self._forward = Forward(session.model, self._world, compiled=config.compile)
        self._least = least_images(session.model, config, self._world.size)
        # On an accelerator reading the loss waits for the device: there the first bad step is noted on the device.
        self._check_every = 1 if device.type == "cpu" else 50
        self._first_bad = torch.full((), -1, device=device)
        self._saved_at = time.monotonic()

    def run(self) -> None:
        """Train from `progress` to the last epoch. Raises `CompressError`, and `Interrupted` after a signal."""
        for epoch in range(self.progress.epoch, self._config.epochs):
            self._epoch(epoch)

    def _epoch(self, number: int) -> None:
        session, progress = self.session, self.progress
        begun = time.monotonic() - progress.seconds
        session.model.train()
        if progress.step == 0:
            self._meters = Meters(self._device)
        with session.epoch(number) as epoch:
            for images, labels, factor, copies in self._batches(session.clock.data_epoch):
                loss = self.step(images, labels, factor, copies)
                for observer in self._observers:
                    observer.on_step(number, progress.step, loss)
                progress.step += 1
                progress.seconds = time.monotonic() - begun
                self._maybe_save()
            progress.train = self._meters.means()
            record, by_weight = self._evaluate(number)
            epoch.validation = progress.validation
            record["seconds"] = round(time.monotonic() - begun, 3)
            self._refuse_non_finite_weights()
            progress.epoch, progress.step, progress.seconds = number + 1, 0, 0.0
            if self._validates(number) and self._is_best(number):
                self._save("best")
        layers = self._layers(number, by_weight)
        for observer in self._observers:
            observer.on_epoch(record)
            observer.on_layers(layers)
        stop, _ = self._asked()
        due = progress.epoch % self._config.checkpoint.every_epochs == 0 or progress.epoch == self._config.epochs
        if due or stop is not None:
            self._save("checkpoint")
            self._saved_at = time.monotonic()
        if stop is not None:
            raise Interrupted(stop)

    def _batches(self, epoch: int) -> OwnBatches:
        """Yield the batches of an epoch that are still to come; of several processes this one's part of each."""
        step = self.progress.step
        if self._world.size > 1:
            yield from self._feed.of_process(epoch, step)
        else:
            yield from ((images, labels, 1.0, 1) for images, labels in self._feed.train(epoch, step))

    def step(self, images: Tensor, labels: Tensor, factor: float = 1.0, copies: int = 1) -> Tensor:
        """Take one optimizer step on a batch, which may be computed in parts; return its mean loss.

        Of several processes each has its part of the batch: `factor` is that of its mean loss in the mean over all of
        them, and `copies` of them have the same images. Where images are mixed, the class of an image is the one with
        the larger weight, for policies and accuracies.
        """
        world, session = self._world, self.session
        seed = world.seed_of_step(session.clock.epoch, session.clock.step)
        if seed is not None:
            rng.seed_all(seed)
        images, targets = self._mixed(images, labels, session.clock.data_epoch, self.progress.step)
        labels = labels if targets is labels else targets.argmax(1)
        alone = world.size == 1
        meters = self._meters if alone else Meters(self._device)
        total, whole = torch.zeros((), device=self._device), torch.zeros((), device=self._device)
        sizes = self._part_sizes(len(labels), factor)
        end = 0
        with session.step() as step:
            self._forward.prepare()
            for number, size in enumerate(sizes):
                start, end = end, end + size
                part, truth = images[start:end], labels[start:end]
                with self._forward.part(last=number == len(sizes) - 1):
                    with autocast(self._device, self._config):
                        logits = self._forward(part)
                    data_loss = self._criterion(logits.float(), _as_wide(targets[start:end], logits))
                    share = factor * (len(truth) / len(labels))
                    loss = step.backward(data_loss, share=share, images=part, labels=truth, logits=logits)
                if alone:
                    self._refuse_non_finite(data_loss.detach(), loss)
                else:
                    whole += loss * share
                total += data_loss.detach() * share
                meters.add(logits.detach(), truth, data_loss)
            if not alone:
                seen = round(len(labels) * world.size / factor) // copies
                total, whole = self._over_all(total, whole, meters.sums / copies, seen)
                self._refuse_non_finite(total, whole)
        return total

    def _part_sizes(self, images: int, factor: float) -> list[int]:
        """Return the numbers of images of the parts of a batch, as many on each process."""
        accumulate, size = self._config.optimizer.accumulate, self._world.size
        if size == 1:
            return part_sizes(images, accumulate, self._least)
        smallest = round(images * size / factor) // size  # shares differ by one image at most
        return equal_parts(images, smallest, accumulate, self._least)

    def _over_all(self, total: Tensor, whole: Tensor, sums: Tensor, seen: int) -> tuple[Tensor, Tensor]:
        """Count a step on all processes; return the mean over them of the data's loss and of the whole loss.

        `sums`: of this process's meters; `seen`: the number of images that all of them have seen.
        """
        means = torch.stack([total, whole]).double() / self._world.size
        found = self._world.sum(torch.cat([means, sums]))
        self._meters.take(found[2:], seen)
        return found[0], found[1]

    def _evaluate(self, epoch: int) -> tuple[dict[str, Any], Mapping[str, float]]:
        """Validate where it is due; return the record of the epoch, and the sparsity of each weight."""
        session, progress = self.session, self.progress
        validates = self._validates(epoch)
        tests: dict[str, float] = {}
        with session.as_shipped():
            session.check_logits()
            progress.validation = self.evaluate(self._feed.validation()) if validates else {}
            own = validates and session.has_own_inference
            folded = self.evaluate(self._feed.validation(), folded=True) if own else {}
            zeros = sparsities(session.model, session.network.dense)
            figures = session.events.figures()
            session.records.figures.update(figures)
            if self._config.test_every_epoch:
                tests = self.evaluate(self._feed.test())
                if tests["top1"] > progress.best_test.get("top1", -1.0):
                    progress.best_test = {**tests, "epoch": float(epoch)}
        record = {
            "epoch": epoch,
            "train": dict(progress.train),
            "val": dict(progress.validation),
            **({"test": tests} if tests else {}),
            "losses": {"data": progress.train.get("loss"), **session.events.losses()},
            "lr": session.optimizer.groups[0]["lr"] * session.events.rate_factor(),
            "sparsity": zeros.prunable,
            "sparsity_all": zeros.everything,
            **({"figures": figures} if figures else {}),
            **({"val_folded": folded} if folded else {}),
        }
        return record, zeros.by_weight

    def _layers(self, epoch: int, by_weight: Mapping[str, float]) -> dict[str, Any]:
        """Return the record of the weights in an epoch, with all changes of their masks until now."""
        targets = self._targets(epoch)
        events, changes = self.session.churn.take()
        layers = {}
        for name, sparsity in by_weight.items():
            pruned, revived = changes.get(name, (0, 0))
            layers[name] = {"sparsity": sparsity, "target": targets.get(name), "pruned": pruned, "revived": revived}
        return {"epoch": epoch, "layers": layers, "events": events}

    def evaluate(self, batches: Batches, *, folded: bool = False, meters: Meters | None = None) -> dict[str, float]:
        """Return loss and accuracies inside `session.as_shipped`; raises `CompressError` where the loss is not finite.

        Substitutions answer by their own inference; `folded`: as the plain network does that is shipped.
        `meters` count the batches.
        """
        with nullcontext() if folded else self.session.own_inference():
            figures = evaluate(self.session.model, batches, self._device, self._config, meters, self._world)
        if not math.isfinite(figures.get("loss", 0.0)):
            raise CompressError(
                f"the loss on validation images is not finite after {self._last_step()} ({figures['loss']}):"
                f" try a lower learning rate or penalty"
            )
        return figures

    def _last_step(self) -> str:
        clock = self.session.clock
        return f"epoch {clock.epoch}, step {clock.step - 1}"

    def _accuracies(self, part: str) -> dict[str, float]:
        """Return the accuracies on the `validation` or the `test` images, with the weights that are shipped now."""
        with self.session.as_shipped():
            return self.evaluate(self._feed.validation() if part == "validation" else self._feed.test())

    def _refuse_non_finite(self, data_loss: Tensor, loss: Tensor) -> None:
        clock = self.session.clock
        if self._check_every > 1:
            new = ~torch.isfinite(loss) & (self._first_bad < 0)
            self._first_bad = torch.where(new, clock.step, self._first_bad)
            if clock.step % self._check_every or (step := int(self._first_bad)) < 0:
                return
        elif math.isfinite(float(loss)):
            return
        else:
            step = clock.step
        parts = {"data": float(data_loss), **self.session.events.losses()}
        shown = ", ".join(f"{name} {value:g}" for name, value in parts.items())
        raise CompressError(
            f"the loss is not finite in epoch {clock.epoch}, step {step} ({shown}):"
            f" try a lower learning rate or penalty"
        )

    def _refuse_non_finite_weights(self) -> None:
        """Raise before a save where weights are not finite: a step may have spoilt them after the last loss was
        checked.
        """
        for name, parameter in self.session.network.parameters.items():
            if not bool(torch.isfinite(parameter.detach()).all()):
                raise CompressError(
                    f"{name} is not finite after {self._last_step()}: try a lower learning rate or penalty"
                )

    def _is_best(self, epoch: int) -> bool:
        """Return whether this epoch is better than those before it, among those at or after the last pruning event."""
        if epoch < self.session.events.settled():
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

    def train_on(self, planned: int) -> None:
        """Prepare a restored run, planned for `planned` epochs, for more: as if it had been planned for all of them."""
        if self.progress.epoch == planned and self.progress.step == 0:
            self.session.events.reopen(planned)
        best = self.progress.best_epoch
        if best is not None and best < self.session.events.settled():  # more zeros are still to come
            self.forget_best()

    def forget_best(self) -> None:
        """Let the best epoch be one of those that are still to come."""
        self.progress.best_epoch, self.progress.best_score = None, -math.inf

    def _maybe_save(self) -> None:
        stop, due = self._asked()
        if stop is not None or due:
            self._refuse_non_finite_weights()
            self.session.check_logits()
            self._save("checkpoint")
            self._saved_at = time.monotonic()
        if stop is not None:
            raise Interrupted(stop)

    def _asked(self) -> tuple[int | None, bool]:
        """Return the signal that has come, and whether the minutes between two checkpoints are over.

        All processes return the same: they stop after the same step, and rank 0's clock counts.
        """
        minutes, stop = self._config.checkpoint.every_minutes, self._stop_signal()
        due = minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes
        if self._world.size == 1:
            return stop, due
        mine = [*(int(stop == number) for number in _SIGNALS), int(due and self._world.writes)]
        *came, due_now = self._world.sum(torch.tensor(mine)).tolist()
        return next((number for number, count in zip(_SIGNALS, came, strict=True) if count), None), bool(due_now)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes in a run, except the model."""
        own = {"progress": asdict(self.progress), "meters": self._meters.state_dict()}
        return {**self.session.state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state. Raises `UserError` where it belongs to another schedule or model."""
        self.session.load_state_dict(state)
        self.progress = Progress(**state["progress"])
        self.session.data.validation = self.progress.validation
        self._meters.load_state_dict(state["meters"])

    def restore(self, state: Mapping[str, Any], source: str) -> None:
        """Continue from the state of a checkpoint, with the weights with which training continues.

        Raises `UserError` where it belongs to another schedule or model, or is damaged.
        """
        try:
            self.load_state_dict(state)
            restore_live(self.session.model, dict(state["live"]))
        except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError, AttributeError) as error:
            raise UserError(f"{source}: a damaged checkpoint: its state cannot be restored ({error})") from error


def _as_wide(targets: Tensor, logits: Tensor) -> Tensor:
    """Return the targets; weights of classes with zeros for logits of which the data set has no class."""
    return nn.functional.pad(targets, (0, logits.shape[1] - targets.shape[1])) if targets.dim() == 2 else targets
