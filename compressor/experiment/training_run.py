"""The training of one run, in all of its processes, to its end or to the next signal; one of them writes."""

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compressor import torchrun
from compressor.config import CheckpointConfig
from compressor.data import DataFeed
from compressor.errors import CompressError, Interrupted, UserError
from compressor.experiment import claims, folder, recording
from compressor.experiment.more_epochs import earlier_tests, kept_tests, numbered
from compressor.experiment.signals import Stop, noted
from compressor.experiment.smoke import Estimate
from compressor.experiment.written import Written
from compressor.reports import Evaluation, Report, formats
from compressor.schedule import BoundSchedule
from compressor.session import Session, rng
from compressor.training import (
    ClassMeters,
    LayersFile,
    LinesFile,
    LogFile,
    MetricsFile,
    Observer,
    Status,
    Terminal,
    Tracked,
    Trainer,
    checkpoint,
    evaluate,
    track,
)


@dataclass(frozen=True)
class Outcome:
    """A finished run: its folder, its report, and one line for each target that was missed."""

    folder: Path
    report: Report | None
    shortfalls: Sequence[str] = ()
    estimate: Estimate | None = None
    """Of the full run, after a smoke run."""


@dataclass
class Run:
    """One run in its folder."""

    written: Written
    feed: DataFeed
    session: Session
    where: torch.device
    bound: BoundSchedule
    targets: recording.Targets
    _tracked: list[Tracked] = field(default_factory=list)
    _stop: Stop = lambda: None
    _say: Callable[[str], None] = print

    def __post_init__(self) -> None:
        self.spec, self.path, self._world = self.written.spec, self.written.path, self.session.world

    def run(self, said: Sequence[str], saved: checkpoint.Checkpoint | None) -> Outcome:
        """Train, from `saved` where that is given; test once, report. `said` was said before there was a log.

        An unforeseen exception becomes one line here and a traceback in log.txt.
        """
        log = LogFile(self.path / folder.LOG, self.spec.config.epochs)
        terminal = Terminal(self.spec.config.epochs, self.feed.steps_per_epoch)
        ended: Status = "failed"
        try:
            # Of several processes one that fails says why, whatever signals follow: torchrun ends all others then.
            several = self._world.size > 1
            with closing(terminal), noted(ignored_after_errors=several) as self._stop, _losses():
                outcome = self._train(terminal, log, said, saved)
            ended = "finished"
            return outcome
        except Interrupted:
            ended = "interrupted"
            raise
        except CompressError as error:
            if self._world.writes:
                log.say(f"error: {error}")
            raise
        except (Exception, SystemExit) as error:  # a plugin may leave Python
            log.say(traceback.format_exc())
            first = (str(error).splitlines() or [""])[0]
            raise CompressError(
                f"failed while running: {type(error).__name__}: {first} (the traceback is in {self.path / 'log.txt'})"
            ) from error
        finally:
            for tracked in self._tracked:
                tracked.end(ended)

    @property
    def _settings(self) -> dict[str, Any]:
        """Return the configuration, and the name of the schedule, as the parameters of a tracker."""
        return {**self.spec.config_data, "schedule": self.spec.schedule_name}

    def _train(
        self, terminal: Terminal, log: LogFile, said: Sequence[str], saved: checkpoint.Checkpoint | None
    ) -> Outcome:
        config, state = self.spec.config, saved["state"] if saved is not None else {}
        done, smoke = int(state["progress"]["epoch"]) if state else 0, self.written.smoke

        def say(text: str) -> None:
            if self._world.writes:
                terminal.say(text)
                log.say(text)

        self._say = self.session.say = say
        observers: list[Observer] = []
        if self._world.writes:
            lines = [MetricsFile(self.path / folder.METRICS, done), LayersFile(self.path / folder.LAYERS, done)]
            self._tracked = [] if smoke else track(config.logging, self.path, self._settings, done, say)
            observers = [terminal, log, *lines, *self._tracked]
        # A smoke run is validated where policies ask, and written to disk once.
        always = not smoke or any(one.policy.needs_validation for one in self.bound.policies)
        whole = CheckpointConfig(every_epochs=config.epochs) if smoke else config.checkpoint
        trainer = Trainer(
            self.session,
            self.feed,
            config.model_copy(update={"checkpoint": whole}),
            self.where,
            observers,
            save=lambda kind: self._save(trainer, kind),
            stop_signal=self._stop,
            validates=lambda epoch: always or epoch == config.epochs - 1,
            targets=self.targets,
            mixed=self.feed.mixed,
        )
        for text in [*said, *self._introduction(state)]:
            self._say(text)
        if saved is None:
            self._world.decide(lambda: self._recording.begin(self._reference()))
            rng.seed_all(config.seed)  # so that training does not depend on how much was drawn for the weights
        else:
            trainer.restore(state, str(self.path / folder.CHECKPOINT))
            self._recording.load_state_dict(state.get("recording", {}))
            self._train_on(trainer, saved)
            for file in observers:
                if isinstance(file, LinesFile) and file.lost:
                    self._say(f"warning: {file.lost}; the run continues without them")
            self._check_best(trainer)
        trainer.run()
        return self._world.decide(lambda: self._finish(trainer, log))

    @cached_property
    def _recording(self) -> recording.Recording:
        shape = self.written.dataset.shape
        return recording.Recording(self.session.model, shape, self.session.network.dense)

    def _reference(self) -> Evaluation | None:
        """Return the test figures of the checkpoint with which training begins, where it is a whole network for these
        classes and the test images may be used. No random number that is drawn here changes the run.
        """
        if not (recording.has_reference(self.spec.config) and self.spec.config.test):
            return None
        meters = ClassMeters(self.where, self.written.dataset.classes)
        figures = evaluate(self.session.model, self._test_batches(begun=False), self.where, self.spec.config, meters)
        self._say(f"test, {self.spec.config.checkpoint_path}: {_accuracies(figures)}")
        return meters.evaluation()

    def _train_on(self, trainer: Trainer, saved: checkpoint.Checkpoint) -> None:
        """Prepare for more epochs than the run was planned for when `saved` was written, and keep its test figures."""
        self.written.kept = kept_tests(saved)
        planned = int(saved["config"]["epochs"])
        if planned < self.spec.config.epochs:
            self._say(f"{self.path} was planned for {numbered(planned)}: it is trained on to {self.spec.config.epochs}")
            trainer.train_on(planned)
        for test in earlier_tests(self.written.kept):
            self._say(formats.tested_before(test))

    def _check_best(self, trainer: Trainer) -> None:
        """Forget the best epoch so far where its weights cannot be read any more."""
        if trainer.progress.best_epoch is None:
            return
        lost = self._world.decide(self.written.best_is_lost)
        if lost:
            self._say(f"warning: {lost}: {folder.BEST} will be the best of the epochs that are still to come")
            trainer.forget_best()

    def _introduction(self, state: Mapping[str, Any]) -> list[str]:
        config, feed, dataset, size = self.spec.config, self.feed, self.written.dataset, self._world.size
        count = sum(parameter.numel() for parameter in self.session.model.parameters())
        where = f"{self.where}" if size == 1 else f"{size} processes ({self.where.type})"
        tests = f"{len(dataset.test):,} test images" if config.test else "no test images (test: false)"
        lines = [
            f"{self.path}: {config.model.name} ({count:,} parameters) on {dataset.name},"
            f" {feed.images + feed.held_out:,} training images ({100 * config.data.validation:g} % for validation),"
            f" {tests}; {numbered(config.epochs)} of {feed.steps_per_epoch} steps on {where}"
        ]
        if state:
            progress = state["progress"]
            lines.append(f"continuing in epoch {progress['epoch'] + 1} after {progress['step']} steps")
        return lines

    def _save(self, trainer: Trainer, kind: str) -> None:
        """Write a checkpoint; the other processes wait for the one that writes."""
        if kind == "best":
            self._world.decide(lambda: self.written.save_best(trainer.progress))
        else:
            self._world.decide(lambda: self.written.save(trainer.progress, self._state(trainer)))

    def _state(self, trainer: Trainer) -> dict[str, Any]:
        return {**trainer.state_dict(), "recording": self._recording.state_dict()}

    def _finish(self, trainer: Trainer, log: LogFile) -> Outcome:
        """Use the test set, once: with the last weights and with the best ones; with `test: false` not at all."""
        state = self._state(trainer)  # before the tests draw random numbers: the run may be trained on
        tests = self.spec.config.test
        if tests:
            self._test_best()
        session, progress = self.session, trainer.progress
        meters = ClassMeters(self.where, self.written.dataset.classes)

        def test() -> tuple[dict[str, float], dict[str, float]]:
            if not tests:
                return {}, {}
            last = trainer.evaluate(self._test_batches(), folded=True, meters=meters)
            self._say(f"test, last epoch: {_accuracies(last)}")
            own = trainer.evaluate(self._test_batches()) if session.has_own_inference else {}
            if own:
                self._say(f"test, last epoch, by the gates' own inference: {_accuracies(own)}")
            if best_test := progress.best_test:
                self._say(f"test, best epoch by test error (selected on the test set): {_accuracies(best_test)}")
            return last, own

        done = self.written.finish(progress, state, test, lambda: self._recording.finish(meters.evaluation()))
        for tracked in self._tracked if tests else ():
            tracked.on_test(done.test)
        log.say(formats.as_table(done.report))
        smoke = self.written.smoke
        for line in [] if smoke else claims.lines(self.spec, done.report, (done.own or done.test).get("top1")):
            self._say(line)
        if self.spec.config.report.html and not smoke:
            self.written.draw(self._say, log.say)
        return Outcome(self.path, done.report, done.shortfalls)

    def _test_batches(self, *, begun: bool = True) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the test images, up to a signal: the checkpoint of the last epoch is written by then, unless training
        has not `begun`.
        """
        for batch in self.feed.test():
            if (came := self._stop()) is not None:
                raise Interrupted(came, begun=begun)
            yield batch

    def _test_best(self) -> None:
        try:
            network, saved = self.written.best()
        except UserError as error:
            self._say(f"warning: {error}: the best epoch is not tested")
            return
        test = evaluate(network.to(self.where), self._test_batches(), self.where, self.spec.config)
        self.written.save_tested(saved, test)
        self._say(f"test, best validation (epoch {saved['epoch']}): {_accuracies(test)}")


@contextmanager
def _losses() -> Iterator[None]:
    """Raise `CompressError` where the connection to another process is lost inside the block."""
    try:
        yield
    except Exception as error:
        if torchrun.is_loss(error):
            raise torchrun.loss(error) from error
        raise


def _accuracies(figures: dict[str, float]) -> str:
    return f"loss {figures['loss']:.4f}, top-1 {figures['top1']:.2f} %, top-5 {figures['top5']:.2f} %"
