"""A run's folder: made, found again, never overwritten."""

import fcntl
import os
from pathlib import Path

import yaml

from compressor.errors import UserError
from compressor.experiment.specification import Specification, difference
from compressor.schedule.document import parse
from compressor.schedule.faults import Faults
from compressor.training import checkpoint
from compressor.training.files import replace_text

RUNS = Path("runs")
CHECKPOINT, BEST, SCHEDULE, CONFIG = "checkpoint.pt", "best.pt", "schedule.yaml", "config.yaml"


def fresh(spec: Specification, out: Path | None) -> Path:
    """Make the folder of a new run and write its files; raises `UserError` where `out` holds something already."""
    if out is not None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"{out} exists and is not overwritten: --resume continues it, another --out starts afresh")
        _make(out, exist_ok=True)
        folder = out
    else:
        number = 1
        while not _make(folder := RUNS / f"{spec.name}-{number}", exist_ok=False):
            number += 1
    write_files(spec, folder)
    return folder


def _make(folder: Path, *, exist_ok: bool) -> bool:
    """Make a folder; False where somebody else has made it."""
    try:
        folder.mkdir(parents=True, exist_ok=exist_ok)
    except FileExistsError:
        return False
    except OSError as error:
        raise UserError(f"{folder}: cannot be made: {error.strerror}") from None
    return True


def write_files(spec: Specification, folder: Path) -> None:
    """schedule.yaml and the resolved config.yaml."""
    if spec.schedule_text is not None:
        replace_text(folder / SCHEDULE, spec.schedule_text)
    replace_text(folder / CONFIG, yaml.safe_dump(spec.config_data, sort_keys=False))


def to_resume(spec: Specification, out: Path | None) -> Path | None:
    """The folder that --resume continues: `out`, else the newest unfinished run of this schedule and configuration,
    else the newest finished one, else None. Raises `UserError` where only runs of another content are there."""
    if out is not None:
        if out.exists() and not out.is_dir():
            raise UserError(f"{out} is a file; --out names a run's folder")
        if out.is_dir() and any(out.iterdir()) and not (out / CONFIG).is_file():
            raise UserError(f"{out} is not a run's folder: it has no {CONFIG}")
        return out if (out / CONFIG).is_file() else None
    numbered = [
        (int(path.name.rpartition("-")[2]), path)
        for path in RUNS.glob("*")
        if path.name.rpartition("-")[0] == spec.name and path.name.rpartition("-")[2].isdecimal()
    ]
    runs = [path for _, path in sorted(numbered, reverse=True) if (path / CONFIG).is_file()]
    unfinished = [path for path in runs if not finished(path)]
    for path in unfinished:
        if other_content(spec, path) is None:
            return path
    if unfinished:
        return unfinished[0]
    return runs[0] if runs else None


def finished(folder: Path) -> bool:
    """Whether a run's checkpoint says that it is done."""
    path = folder / CHECKPOINT
    return path.is_file() and bool(checkpoint.load(path).get("finished"))


def other_content(spec: Specification, folder: Path) -> str | None:
    """How a run's schedule or configuration differs from `spec`, in words; None where they are the same."""
    config = _plain(folder / CONFIG)
    found = difference(spec.config_data, config)
    if found:
        return found
    schedule = _plain(folder / SCHEDULE) if (folder / SCHEDULE).is_file() else None
    return difference(spec.schedule.document.data if spec.schedule else None, schedule, "schedule")


def _plain(path: Path) -> object:
    return parse(str(path), path.read_text(encoding="utf-8"), Faults()).data


def lock(folder: Path) -> int:
    """Hold the folder for this process; the descriptor keeps it until the process ends, however it ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise UserError(f"{folder}: another process is training in it") from None
    return descriptor
