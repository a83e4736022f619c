"""Trains an experiment in its folder, to the end or to the next signal."""

import os
import signal
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

import compressor
from compressor.config import CheckpointConfig
from compressor.data.feed import DataFeed
from compressor.data.images import DataSet
from compressor.data.smoke import SmokeFeed
from compressor.errors import CompressError, Interrupted, UserError
from compressor.experiment import building, folder
from compressor.experiment.checking import check, watches
from compressor.experiment.smoke import Estimate, estimate, load_data, small
from compressor.experiment.specification import Specification
from compressor.importing import random_state_kept
from compressor.models.checking import shapes
from compressor.reports import formats
from compressor.reports.report import Report, Thinning, measure
from compressor.schedule.faults import Faults
from compressor.thinning.architecture import describe
from compressor.training import checkpoint, rng
from compressor.training.evaluation import evaluate
from compressor.training.files import replace_text
from compressor.training.observers import LogFile, MetricsFile, Observer, Terminal
from compressor.training.trainer import Trainer


@dataclass(frozen=True)
class Outcome:
    """A finished run: its folder, its report, and one line for each target that was missed."""

    folder: Path
    report: Report | None
    shortfalls: Sequence[str] = ()
    estimate: Estimate | None = None
    """Of the full run, after a smoke run."""


def train(
    spec: Specification, out: Path | None, root: Path | None, wanted_device: str, resume: bool, *, smoke: bool = False
) -> Outcome:
    """Train in a new folder, or continue one. Raises `CompressError`; what was saved stays.

    `smoke`: every epoch has two steps of a few images, targets are not judged, and the full run is estimated.
    """
    where = building.device(wanted_device)
    found = folder.to_resume(spec, out) if resume else None
    if found is not None:
        other = folder.other_content(spec, found)
        if other:
            raise UserError(f"{found} is a run of another schedule or configuration: {other}")
        if folder.finished(found):
            return Outcome(found, None)
    resumed = found is not None and (found / folder.CHECKPOINT).is_file()
    faults = Faults()
    _, policies = check(spec, faults, init=not resumed)
    faults.raise_any()
    dataset, count = load_data(spec.config, root) if smoke else (building.load_data(spec.config, root), None)
    rng.seed_all(spec.config.seed)
    network = building.new_model(spec.config, dataset, where, resumed=resumed)
    kind = partial(SmokeFeed, count=count) if smoke else DataFeed
    feed = kind(dataset, spec.config.data, spec.config.seed, where)
    if smoke:
        spec = small(spec, feed.pace)
    with random_state_kept():  # gates draw when they are made, and the run's own are made later
        building.scheduler(spec, network, feed, say=lambda text: None)  # every fault before a folder is made
    path = found or folder.fresh(spec, out, resume=resume, smoke=smoke)
    with ExitStack() as stack:
        descriptor = folder.lock(path)
        stack.callback(os.close, descriptor)
        run = _Run(spec, path, dataset, feed, network, where)
        if not smoke:
            return run.run(stack)
        # Validation is asked for by policies alone, and files are written at the end alone.
        always = any(watches(bound.policy) for bound in policies)
        run.validates = lambda epoch: always or epoch == spec.config.epochs - 1
        run.checkpoints = CheckpointConfig(every_epochs=spec.config.epochs)
        outcome = run.run(stack)
    assert isinstance(feed, SmokeFeed)
    return replace(outcome, shortfalls=(), estimate=estimate(spec, path, dataset, feed, where, count))


