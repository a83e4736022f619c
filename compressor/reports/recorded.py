"""What a run's folder has recorded for its report: the files, their forms, and how they are read.

    metrics.jsonl   a line for each epoch: accuracy, losses, learning rate, sparsity
    layers.jsonl    a line for each epoch: sparsity and its target by weight, what was pruned and revived
    figures.json    at the end: accuracy by class, calibration, histograms of the weights, peak activation memory
    sparsity.json   at the end: the report of `reports.report`

A run of an older version lacks some of them: `read` names these as not recorded.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from compressor.config import Config
from compressor.errors import UserError
from compressor.reports.report import Report
from compressor.schedule import Faults, parse

__all__ = [
    "CONFIG",
    "ENVIRONMENT",
    "FIGURES",
    "LAYERS",
    "METRICS",
    "REPORT",
    "SCHEDULE",
    "Bin",
    "BytesOfActivations",
    "Calibration",
    "ClassAccuracy",
    "EpochLine",
    "Evaluation",
    "Figures",
    "Histogram",
    "Histograms",
    "Layer",
    "LayersLine",
    "MaskEvent",
    "Recorded",
    "read",
    "reference_run",
]

CONFIG, SCHEDULE, ENVIRONMENT = "config.yaml", "schedule.yaml", "environment.json"
METRICS, LAYERS, FIGURES, REPORT = "metrics.jsonl", "layers.jsonl", "figures.json", "sparsity.json"
"""The names of the files in a run's folder."""


class _Record(BaseModel):
    """A JSON object. A key that this version does not know is ignored: a newer one may have written it."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class EpochLine(_Record):
    """One line of metrics.jsonl. Accuracies in percent, sparsities as fractions; None: a number that is not finite."""

    epoch: int
    train: dict[str, float | None] = {}
    """`loss`, `top1` and `top5` of the training images."""
    val: dict[str, float | None] = {}
    """The same of the validation images; empty without validation."""
    test: dict[str, float | None] = {}
    """The same of the test images, where each epoch is tested."""
    losses: dict[str, float | None] = {}
    """The loss by component: `data`, and the value of each penalty by the name of its component."""
    lr: float | None = None
    """The learning rate at the end of the epoch."""
    sparsity: float | None = None
    """Of the prunable weights."""
    sparsity_all: float | None = None
    """Of all parameters."""
    figures: dict[str, dict[str, float | None]] = {}
    """Other figures of policies, by key: instability, open gates ..."""
    val_folded: dict[str, float | None] = {}
    """The figures of the validation images where gates are folded, of a gate that has an inference of its own."""
    seconds: float | None = None


class Layer(_Record):
    """One weight at the end of an epoch.

    `sparsity` is the fraction of zeros of the weights that would be shipped, of the dense shape: removed channels count
    as zeros. `target` is the sparsity that the policies ask for at that time; None where none does, or it is not known
    before. `pruned` and `revived` are the sums over the events of the epoch.
    """

    sparsity: float
    target: float | None = None
    pruned: int = 0
    revived: int = 0


class MaskEvent(_Record):
    """A change of the masks in force: by which policy, in which optimizer step of the epoch, and the numbers of entries
    that are pruned now and were not, and the reverse. Removed channels are pruned entries, once.
    """

    step: int
    policy: str
    pruned: int
    revived: int


class LayersLine(_Record):
    """One line of layers.jsonl."""

    epoch: int
    layers: dict[str, Layer]
    """By the name of the weight, of all that have two or more dims."""
    events: list[MaskEvent] = []


class ClassAccuracy(_Record):
    """One class: its name, the number of its images, and of those among them that the network tells right (top-1)."""

    name: str
    images: int
    correct: int

    @property
    def accuracy(self) -> float | None:
        """Return the accuracy in percent; None without images."""
        return 100 * self.correct / self.images if self.images else None


class Bin(_Record):
    """The images whose confidence (the largest probability) is in one bin: the means of confidence and accuracy, as
    fractions, and how many images there are. The means of an empty bin are None.
    """

    confidence: float | None
    accuracy: float | None
    images: int


class Calibration(_Record):
    """The calibration of a network's probabilities.

    `error`: the expected calibration error, the mean over the images of |accuracy - confidence| of their bin, as a
    fraction; 15 equal bins of confidence (Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks",
    ICML 2017, equation 3).
    """

    error: float | None
    bins: list[Bin]


class Evaluation(_Record):
    """A network on the test images. Accuracies are in percent."""

    images: int
    loss: float | None
    top1: float | None
    top5: float | None
    classes: list[ClassAccuracy]
    calibration: Calibration


class Histogram(_Record):
    """The values of a weight: the numbers of non-zero entries in equal bins from `low` to `high`, and of zeros.

    Removed channels count as zeros. Without a non-zero entry there are no bins.
    """

    low: float | None
    high: float | None
    counts: list[int]
    zeros: int


class Histograms(_Record):
    """A weight at the beginning of the run, and as it is shipped at the end."""

    before: Histogram | None = None
    after: Histogram | None = None


class BytesOfActivations(_Record):
    """The peak memory of the activations of one image, in bytes, of the dense network and of the one that is shipped.

    None where the forward pass cannot be followed.
    """

    before: int | None = None
    after: int | None = None


class Figures(_Record):
    """figures.json: what is measured once. The number `schema` rises when a key goes, or changes its meaning."""

    layout: Literal[1] = Field(default=1, alias="schema")
    evaluation: Evaluation | None = None
    """Of the last weights."""
    reference: Evaluation | None = None
    """Of the checkpoint with which training began (`--init`), on the same images; None without one."""
    histograms: dict[str, Histograms] = {}
    activations: BytesOfActivations = BytesOfActivations()


@dataclass(frozen=True)
class Recorded:
    """All that a run's folder says of the run. What is missing is empty or None, and named in `not_recorded`."""

    path: Path
    config: Config
    schedule: str | None
    """The text of schedule.yaml; None for a run without a schedule."""
    epochs: Sequence[EpochLine]
    """In the order of the epochs."""
    layers: Sequence[LayersLine]
    figures: Figures | None
    report: Report | None
    environment: Mapping[str, Any]
    not_recorded: Sequence[str]
    """A line for each file, or part of one, that is missing: `layers.jsonl: not recorded`."""


