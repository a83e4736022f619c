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
from compressor.experiment.checking import check
from compressor.experiment.smoke import Estimate, estimate
from compressor.experiment.smoke import load_data as smoke_data
from compressor.experiment.specification import Specification
from compressor.models.checking import shapes
from compressor.reports import formats
from compressor.reports.report import Report, Thinning, measure
from compressor.schedule.faults import Faults
from compressor.session import rng
from compressor.session.events import unheard
from compressor.session.session import Session, Shipped
from compressor.thinning.architecture import describe
from compressor.training import checkpoint
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
    config, where = spec.config, building.device(wanted_device)
    found = folder.to_resume(spec, out) if resume else None
    if found is not None:
        other = folder.other_content(spec, found)
        if other:
            raise UserError(f"{found} is a run of another schedule or configuration: {other}")
        if folder.finished(found):
            return Outcome(found, None)
    resumed = found is not None and (found / folder.CHECKPOINT).is_file()
    # Bind and check: everything that can be known to be wrong before there are data.
    faults = Faults()
    _, bound = check(spec, faults, init=not resumed)
    faults.raise_any()
    # Build.
    dataset, count = smoke_data(config, root) if smoke else (building.load_data(config, root), None)
    rng.seed_all(config.seed)
    network = building.new_model(config, dataset, where, resumed=resumed)
    kind = partial(SmokeFeed, count=count) if smoke else DataFeed
    feed = kind(dataset, config.data, config.seed, where)
    bound = bound.at_pace(feed.pace)
    saved = _saved(found) if found is not None and resumed else None
    if saved is not None:
        building.load_weights(network, saved, str(found))
    said: list[str] = []  # until there is a log
    state = saved["state"] if saved is not None else {}
    session = building.session(config, network, bound, feed, said.append, state.get("dense"))
    # Train and report.
    path = found or folder.fresh(spec, out, resume=resume, smoke=smoke)
    with ExitStack() as stack:
        descriptor = folder.lock(path)
        stack.callback(os.close, descriptor)
        run = _Run(spec, path, dataset, feed, session, where)
        said += [*bound.notes, *unheard(session.clock, bound.policies)]
        if smoke:  # validated where policies ask, and written to disk once
            always = any(one.policy.needs_validation for one in bound.policies)
            run.validates = lambda epoch: always or epoch == config.epochs - 1
            run.checkpoints = CheckpointConfig(every_epochs=config.epochs)
        outcome = run.run(stack, said, saved)
    if not isinstance(feed, SmokeFeed):
        return outcome
    return replace(outcome, shortfalls=(), estimate=estimate(config, path, dataset, feed, where, count))


def _saved(path: Path) -> checkpoint.Checkpoint:
    """The checkpoint that a run continues from; raises `UserError` where it has no state to continue from."""
    saved: checkpoint.Checkpoint = checkpoint.load(path / folder.CHECKPOINT)
    if not isinstance(saved.get("state", {}).get("progress"), dict):
        raise UserError(f"{path / folder.CHECKPOINT}: this checkpoint has no state to resume from")
    if saved["format"] != checkpoint.FORMAT:
        raise UserError(
            f"{path / folder.CHECKPOINT}: checkpoint format {saved['format']}: only runs of format"
            f" {checkpoint.FORMAT} are resumed; older ones can be started from (`--init`), evaluated and thinned"
        )
    return saved


class _Run:
    def __init__(
        self,
        spec: Specification,
        path: Path,
        dataset: DataSet,
        feed: DataFeed,
        session: Session,
        where: torch.device,
    ) -> None:
        self._spec, self._path, self._dataset, self._feed = spec, path, dataset, feed
        self._session, self._network, self._device = session, session.model, where
        session.say = self._say
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

    def run(self, stack: ExitStack, said: Sequence[str], saved: checkpoint.Checkpoint | None) -> Outcome:
        """Train, from `saved` where that is given; test once, report. `said` was said before there was a log.

        An unforeseen exception becomes one line here and a traceback in log.txt.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            stack.callback(signal.signal, number, signal.signal(number, self._on_signal))
        try:
            return self._train(said, saved)
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

    def _train(self, said: Sequence[str], saved: checkpoint.Checkpoint | None) -> Outcome:
        config = self._spec.config
        done = int(saved["state"]["progress"]["epoch"]) if saved is not None else 0
        observers: list[Observer] = [self._terminal, self._log, MetricsFile(self._path / folder.METRICS, done)]
        trainer = Trainer(
            self._session,
            self._feed,
            config.model_copy(update={"checkpoint": self.checkpoints}),
            self._device,
            observers,
            save=lambda kind: self._save(trainer, kind),
            stop_signal=lambda: self._signal,
            validates=self.validates,
        )
        self._introduce(said, saved)
        if saved is None:
            rng.seed_all(config.seed)  # so that training does not depend on how much was drawn for the weights
        else:
            self._restore(trainer, saved["state"])
        trainer.run()
        return self._finish(trainer)

    def _restore(self, trainer: Trainer, state: dict[str, Any]) -> None:
        try:
            trainer.load_state_dict(state)
            building.restore_live(self._network, state["live"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            path = self._path / folder.CHECKPOINT
            raise UserError(f"{path}: a damaged checkpoint: its state cannot be restored ({error})") from error

    def _introduce(self, said: Sequence[str], saved: checkpoint.Checkpoint | None) -> None:
        spec, dataset = self._spec, self._dataset
        count = sum(parameter.numel() for parameter in self._network.parameters())
        for text in said:
            self._say(text)
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

    def _payload(self, trainer: Trainer, shipped: Shipped) -> checkpoint.Checkpoint:
        """A checkpoint of the weights that are shipped; `state` has those that training goes on from."""
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
            "thinnings": list(shipped.thinnings),
            "figures": dict(shipped.figures),
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
        with self._session.as_shipped() as shipped:
            payload = self._payload(trainer, shipped)
        if kind == "best":
            checkpoint.save(self._path / folder.BEST, payload)
        else:
            state = {**trainer.state_dict(), "live": shipped.live}
            checkpoint.save(self._path / folder.CHECKPOINT, {**payload, "state": state, "finished": False})

    def _finish(self, trainer: Trainer) -> Outcome:
        """Touch the test set, once: with the last weights and with the best ones."""
        self._test_best()
        session, progress = self._session, trainer.progress
        with session.as_shipped() as shipped:
            test = trainer.evaluate(self._feed.test(), folded=True)
            self._say(f"test, last epoch: {_accuracies(test)}")
            own = trainer.evaluate(self._feed.test()) if session.has_own_inference else {}
            if own:
                self._say(f"test, last epoch, by the gates' own inference: {_accuracies(own)}")
            if best_test := progress.best_test:
                self._say(f"test, best epoch by test error (selected on the test set): {_accuracies(best_test)}")
            thinnings = [Thinning.model_validate(record) for record in shipped.thinnings]
            dense, figures = self._dense_network(), dict(shipped.figures)
            report = measure(self._network, self._dataset.shape, test, thinnings, dense, figures, progress.train)
            shortfalls = session.events.shortfalls()
            payload = self._payload(trainer, shipped)
        replace_text(self._path / "sparsity.csv", formats.as_csv(report))
        replace_text(self._path / "sparsity.json", formats.as_json(report))
        payload["metrics"]["test"] = test
        if own:
            payload["metrics"]["test_by_own_inference"] = own
        if best_test:
            payload["metrics"]["best_test_selected_on_the_test_set"] = best_test
        state = {**trainer.state_dict(), "live": shipped.live}
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
