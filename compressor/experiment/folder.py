"""The folder of a run: made, found again, never overwritten."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from compressor.errors import CompressError, UserError
from compressor.experiment.identity import UNTRAINED, check_same_run, resolved
from compressor.experiment.specification import Specification, without_claim
from compressor.files import replace_text
from compressor.reports import recorded
from compressor.schedule import Faults, difference, parse
from compressor.training import checkpoint

RUNS = Path("runs")
CONFIG, SCHEDULE, ENVIRONMENT, METRICS = recorded.CONFIG, recorded.SCHEDULE, recorded.ENVIRONMENT, recorded.METRICS
LAYERS, REPORT = recorded.LAYERS, recorded.REPORT
CLAIM, CHECKPOINT, BEST, SMOKE = "schedule.expect.yaml", "checkpoint.pt", "best.pt", "smoke.txt"
LOG = "log.txt"
_WRITTEN = (CONFIG, SCHEDULE, CLAIM, ENVIRONMENT)
_FIRST = {name for written in _WRITTEN for name in (written, f".{written}.partial")}
"""What a new run writes before it trains."""
_LOCK = ".lock"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a run's folder for this process, until it ends, however it ends; processes that it forks do not hold it.

    Raises `UserError` where another process trains in the folder.
    """
    lock = FileLock(folder / _LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"{folder}: another process is training in it") from None
    except OSError as error:
        raise CompressError(f"{folder / _LOCK}: cannot be locked: {error.strerror or error}") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def made(spec: Specification, out: Path | None, *, resume: bool, smoke: bool = False) -> Iterator[Path]:
    """Make the folder of a new run, hold it, and only then write the run's files. Raises `UserError` where `out` is not
    empty.

    With `resume` it may have the files of a run that was killed at its very beginning. The folder of a `smoke` run has
    another name and a file that marks it.
    """
    if out is not None:
        _refuse_used(out, resume)
        _make(out, exist_ok=True)
        folder = out
    else:
        number = 1
        while not _make(folder := RUNS / f"{'smoke-' if smoke else ''}{spec.name}-{number}", exist_ok=False):
            number += 1
    with held(folder):
        if out is not None:
            _refuse_used(out, resume)  # another process may have begun since
        if smoke:
            text = "A smoke run: two steps an epoch, to show that all works. It is never resumed.\n"
            replace_text(folder / SMOKE, text)
        write_files(spec, folder)
        yield folder


def _refuse_used(out: Path, resume: bool) -> None:
    """Raise `UserError` where a new run in `out` would overwrite something."""
    if out.exists() and (not out.is_dir() or (_begun(out) if resume else _content(out))):
        raise UserError(f"{out} exists and is not overwritten: continue it with --resume, or give another --out")


def _make(folder: Path, *, exist_ok: bool) -> bool:
    """Make a folder; return False where another process has made it."""
    try:
        folder.mkdir(parents=True, exist_ok=exist_ok)
    except FileExistsError:
        return False
    except OSError as error:
        raise UserError(f"{folder}: cannot be made: {error.strerror}") from None
    return True


def write_files(spec: Specification, folder: Path) -> None:
    """Write schedule.yaml and the resolved config.yaml."""
    for name in _FIRST:
        (folder / name).unlink(missing_ok=True)
    write_config(spec, folder)
    if spec.schedule_text is not None:
        replace_text(folder / SCHEDULE, spec.schedule_text)
    if spec.claim_text is not None:
        replace_text(folder / CLAIM, spec.claim_text)


@dataclass(frozen=True)
class Found:
    """A run that exists: its folder, whether it has a checkpoint, and whether it is complete."""

    path: Path
    begun: bool
    finished: bool
    planned: int
    """The number of epochs in its configuration: at most those that are asked for."""


def to_resume(spec: Specification, out: Path | None) -> Found | None:
    """Return the run that --resume continues: in `out`, else the newest unfinished one of this schedule and
    configuration, else the newest finished one; None where there is none, or it was killed before it had its files.

    A run that was planned for fewer epochs is taken where there is none of the same number: it is trained on.

    Raises `UserError` where the folder holds something else, or a run of another schedule or configuration.
    """
    folders = _numbered(spec) if out is None else _own(out)
    others = {path: other_content(spec, path) for path in folders}
    planned = {path: planned_epochs(path) for path in folders}
    fitting = [path for path, other in others.items() if other is None]
    same = [path for path in fitting if planned[path] == spec.config.epochs] or fitting
    # Of other content: what would be continued is refused, with the difference.
    done = {
        path: checkpoint.finished(path / CHECKPOINT) and not (path in same and _ends_before(path, spec.config.epochs))
        for path in same or folders
    }
    chosen = next((path for path, finished in done.items() if not finished), same[0] if same else None)
    if out is not None and folders:
        chosen = out
    if chosen is None:
        return None
    if planned[chosen] > spec.config.epochs:
        raise UserError(
            f"{chosen} was planned for {planned[chosen]} epochs, {spec.config.epochs} is fewer: a run is continued with"
            f" as many or more"
        )
    if others[chosen]:
        raise UserError(f"{chosen} is a run of another schedule or configuration: {others[chosen]}")
    saved = chosen / CHECKPOINT
    return Found(chosen, saved.is_file() or bool(checkpoint.older_copy(saved)), done[chosen], planned[chosen])


