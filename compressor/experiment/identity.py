"""Whether a checkpoint belongs to this run and to these data. Neither is mixed up without a message."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from compressor.config import Config
from compressor.data import DataSet, Fingerprint, differences, fingerprint
from compressor.errors import UserError
from compressor.experiment.specification import Specification, without_claim
from compressor.schedule import Faults, other_values, parse

UNTRAINED = ("logging", "report")
"""The sections of a configuration that do not change the training: a resumed run may have others."""

SHOWN = 4
"""The largest number of keys that are named with their values."""


def check_same_run(spec: Specification, saved: Mapping[str, Any], source: Path) -> None:
    """Raise `UserError`, with the keys, unless a checkpoint was written by a run of this configuration and schedule.

    The number of epochs, and the sections `UNTRAINED`, may differ.
    """
    free = {"epochs": spec.config.epochs, **{key: spec.config_data[key] for key in UNTRAINED}}
    theirs = {**resolved(saved["config"]), **free}
    text = saved.get("schedule")
    schedule = None if text is None else parse(str(source), str(text), Faults()).data
    ours = spec.schedule.document.data if spec.schedule else None
    found = [
        *other_values(spec.config_data, theirs),
        *other_values(without_claim(ours), without_claim(schedule), "schedule"),
    ]
    if found:
        more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise UserError(
            f"{source} is the checkpoint of another run than its folder's: {'; '.join(islice(found, SHOWN))}{more}"
            f" ('there': in the checkpoint); put the right file there, or start a new run with another --out"
        )


def resolved(config: Any) -> dict[str, Any]:
    """Return the plain values of a saved configuration with today's defaults for keys that it lacks; as it is where it
    is none.
    """
    try:
        return Config.model_validate(config).model_dump(mode="python")
    except ValueError:
        return dict(config) if isinstance(config, dict) else {}


def recorded(dataset: DataSet, found: Fingerprint) -> dict[str, Any]:
    """Return what a checkpoint says of the data; `found`: their fingerprint."""
    return {
        "shape": list(dataset.shape),
        "classes": found["classes"],
        "normalization": {
            "mean": [float(value) for value in dataset.mean],
            "std": [float(value) for value in dataset.std],
        },
        "data": {key: found[key] for key in ("counts", "content")},
    }


def same_data(
    dataset: DataSet, saved: Mapping[str, Any], source: Path, *, other_data: bool, say: Callable[[str], None]
) -> DataSet:
    """Return the data set as the checkpoint's network expects it: normalized by the mean and std of its training.

    Raises `UserError` with the difference where it is not the one of the training; with `other_data` that is said and
    accepted. Classes of another number or images of another shape are never accepted.
    """
    classes, shape = saved["classes"], tuple(saved["shape"])
    if dataset.shape != shape or len(dataset.classes) != len(classes):
        raise UserError(
            f"{source} was trained on images of {shape} in {len(classes)} classes,"
            f" {dataset.name} here has {dataset.shape} in {len(dataset.classes)}"
        )
    if "data" not in saved:
        say(f"warning: {source} has no fingerprint of its data (an older version wrote it): only classes are compared")
    found = "; ".join(differences({"classes": classes, **saved.get("data", {})}, fingerprint(dataset)))
    if found and not other_data:
        raise UserError(
            f"{source} was trained on other data than {dataset.name} here: {found}."
            f" Give its own with --data, or accept these with --other-data"
        )
    if found:
        say(f"warning: {source} was trained on other data than {dataset.name} here (--other-data): {found}")
    used = saved.get("normalization")
    return dataset if used is None else replace(dataset, mean=tuple(used["mean"]), std=tuple(used["std"]))