Line = TypeVar("Line", EpochLine, LayersLine)
Whole = TypeVar("Whole", bound=BaseModel)


def read(run: Path | str) -> Recorded:
    """Return what a run's folder has recorded.

    Raises `UserError` where it is not the folder of a run, where no epoch is finished, and where a file is damaged or
    of a newer version.
    """
    path = Path(run)
    if not path.is_dir():
        raise UserError(f"{path} is a file: give a run's folder" if path.exists() else f"{path}: no such folder")
    missing = [name for name in (CONFIG, METRICS) if not (path / name).is_file()]
    if missing:
        raise UserError(f"{path} is not a run's folder: it has no {' and no '.join(missing)}")
    missing = []
    epochs = _lines(path / METRICS, EpochLine, missing)
    if not epochs:
        raise UserError(f"{path / METRICS} has no epoch: the run has not finished its first one")
    layers = _lines(path / LAYERS, LayersLine, missing, epochs)
    return Recorded(
        path=path,
        config=_config(path / CONFIG),
        schedule=_text(path / SCHEDULE) if (path / SCHEDULE).is_file() else None,
        epochs=epochs,
        layers=layers,
        figures=_json(path / FIGURES, Figures, missing),
        report=_json(path / REPORT, Report, missing),
        environment=_environment(path / ENVIRONMENT, missing),
        not_recorded=missing,
    )


def reference_run(config: Config) -> Path | None:
    """Return the folder of the run with which a run is compared: that of its `init`, where it has figures and the
    classes are the same; else the one that `report.reference` names; None without either.
    """
    if config.checkpoint_path is not None and config.start.head == "keep":
        source = Path(config.checkpoint_path)
        folder = source if source.is_dir() else source.parent
        if (folder / FIGURES).is_file():
            return folder
    named = config.report.reference
    return None if named is None else Path(named)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None


def _lines(path: Path, kind: type[Line], missing: list[str], wanted: Sequence[EpochLine] = ()) -> list[Line]:
    """Return the whole lines of a file, the last one of each epoch, in order. A torn line is left out, with a line in
    `missing`, as are those of `wanted` epochs that it lacks.
    """
    if not path.is_file():
        missing.append(f"{path.name}: not recorded")
        return []
    found: dict[int, Line] = {}
    torn = 0
    for text in _text(path).splitlines():
        try:
            line = kind.model_validate_json(text)
        except ValidationError:
            torn += 1
        else:
            found[line.epoch] = line
    lacking = [str(one.epoch) for one in wanted if one.epoch not in found]
    if torn:
        missing.append(f"{path.name}: {torn} torn {'line' if torn == 1 else 'lines'}")
    if lacking:
        shown = ", ".join(lacking[:5]) + (", ..." if len(lacking) > 5 else "")
        missing.append(f"{path.name}: epoch {shown} not recorded")
    return [found[epoch] for epoch in sorted(found)]


def _json(path: Path, kind: type[Whole], missing: list[str]) -> Whole | None:
    if not path.is_file():
        missing.append(f"{path.name}: not recorded")
        return None
    try:
        return kind.model_validate_json(_text(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part)[:40] for part in first["loc"])
        if where == "schema":
            said = f"its schema is {first['input']!r}, this version reads 1"
        else:
            said = f"damaged: {where + ': ' if where else ''}{first['msg']}"
        raise UserError(f"{path}: {said}") from None


def _environment(path: Path, missing: list[str]) -> dict[str, Any]:
    """Return environment.json; it is long, and shown as it is."""
    if not path.is_file():
        missing.append(f"{path.name}: not recorded")
        return {}
    try:
        found = json.loads(_text(path))
    except ValueError as error:
        raise UserError(f"{path}: damaged: {error}") from None
    return found if isinstance(found, dict) else {}


def _config(path: Path) -> Config:
    try:
        return Config.model_validate(parse(str(path), _text(path), Faults()).data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: not the configuration of a run: {where}: {first['msg']}") from None