def _ends_before(folder: Path, epochs: int) -> bool:
    """Return whether a finished run has had fewer epochs: it was planned for them, or is being trained on."""
    return bool(checkpoint.load(folder / CHECKPOINT).get("epoch", epochs) < epochs)


def own_checkpoint(spec: Specification, folder: Path) -> checkpoint.Checkpoint:
    """Return the checkpoint of a run.

    Raises `UserError` where it, or best.pt, was written by another run, and where it can neither be resumed nor is
    complete.
    """
    path = folder / CHECKPOINT
    saved = checkpoint.load(path)
    check_same_run(spec, saved, path)
    if not saved.get("finished") or saved["epoch"] < spec.config.epochs:
        checkpoint.check_resumable(saved, path)
        _check_best(spec, folder / BEST)
    return saved


def _check_best(spec: Specification, path: Path) -> None:
    """Raise `UserError` where best.pt is another run's; one that is lost or damaged is told when it is used."""
    try:
        best = checkpoint.load(path)
    except UserError:
        return
    check_same_run(spec, best, path)


def _own(out: Path) -> list[Path]:
    """Return the folder itself where a run has begun in it. Raises `UserError` where it is not a run's folder."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: give a run's folder with --out")
    if (out / SMOKE).is_file():
        raise UserError(
            f"{out} is the folder of a smoke run: a smoke run cannot be resumed: give another folder with --out"
        )
    if not out.is_dir() or not _begun(out):
        return []
    if not (out / CONFIG).is_file():
        raise UserError(f"{out} is not a run's folder: it has no {CONFIG}")
    return [out]


def _numbered(spec: Specification) -> list[Path]:
    """Return the runs in runs/ with the specification's name, the newest first."""
    parts = [(path.name.rpartition("-"), path) for path in RUNS.glob("*")]
    found = [(int(number), path) for (name, _, number), path in parts if name == spec.name and number.isdecimal()]
    return [path for _, path in sorted(found, reverse=True) if (path / CONFIG).is_file() and _begun(path)]


def _begun(folder: Path) -> bool:
    """Return whether it has more than the files of a run that was killed at its very beginning."""
    return bool(_content(folder) - _FIRST)


def _content(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {_LOCK}


def other_content(spec: Specification, folder: Path) -> str | None:
    """Return how a run's schedule or configuration differs from `spec`, in words; None where they are the same, but for
    fewer epochs than `spec` has, and for what does not change the training.
    """
    config = {**resolved(_plain(folder / CONFIG)), **{key: spec.config_data[key] for key in UNTRAINED}}
    if planned_epochs(folder) < spec.config.epochs:
        config["epochs"] = spec.config.epochs
    found = difference(spec.config_data, config)
    if found:
        return found
    schedule = _plain(folder / SCHEDULE) if (folder / SCHEDULE).is_file() else None
    ours = spec.schedule.document.data if spec.schedule else None
    return difference(without_claim(ours), without_claim(schedule), "schedule")


def planned_epochs(folder: Path) -> int:
    """Return the number of epochs in a run's configuration; 0 where it cannot be read."""
    epochs = resolved(_plain(folder / CONFIG)).get("epochs")
    return epochs if isinstance(epochs, int) else 0


def write_config(spec: Specification, folder: Path) -> None:
    """Write the resolved config.yaml, completely or not at all."""
    replace_text(folder / CONFIG, yaml.safe_dump(spec.config_data, sort_keys=False))


def _plain(path: Path) -> object:
    return parse(str(path), path.read_text(encoding="utf-8"), Faults()).data


def seconds(folder: Path) -> list[float]:
    """Return how long each epoch of a run took."""
    lines = (folder / METRICS).read_text(encoding="utf-8").splitlines()
    return [float(json.loads(line)["seconds"]) for line in lines]
