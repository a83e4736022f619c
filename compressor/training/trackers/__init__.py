"""Trackers of experiments: TensorBoard, MLflow, Weights & Biases. One adapter a file; each needs an extra.

An adapter has `begin`, `log` and `end`. The run never depends on it: an exception ends the adapter with one warning.
"""

import importlib
import importlib.util
import json
import math
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Protocol

from compressor.config import LoggingConfig
from compressor.errors import UserError
from compressor.files import replace_text
from compressor.importing import random_state_kept
from compressor.training.observers import Observer

__all__ = ["Status", "Tracked", "Tracker", "check_installed", "track"]

Status = Literal["finished", "interrupted", "failed"]
Values = Mapping[str, float]

_IDS = "trackers.json"
"""The file of a run's folder with its identifier in each tracker: a resumed run goes on in the same one."""


class Tracker(Protocol):
    """What an adapter does."""

    def begin(self, folder: Path, name: str, params: Mapping[str, str], identifier: str | None, done: int) -> str:
        """Begin a run, or go on in the one of `identifier` after `done` epochs; return its identifier."""

    def log(self, epoch: int, values: Values) -> None:
        """Write the values of an epoch, counted from 0."""

    def end(self, status: Status) -> None:
        """End the run."""


def names(config: LoggingConfig) -> list[str]:
    """Return the trackers that a configuration asks for."""
    return [name for name, wanted in config.model_dump().items() if wanted]


def check_installed(config: LoggingConfig) -> None:
    """Raise `UserError` where the package of a tracker is not installed."""
    for name in names(config):
        if importlib.util.find_spec(name) is None:
            raise UserError(f"logging.{name}: {name} is not installed: pip install 'compressor[{name}]'")


def track(
    config: LoggingConfig, folder: Path, settings: Mapping[str, Any], done: int, say: Callable[[str], None]
) -> "list[Tracked]":
    """Return an observer for each tracker of a configuration, begun.

    `settings`: the configuration as plain values, which become the run's parameters; `done`: the epochs that a resumed
    run has done.
    """
    params = {key: str(value)[:250] for key, value in _flat(settings).items()}
    return [Tracked(name, folder, params, done, say) for name in names(config)]


class Tracked(Observer):
    """Passes epochs on to one tracker, until that fails; then the run goes on without it, after one warning."""

    def __init__(
        self, name: str, folder: Path, params: Mapping[str, str], done: int, say: Callable[[str], None]
    ) -> None:
        self._name, self._say = name, say
        self._tracker: Tracker | None = None
        self._epoch = -1
        with self._guarded():
            tracker: Tracker = importlib.import_module(f"{__name__}.{name}").ADAPTER()
            known = _identifiers(folder)
            identifier = tracker.begin(folder, folder.absolute().name, params, known.get(name), done)
            replace_text(folder / _IDS, json.dumps({**known, name: identifier}) + "\n")
            self._tracker = tracker

    def on_epoch(self, record: dict[str, Any]) -> None:
        self._epoch = int(record["epoch"])
        self._log({key: value for key, value in _figures(record).items() if key != "epoch"})

    def on_layers(self, record: dict[str, Any]) -> None:
        found = {f"layer_sparsity/{name}": row.get("sparsity") for name, row in record["layers"].items()}
        self._log(_figures(found))

    def on_test(self, figures: Mapping[str, float]) -> None:
        """Receive the test figures of the last weights."""
        self._log(_figures({"test": dict(figures)}))

    def end(self, status: Status) -> None:
        """End the tracker's run."""
        tracker = self._tracker
        if tracker is not None:
            with self._guarded():
                tracker.end(status)
            self._tracker = None

    def _log(self, values: dict[str, float]) -> None:
        tracker = self._tracker
        if tracker is not None:
            with self._guarded():
                tracker.log(self._epoch, values)

    def _guarded(self) -> "_Guard":
        return _Guard(self)

    def failed(self, error: Exception) -> None:
        """Leave the tracker after an error, with a warning."""
        self._tracker = None
        first = (str(error).splitlines() or [""])[0][:200]
        self._say(f"warning: logging.{self._name}: {type(error).__name__}: {first}; the run goes on without it")


class _Guard:
    """A block in which a tracker may fail, draw random numbers and warn: the run is not affected."""

    def __init__(self, tracked: Tracked) -> None:
        self._tracked = tracked
        self._kept, self._quiet = random_state_kept(), warnings.catch_warnings()

    def __enter__(self) -> None:
        self._kept.__enter__()
        self._quiet.__enter__()
        warnings.simplefilter("ignore")

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        self._quiet.__exit__(None, None, None)
        self._kept.__exit__(None, None, None)
        if not isinstance(error, Exception):
            return False
        self._tracked.failed(error)
        return True


def _identifiers(folder: Path) -> dict[str, str]:
    with suppress(OSError, ValueError):
        found = json.loads((folder / _IDS).read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return {str(key): str(value) for key, value in found.items()}
    return {}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, with dots between the keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _figures(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the finite numbers of nested mappings, with slashes between the keys."""
    found: dict[str, float] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= _figures(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            found[f"{prefix}{key}"] = float(value)
    return found
