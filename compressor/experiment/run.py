"""The training of an experiment in its folder, to the end or to the next signal."""

import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

import compressor
from compressor import data
from compressor.config import CheckpointConfig, Config
from compressor.data import DataFeed, DataSet, Fingerprint, SmokeFeed, expected_images, fingerprint
from compressor.errors import CompressError, Interrupted, UserError
from compressor.experiment import building, claims, environment, folder, identity, recording
from compressor.experiment.binding import bind, check_augment, check_outputs
from compressor.experiment.more_epochs import check_ends, earlier_tests, kept_tests, numbered
from compressor.experiment.networks import Networks, needs_data
from compressor.experiment.smoke import Estimate, estimate
from compressor.experiment.smoke import load_data as smoke_data
from compressor.experiment.specification import Specification
from compressor.files import replace_text
from compressor.reports import Evaluation, Report, Thinning, formats, measure
from compressor.schedule import BoundSchedule, Faults
from compressor.session import Session, Shipped, rng, start, windows_past_end
from compressor.thinning import describe
from compressor.training import (
    ClassMeters,
    LayersFile,
    LogFile,
    MetricsFile,
    Observer,
    Status,
    Terminal,
    Tracked,
    Trainer,
    check_installed,
    checkpoint,
    evaluate,
    load_weights,
    optimizers,
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


def train(
    spec: Specification,
    out: Path | None,
    root: Path | None,
    wanted_device: str,
    resume: bool,
    *,
    smoke: bool = False,
    other_data: bool = False,
) -> Outcome:
    """Train in a new folder, or continue one. Raises `CompressError`; what was saved stays.

    `smoke`: every epoch has two steps of a few images, targets are not judged, and the full run is estimated.
    `other_data`: a run may be continued on other images than it began with.
    """
    check_installed(spec.config.logging)
    where = building.device(wanted_device)
    found = folder.to_resume(spec, out) if resume else None
    if found is None:
        return _train(spec, out, root, where, None, resume=resume, smoke=smoke, other_data=other_data)
    if found.finished:
        folder.own_checkpoint(spec, found.path)  # another run's end is not this one's
        return Outcome(found.path, None)
    if found.begun and found.planned < spec.config.epochs:
        check_ends(spec, found.planned, found.path / folder.CHECKPOINT)
    with folder.held(found.path):
        return _train(spec, out, root, where, found, resume=resume, smoke=smoke, other_data=other_data)


def _train(
    spec: Specification,
    out: Path | None,
    root: Path | None,
    where: torch.device,
    found: folder.Found | None,
    *,
    resume: bool,
    smoke: bool,
    other_data: bool,
) -> Outcome:
    config = spec.config
    saved = folder.own_checkpoint(spec, found.path) if found is not None and found.begun else None
    # Bind and check: everything that can be known to be wrong before there are data.
    faults, resumed = Faults(), found is not None and found.begun
    wanted = config.model.pretrained and config.checkpoint_path is None and not resumed
    images = smoke_data if smoke else _data
    known, count, missing = None, None, None
    if needs_data(config):
        try:
            known, count = images(config, root)
        except UserError as error:
            missing = error  # all other faults come first
    networks = Networks(config, known.shape if known else data.image_shape(config.data), pretrained=wanted)
    bound, view = bind(spec, faults, networks, init=not resumed, known=known)
    faults.raise_any()
    if missing is not None:
        raise missing
    # Build.
    dataset, count = images(config, root) if known is None else (known, count)
    said = list(dataset.notes)  # until there is a log
    if found is not None and saved is None:
        said.append(f"{found.path} has no {folder.CHECKPOINT}: the run begins again")
    if found is not None and saved is not None:
        source = found.path / folder.CHECKPOINT
        dataset = identity.same_data(dataset, saved, source, other_data=other_data, say=said.append)
    kind = partial(SmokeFeed, count=count) if smoke else DataFeed
    feed = kind(dataset, config.data, config.seed, where)
    if view is not None and (view.image is None or expected_images(config.data) is None):
        # What depends on the images' shape and number is known now.
        late, view = view.image is None, replace(view, image=dataset.shape, shared={})
        said += [line for line in check_outputs(spec, view, faults, networks, feed.images) if line not in bound.notes]
        if late:
            check_augment(spec, dataset.shape, faults)
            bound = bound.check(view, faults)
        faults.raise_any()
    rng.seed_all(config.seed)
    network = networks.to_train(len(dataset.classes))
    network = building.new_model(config, network, dataset, where, resumed=resumed, say=said.append)
    bound = bound.at_pace(feed.pace)
    if found is not None and saved is not None:
        load_weights(network, saved, str(found.path / folder.CHECKPOINT))
    optimizer = optimizers.build(network, config.optimizer)
    shapes = None if saved is None else saved["state"].get("dense")
    session = start(
        config,
        network,
        optimizer,
        bound.policies,
        feed,
        said.append,
        shapes,
        shape=dataset.shape,
        classes=dataset.classes,
        allows_empty_layers=bound.allows_empty_layers or smoke,  # two steps an epoch say nothing of that
    )
    if saved is None and config.checkpoint_path is not None:
        held = session.keep_zeros() if config.keeps_zeros else None
        said += building.zeros_in_words(config.checkpoint_path, network, held)
    said += [*bound.notes, *windows_past_end(session.clock, bound.policies)]
    # Train and report.
    new = folder.made(spec, out, resume=resume, smoke=smoke)
    with new if found is None else nullcontext(found.path) as path:
        asked = recording.targets_of(bound.policies, view, session.clock, lambda text: session.say(text))
        run = _Run(spec, path, networks, dataset, fingerprint(dataset), feed, session, where, smoke, bound, asked)
        if found is not None and found.planned != config.epochs:
            folder.write_config(spec, path)
        environment.add(path, where, run.fingerprint)
        outcome = run.run(said, saved)
    if not isinstance(feed, SmokeFeed):
        return outcome
    cost = estimate(config, networks, path, dataset, feed, where, count)
    return replace(outcome, shortfalls=(), estimate=cost)


def _data(config: Config, root: Path | None) -> tuple[DataSet, None]:
    return building.load_data(config, root), None


@dataclass
class _Run:
    """One run in its folder."""

    spec: Specification
    path: Path
    networks: Networks
    dataset: DataSet
    fingerprint: Fingerprint
    feed: DataFeed
    session: Session
    where: torch.device
    smoke: bool
    bound: BoundSchedule
    targets: recording.Targets
    _kept: Mapping[str, dict[str, float]] = field(default_factory=dict)
    """The test figures of before, where the run is trained on for more epochs."""
    _tracked: list[Tracked] = field(default_factory=list)
    _signal: int | None = None
    _say: Callable[[str], None] = print

    def run(self, said: Sequence[str], saved: checkpoint.Checkpoint | None) -> Outcome:
        """Train, from `saved` where that is given; test once, report. `said` was said before there was a log.

        An unforeseen exception becomes one line here and a traceback in log.txt.
        """
        log = LogFile(self.path / folder.LOG, self.spec.config.epochs)
        terminal = Terminal(self.spec.config.epochs, self.feed.steps_per_epoch)
        ended: Status = "failed"
        try:
            with closing(terminal), self._signals():
                outcome = self._train(terminal, log, said, saved)
            ended = "finished"
            return outcome
        except Interrupted:
            ended = "interrupted"
            raise
        except CompressError as error:
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

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Let the step end after the first SIGINT or SIGTERM inside the block; after a second one stop at once."""

        def note(number: int, frame: FrameType | None) -> None:
            self._signal = number
            signal.signal(number, signal.SIG_DFL)

        if threading.current_thread() is not threading.main_thread():  # there signals cannot be handled
            yield
            return
        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _train(
        self, terminal: Terminal, log: LogFile, said: Sequence[str], saved: checkpoint.Checkpoint | None
    ) -> Outcome:
        config, state = self.spec.config, saved["state"] if saved is not None else {}
        done = int(state["progress"]["epoch"]) if state else 0
        lines = [MetricsFile(self.path / folder.METRICS, done), LayersFile(self.path / folder.LAYERS, done)]
        observers: list[Observer] = [terminal, log, *lines]

        def say(text: str) -> None:
            terminal.say(text)
            log.say(text)

        self._say = self.session.say = say
        self._tracked = [] if self.smoke else track(config.logging, self.path, self._settings, done, say)
        observers += self._tracked
        # A smoke run is validated where policies ask, and written to disk once.
        always = not self.smoke or any(one.policy.needs_validation for one in self.bound.policies)
        whole = CheckpointConfig(every_epochs=config.epochs) if self.smoke else config.checkpoint
        trainer = Trainer(
            self.session,
            self.feed,
            config.model_copy(update={"checkpoint": whole}),
            self.where,
            observers,
            save=lambda kind: self._save(trainer, kind),
            stop_signal=lambda: self._signal,
            validates=lambda epoch: always or epoch == config.epochs - 1,
            targets=self.targets,
            mixed=self.feed.mixed,
        )
        for text in [*said, *self._introduction(state)]:
            self._say(text)
        if saved is None:
            self._recording.begin(self._reference())
            rng.seed_all(config.seed)  # so that training does not depend on how much was drawn for the weights
        else:
            trainer.restore(state, str(self.path / folder.CHECKPOINT))
            self._recording.load_state_dict(state.get("recording", {}))
            self._train_on(trainer, saved)
            for file in lines:
                if file.lost:
                    self._say(f"warning: {file.lost}; the run continues without them")
            self._check_best(trainer)
        trainer.run()
        return self._finish(trainer, log)

    @cached_property
    def _recording(self) -> recording.Recording:
        return recording.Recording(self.session.model, self.dataset.shape, self.session.network.dense)

    def _reference(self) -> Evaluation | None:
        """Return the test figures of the checkpoint with which training begins, where it is a whole network for these
        classes. No random number that is drawn here changes the run.
        """
        if not recording.has_reference(self.spec.config):
            return None
        meters = ClassMeters(self.where, self.dataset.classes)
        figures = evaluate(self.session.model, self._test_batches(begun=False), self.where, self.spec.config, meters)
        self._say(f"test, {self.spec.config.checkpoint_path}: {_accuracies(figures)}")
        return meters.evaluation()

    def _train_on(self, trainer: Trainer, saved: checkpoint.Checkpoint) -> None:
        """Prepare for more epochs than the run was planned for when `saved` was written, and keep its test figures."""
        self._kept = kept_tests(saved)
        planned = int(saved["config"]["epochs"])
        if planned < self.spec.config.epochs:
            self._say(f"{self.path} was planned for {numbered(planned)}: it is trained on to {self.spec.config.epochs}")
            trainer.train_on(planned)
        for test in earlier_tests(self._kept):
            self._say(formats.tested_before(test))

    def _check_best(self, trainer: Trainer) -> None:
        """Forget the best epoch so far where its weights cannot be read any more."""
        if trainer.progress.best_epoch is None:
            return
        try:
            checkpoint.load(self.path / folder.BEST)
        except UserError as error:
            self._say(f"warning: {error}: {folder.BEST} will be the best of the epochs that are still to come")
            trainer.forget_best()

    def _introduction(self, state: Mapping[str, Any]) -> list[str]:
        config, feed = self.spec.config, self.feed
        count = sum(parameter.numel() for parameter in self.session.model.parameters())
        lines = [
            f"{self.path}: {config.model.name} ({count:,} parameters) on {self.dataset.name},"
            f" {feed.images + feed.held_out:,} training images ({100 * config.data.validation:g} % for validation),"
            f" {len(self.dataset.test):,} test images; {config.epochs} epochs of {feed.steps_per_epoch} steps"
            f" on {self.where}"
        ]
        if state:
            progress = state["progress"]
            lines.append(f"continuing in epoch {progress['epoch'] + 1} after {progress['step']} steps")
        return lines

    def _payload(self, trainer: Trainer, shipped: Shipped) -> checkpoint.Checkpoint:
        """Return a checkpoint of the weights that are shipped; `state` has those with which training continues."""
        return {
            "format": checkpoint.FORMAT,
            "version": compressor.__version__,
            "model": {name: tensor.detach().clone() for name, tensor in self.session.model.state_dict().items()},
            "config": self.spec.config_data,
            "schedule": self.spec.schedule_text,
            **identity.recorded(self.dataset, self.fingerprint),
            "epoch": trainer.progress.epoch,
            "metrics": {
                "train": dict(trainer.progress.train),
                "validation": dict(trainer.progress.validation),
                **self._kept,
            },
            "thinnings": list(shipped.thinnings),
            "figures": dict(shipped.figures),
            **self._architecture(),
        }

    @cached_property
    def _dense(self) -> nn.Module:
        """Return the network before channels were removed; it may be without storage."""
        return self.networks.skeleton(len(self.dataset.classes))

    def _architecture(self) -> dict[str, Any]:
        """Return how a thinned network differs from the dense one; nothing while it is dense."""
        now = describe(self.session.model)
        return {} if now == describe(self._dense) else {"architecture": now}

    def _save(self, trainer: Trainer, kind: str) -> None:
        with self.session.as_shipped() as shipped:
            payload = self._payload(trainer, shipped)
        if kind == "best":
            checkpoint.save(self.path / folder.BEST, payload)
        else:
            state = {**self._state(trainer), "live": shipped.live}
            self._save_checkpoint({**payload, "state": state, "finished": False})

    def _state(self, trainer: Trainer) -> dict[str, Any]:
        return {**trainer.state_dict(), "recording": self._recording.state_dict()}

    def _save_checkpoint(self, content: checkpoint.Checkpoint) -> None:
        checkpoint.save(self.path / folder.CHECKPOINT, content, 1 if self.smoke else self.spec.config.checkpoint.keep)

    def _finish(self, trainer: Trainer, log: LogFile) -> Outcome:
        """Use the test set, once: with the last weights and with the best ones."""
        state = self._state(trainer)  # before the tests draw random numbers: the run may be trained on
        self._test_best()
        session, progress = self.session, trainer.progress
        meters = ClassMeters(self.where, self.dataset.classes)
        with session.as_shipped() as shipped:
            test = trainer.evaluate(self._test_batches(), folded=True, meters=meters)
            self._say(f"test, last epoch: {_accuracies(test)}")
            own = trainer.evaluate(self._test_batches()) if session.has_own_inference else {}
            if own:
                self._say(f"test, last epoch, by the gates' own inference: {_accuracies(own)}")
            if best_test := progress.best_test:
                self._say(f"test, best epoch by test error (selected on the test set): {_accuracies(best_test)}")
            thinnings = [Thinning.model_validate(record) for record in shipped.thinnings]
            dense, figures = self._dense if self._architecture() else None, dict(shipped.figures)
            report = measure(
                self.session.model,
                self.dataset.shape,
                test,
                thinnings,
                dense,
                figures,
                progress.train,
                self.dataset.classes,
            ).model_copy(update={"earlier_tests": earlier_tests(self._kept)})
            recorded = self._recording.finish(meters.evaluation())
            shortfalls = session.events.shortfalls()
            payload = self._payload(trainer, shipped)
        for tracked in self._tracked:
            tracked.on_test(test)
        replace_text(self.path / "sparsity.csv", formats.as_csv(report))
        replace_text(self.path / folder.REPORT, formats.as_json(report))
        recording.write(self.path, recorded)
        payload["metrics"]["test"] = test
        if own:
            payload["metrics"]["test_by_own_inference"] = own
        if best_test:
            payload["metrics"]["best_test_selected_on_the_test_set"] = best_test
        self._save_checkpoint({**payload, "state": {**state, "live": shipped.live}, "finished": True})
        log.say(formats.as_table(report))
        for line in [] if self.smoke else claims.lines(self.spec, report, (own or test)["top1"]):
            self._say(line)
        if self.spec.config.report.html and not self.smoke:
            self._draw(log)
        return Outcome(self.path, report, shortfalls)

    def _draw(self, log: LogFile) -> None:
        """Write report.html. A failure is a warning, with the traceback in log.txt: the run itself is complete."""
        try:
            from compressor.experiment.drawing import draw_run  # matplotlib takes a while

            draw_run(self.path)
        except Exception as error:
            log.say(traceback.format_exc())
            first = (str(error).splitlines() or [type(error).__name__])[0]
            self._say(
                f"warning: the report could not be drawn: {first} (`compress report {self.path} --html` tries again)"
            )

    def _test_batches(self, *, begun: bool = True) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the test images, up to a signal: the checkpoint of the last epoch is written by then, unless training
        has not `begun`.
        """
        for batch in self.feed.test():
            if self._signal is not None:
                raise Interrupted(self._signal, begun=begun)
            yield batch

    def _test_best(self) -> None:
        path = self.path / folder.BEST
        network = self.networks.to_load(len(self.dataset.classes))
        try:
            saved: dict[str, Any] = checkpoint.load(path)
            load_weights(network, saved, str(path))
        except UserError as error:
            self._say(f"warning: {error}: the best epoch is not tested")
            return
        test = evaluate(network.to(self.where), self._test_batches(), self.where, self.spec.config)
        saved["metrics"]["test"] = test
        checkpoint.save(path, saved)
        self._say(f"test, best validation (epoch {saved['epoch']}): {_accuracies(test)}")


def _accuracies(figures: dict[str, float]) -> str:
    return f"loss {figures['loss']:.4f}, top-1 {figures['top1']:.2f} %, top-5 {figures['top5']:.2f} %"
