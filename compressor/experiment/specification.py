"""The files and options of a command: a schedule and a configuration, read, overridden and checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from compressor import data, models
from compressor.config import Config
from compressor.errors import UserError
from compressor.schedule import EXPECT, Document, Faults, Schedule, open_config, open_schedule


@dataclass(frozen=True)
class Specification:
    """A schedule (None: plain dense training) and a configuration, with the names that the user gave."""

    schedule: Schedule | None
    config: Config
    schedule_name: str
    config_name: str
    config_document: Document = field(default_factory=lambda: Document("the configuration", ""))

    @property
    def name(self) -> str:
        """Return the name of the run's folder, without its number."""
        return f"{self.schedule_name}-{self.config_name}"

    @property
    def schedule_text(self) -> str | None:
        """Return the schedule as YAML: the file's own text, or the overridden data."""
        return None if self.schedule is None else text_of(self.schedule.document)

    @property
    def claim_text(self) -> str | None:
        """Return the file beside a version 1 schedule that has its claim, while nothing was overridden."""
        schedule = self.schedule
        return None if schedule is None or schedule.document.overridden else schedule.claim_text

    @property
    def config_data(self) -> dict[str, Any]:
        """Return the resolved configuration as plain values."""
        return self.config.model_dump(mode="python")


def text_of(document: Document) -> str:
    """Return a document's own text while nothing in it was overridden, else its data as YAML.

    The claim of a schedule is of the file as it stands: it is left out where values were overridden.
    """
    if not document.overridden:
        return document.text
    return yaml.safe_dump(without_claim(document.data), sort_keys=False, allow_unicode=True)


def as_text(value: Any) -> str:
    """Return a value as `--set` takes it."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**9, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def without_claim(data: Any) -> Any:
    """Return the data of a schedule without its claim, which changes nothing of a run."""
    return {key: value for key, value in data.items() if key != EXPECT} if isinstance(data, dict) else data


def open_files(
    schedule: str | None,
    config: str | None,
    overrides: Sequence[tuple[str, str]],
    faults: Faults,
    *,
    flags: Mapping[str, Any] | None = None,
) -> Specification | None:
    """Read both files (paths or bare names) and apply `overrides`; None and faults where something is wrong.

    An override of `schedule.…` addresses the schedule, any other the configuration. Raises `UserError` where a file
    does not exist or cannot be read.
    """
    parsed = None
    if schedule is not None:
        parsed = open_schedule(schedule, overrides, faults)
    elif any(key.startswith("schedule.") for key, _ in overrides):
        raise UserError("--set schedule.…: there is no --schedule to set it in")
    config_name = config if config is not None else (parsed.config if parsed else None)
    if config_name is None:
        unused = [key for key, _ in overrides if not key.startswith("schedule.")]
        if parsed is not None and unused:
            raise UserError(f"--set {unused[0]}: there is no configuration to set it in: give --config")
        return None
    catalogues = {"model": models.catalogue, "data": data.catalogue}
    built, document = open_config(config_name, overrides, flags or {}, catalogues, faults)
    if built is None:
        return None
    schedule_stem = "dense" if schedule is None else Path(schedule).stem
    if built.checkpoint_path is not None and Path(built.checkpoint_path).exists():
        # The run may be resumed from another directory.
        built = built.starting_from(str(Path(built.checkpoint_path).absolute()))
    return Specification(parsed, built, schedule_stem, Path(config_name).stem, document)


def specification(
    schedule: str | None,
    config: str | None,
    overrides: Sequence[tuple[str, str]] = (),
    *,
    seed: int | None = None,
    init: str | None = None,
    keep_zeros: bool = False,
) -> Specification:
    """Read both files or raise `UserError` with everything that is wrong in them. `seed`, `init` and `keep_zeros` are
    flags.
    """
    faults = Faults()
    given = {"seed": seed, "init": init, "keep-zeros": keep_zeros or None}
    flags = {key: value for key, value in given.items() if value is not None}
    spec = open_files(schedule, config, overrides, faults, flags=flags)
    faults.raise_any()
    if spec is None:
        raise UserError("no configuration: give --config, or name one in the schedule (`config: NAME`, version 2)")
    return spec
