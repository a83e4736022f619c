"""What a run writes into its folder while it trains, and when it ends. Of several processes one alone writes."""

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

import compressor
from compressor.data import DataSet, Fingerprint
from compressor.errors import UserError
from compressor.experiment import folder, identity, recording
from compressor.experiment.more_epochs import earlier_tests
from compressor.experiment.networks import Networks
from compressor.experiment.specification import Specification
from compressor.files import replace_text
from compressor.reports import Report, Thinning, formats, measure, recorded
from compressor.session import Session, Shipped
from compressor.thinning import describe
from compressor.training import Progress, checkpoint, load_weights

Figures = dict[str, float]


@dataclass(frozen=True)
class Finished:
    """The end of a run: report, test figures, those by the gates' own inference, the targets that were missed.

    The figures are empty where the run was not tested.
    """

    report: Report
    test: Figures
    own: Figures
    shortfalls: Sequence[str]


@dataclass
class Written:
    """The files of one run."""

    spec: Specification
    path: Path
    networks: Networks
    dataset: DataSet
    fingerprint: Fingerprint
    session: Session
    smoke: bool
    kept: Mapping[str, Figures] = field(default_factory=dict)
    """The test figures of before, where the run is trained on for more epochs."""

    def _payload(self, progress: Progress, shipped: Shipped) -> checkpoint.Checkpoint:
        """Return a checkpoint of the weights that are shipped; `state` has those with which training continues."""
        return {
            "format": checkpoint.FORMAT,
            "version": compressor.__version__,
            "model": {name: tensor.detach().clone() for name, tensor in self.session.model.state_dict().items()},
            "config": self.spec.config_data,
            "schedule": self.spec.schedule_text,
            **identity.recorded(self.dataset, self.fingerprint),
            "epoch": progress.epoch,
            "metrics": {
                "train": dict(progress.train),
                "validation": dict(progress.validation),
                **self.kept,
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

    def save_best(self, progress: Progress) -> None:
        """Write best.pt: the weights that would be shipped now."""
        with self.session.as_shipped() as shipped:
            payload = self._payload(progress, shipped)
        checkpoint.save(self.path / folder.BEST, payload)

    def save(self, progress: Progress, state: Mapping[str, Any]) -> None:
        """Write checkpoint.pt; `state`: all that training continues with, but the weights."""
        with self.session.as_shipped() as shipped:
            payload = self._payload(progress, shipped)
        self._save({**payload, "state": {**state, "live": shipped.live}, "finished": False})

    def _save(self, content: checkpoint.Checkpoint) -> None:
        checkpoint.save(self.path / folder.CHECKPOINT, content, 1 if self.smoke else self.spec.config.checkpoint.keep)

    def finish(
        self,
        progress: Progress,
        state: Mapping[str, Any],
        test: Callable[[], tuple[Figures, Figures]],
        figures: Callable[[], recorded.Figures],
    ) -> Finished:
        """Write the last checkpoint, the report and what was recorded.

        `test` tests the network, as it is shipped and by its own inference; `figures` returns what was recorded.
        """
        session = self.session
        with session.as_shipped() as shipped:
            tested, own = test()
            thinnings = [Thinning.model_validate(record) for record in shipped.thinnings]
            report = measure(
                session.model,
                self.dataset.shape,
                tested,
                thinnings,
                self._dense if self._architecture() else None,
                dict(shipped.figures),
                progress.train,
                self.dataset.classes,
            ).model_copy(update={"earlier_tests": earlier_tests(self.kept)})
            found, shortfalls = figures(), session.events.shortfalls()
            payload = self._payload(progress, shipped)
        replace_text(self.path / "sparsity.csv", formats.as_csv(report))
        replace_text(self.path / folder.REPORT, formats.as_json(report))
        recording.write(self.path, found)
        if tested:
            payload["metrics"]["test"] = tested
        if own:
            payload["metrics"]["test_by_own_inference"] = own
        if progress.best_test:
            payload["metrics"]["best_test_selected_on_the_test_set"] = progress.best_test
        self._save({**payload, "state": {**state, "live": shipped.live}, "finished": True})
        return Finished(report, tested, own, shortfalls)

    def best(self) -> tuple[nn.Module, dict[str, Any]]:
        """Return the network of best.pt, and its checkpoint. Raises `UserError` where it cannot be read."""
        path = self.path / folder.BEST
        network = self.networks.to_load(len(self.dataset.classes))
        saved: dict[str, Any] = checkpoint.load(path)
        load_weights(network, saved, str(path))
        return network, saved

    def best_is_lost(self) -> str:
        """Return why best.pt cannot be read any more; empty where it can."""
        try:
            checkpoint.load(self.path / folder.BEST)
        except UserError as error:
            return str(error)
        return ""

    def save_tested(self, saved: dict[str, Any], test: Figures) -> None:
        """Write best.pt again, with its test figures."""
        saved["metrics"]["test"] = test
        checkpoint.save(self.path / folder.BEST, saved)

    def draw(self, say: Callable[[str], None], log: Callable[[str], None]) -> None:
        """Write report.html. A failure is a warning, with the traceback in log.txt: the run itself is complete."""
        try:
            from compressor.experiment.drawing import draw_run  # matplotlib takes a while

            draw_run(self.path)
        except Exception as error:
            log(traceback.format_exc())
            first = (str(error).splitlines() or [type(error).__name__])[0]
            say(f"warning: the report could not be drawn: {first} (`compress report {self.path} --html` tries again)")