class _Run:
    def __init__(
        self,
        spec: Specification,
        path: Path,
        dataset: DataSet,
        feed: DataFeed,
        network: torch.nn.Module,
        where: torch.device,
    ) -> None:
        self._spec, self._path, self._dataset, self._feed = spec, path, dataset, feed
        self._network, self._device = network, where
        classes = len(dataset.classes)
        self._skeleton = shapes(lambda: building.model(spec.config.model, classes, trained_elsewhere=True))
        self._dense = describe(self._skeleton)
        self._log = LogFile(path / "log.txt", spec.config.epochs)
        self._terminal = Terminal(spec.config.epochs, feed.steps_per_epoch)
        self._signal: int | None = None
        self.validates: Callable[[int], bool] = lambda epoch: True
        self.checkpoints = spec.config.checkpoint

    def _say(self, text: str) -> None:
        self._terminal.say(text)
        self._log.say(text)

    def run(self, stack: ExitStack) -> Outcome:
        """Train, test once, report. An unforeseen exception becomes one line here and a traceback in log.txt."""
        for number in (signal.SIGINT, signal.SIGTERM):
            stack.callback(signal.signal, number, signal.signal(number, self._on_signal))
        try:
            return self._train()
        except Interrupted:
            raise
        except CompressError as error:
            self._log.say(f"error: {error}")
            raise
        except Exception as error:
            self._log.say(traceback.format_exc())
            first = (str(error).splitlines() or [""])[0]
            raise CompressError(
                f"failed while running: {type(error).__name__}: {first} (the traceback is in {self._path / 'log.txt'})"
            ) from error

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
        signal.signal(number, signal.SIG_DFL)  # a second one does not wait

    def _train(self) -> Outcome:
        spec, config = self._spec, self._spec.config
        saved = checkpoint.load(self._path / folder.CHECKPOINT) if (self._path / folder.CHECKPOINT).exists() else None
        if saved is not None:
            building.load_weights(self._network, saved, str(self._path / folder.CHECKPOINT))
        state = saved.get("state", {}) if saved is not None else {}
        if saved is not None and not isinstance(state.get("progress"), dict):
            raise UserError(f"{self._path / folder.CHECKPOINT}: this checkpoint has no state to resume from")
        scheduler = building.scheduler(spec, self._network, self._feed, self._say, state.get("dense"))
        done = int(state["progress"]["epoch"]) if saved else 0
        observers: list[Observer] = [self._terminal, self._log, MetricsFile(self._path / folder.METRICS, done)]
        trainer = Trainer(
            scheduler,
            self._feed,
            config.model_copy(update={"checkpoint": self.checkpoints}),
            self._device,
            observers,
            save=lambda kind: self._save(trainer, kind),
            stop_signal=lambda: self._signal,
            validates=self.validates,
        )
        self._introduce(saved)
        if saved is None:
            rng.seed_all(config.seed)
        else:
            self._restore(trainer, state)
        trainer.run()
        return self._finish(trainer)

    def _restore(self, trainer: Trainer, state: dict[str, Any]) -> None:
        try:
            trainer.load_state_dict(state)
            building.restore_live(self._network, state["live"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            path = self._path / folder.CHECKPOINT
            raise UserError(f"{path}: a damaged checkpoint: its state cannot be restored ({error})") from error

    def _introduce(self, saved: checkpoint.Checkpoint | None) -> None:
        spec, dataset = self._spec, self._dataset
        count = sum(parameter.numel() for parameter in self._network.parameters())
        for note in spec.schedule.notes if spec.schedule else []:
            self._say(note)
        self._say(
            f"{self._path}: {spec.config.model.name} ({count:,} parameters) on {dataset.name},"
            f" {self._feed.images + self._feed.held_out:,} training images"
            f" ({100 * spec.config.data.validation:g} % held out),"
            f" {len(dataset.test):,} test images; {spec.config.epochs} epochs of {self._feed.steps_per_epoch} steps"
            f" on {self._device.type}"
        )
        if saved is not None:
            progress = saved["state"]["progress"]
            self._say(f"continuing in epoch {progress['epoch'] + 1} after {progress['step']} steps")

    def _payload(self, trainer: Trainer) -> checkpoint.Checkpoint:
        """A checkpoint of the weights that count now; `state` has those that training goes on from."""
        return {
            "format": checkpoint.FORMAT,
            "version": compressor.__version__,
            "model": {name: tensor.detach().clone() for name, tensor in self._network.state_dict().items()},
            "config": self._spec.config_data,
            "schedule": self._spec.schedule_text,
            "shape": list(self._dataset.shape),
            "classes": list(self._dataset.classes),
            "epoch": trainer.progress.epoch,
            "metrics": {"train": dict(trainer.progress.train), "validation": dict(trainer.progress.validation)},
            "thinnings": list(trainer.ctx.thinnings),
            "figures": dict(trainer.ctx.figures),
            **self._architecture(),
        }

    def _dense_network(self) -> nn.Module | None:
        """The shapes of the dense network; None while it is that."""
        return None if describe(self._network) == self._dense else self._skeleton

    def _architecture(self) -> dict[str, Any]:
        """What tells a thinned network from the dense one; nothing while it is that."""
        now = describe(self._network)
        return {} if now == self._dense else {"architecture": now}

    def _save(self, trainer: Trainer, kind: str) -> None:
        with trainer.evaluation_weights() as live:
            payload = self._payload(trainer)
        if kind == "best":
            checkpoint.save(self._path / folder.BEST, payload)
        else:
            state = {**trainer.state_dict(), "live": live}
            checkpoint.save(self._path / folder.CHECKPOINT, {**payload, "state": state, "finished": False})

    def _finish(self, trainer: Trainer) -> Outcome:
        """Touch the test set, once: with the last weights and with the best ones."""
        self._test_best()
        with trainer.evaluation_weights() as live:
            test = trainer.evaluate(self._feed.test(), folded=True)
            self._say(f"test, last epoch: {_accuracies(test)}")
            own = trainer.evaluate(self._feed.test()) if trainer.own_inference else {}
            if own:
                self._say(f"test, last epoch, by the gates' own inference: {_accuracies(own)}")
            if best_test := trainer.progress.best_test:
                self._say(f"test, best epoch by test error (selected on the test set): {_accuracies(best_test)}")
            thinnings = [Thinning.model_validate(record) for record in trainer.ctx.thinnings]
            ctx = trainer.ctx
            dense, train = self._dense_network(), trainer.progress.train
            report = measure(self._network, self._dataset.shape, test, thinnings, dense, ctx.figures, train)
            shortfalls = trainer.scheduler.shortfalls()
            payload = self._payload(trainer)
        replace_text(self._path / "sparsity.csv", formats.as_csv(report))
        replace_text(self._path / "sparsity.json", formats.as_json(report))
        payload["metrics"]["test"] = test
        if own:
            payload["metrics"]["test_by_own_inference"] = own
        if best_test:
            payload["metrics"]["best_test_selected_on_the_test_set"] = best_test
        state = {**trainer.state_dict(), "live": live}
        checkpoint.save(self._path / folder.CHECKPOINT, {**payload, "state": state, "finished": True})
        self._log.say(formats.as_table(report))
        return Outcome(self._path, report, shortfalls)

    def _test_best(self) -> None:
        path = self._path / folder.BEST
        saved: dict[str, Any] = checkpoint.load(path)
        network = building.model(self._spec.config.model, len(self._dataset.classes), trained_elsewhere=True)
        building.load_weights(network, saved, str(path))
        test = evaluate(network.to(self._device), self._feed.test(), self._device, self._spec.config)
        saved["metrics"]["test"] = test
        checkpoint.save(path, saved)
        self._say(f"test, best validation (epoch {saved['epoch']}): {_accuracies(test)}")


def _accuracies(figures: dict[str, float]) -> str:
    return f"loss {figures['loss']:.4f}, top-1 {figures['top1']:.2f} %, top-5 {figures['top5']:.2f} %"
