"""More epochs than a run was planned for: where that changes nothing of what was done; the test figures of before."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compressor.experiment.specification import Specification
from compressor.reports import EarlierTest
from compressor.schedule import Faults


def numbered(epochs: int) -> str:
    """Return a number of epochs in words."""
    return "1 epoch" if epochs == 1 else f"{epochs} epochs"


_TEST = "test_after_{}_epochs"
"""The key, in the metrics of a checkpoint, of a test figure of before the run was trained on."""


def check_ends(spec: Specification, planned: int, source: Path) -> None:
    """Raise `UserError` with every policy whose window ends with the run: more epochs would change what was done.

    `planned` is the number of epochs of before, `source` the run's checkpoint.
    """
    faults = Faults()
    for entry in spec.schedule.entries if spec.schedule is not None else ():
        if entry.policy.window.open:
            assert spec.schedule is not None
            faults.add(
                spec.schedule.document.place(entry.path),
                f"{entry.key} has no end in the file: it ends with the run, which was planned for {numbered(planned)}."
                f" With a plan of {spec.config.epochs} the epochs that are done could have been different. To train on,"
                f" begin a new run with the weights of this one: --init {source}, without --resume",
            )
    faults.raise_any()


def kept_tests(saved: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return the metrics that are kept of a run's checkpoint when it is trained on: the test figures so far, each with
    the number of epochs after which it was measured.
    """
    metrics = saved["metrics"]
    kept = {key: dict(figures) for key, figures in metrics.items() if _epochs(key) is not None}
    if saved.get("finished") and metrics.get("test"):
        kept[_TEST.format(saved["epoch"])] = dict(metrics["test"])
    return kept


def earlier_tests(metrics: Mapping[str, Mapping[str, float]]) -> list[EarlierTest]:
    """Return the test figures of before a run was trained on, from the metrics of its checkpoint."""
    found = ((_epochs(key), figures) for key, figures in metrics.items())
    tests = [EarlierTest(epochs=epochs, **figures) for epochs, figures in found if epochs is not None]
    return sorted(tests, key=lambda test: test.epochs)


def _epochs(key: str) -> int | None:
    matched = re.fullmatch(_TEST.format(r"(\d+)"), key)
    return None if matched is None else int(matched[1])
