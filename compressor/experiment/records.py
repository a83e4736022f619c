"""`records.json` beside schedules: with what, and of which data, a schedule's claim was reached; its smoke digest.

A smoke digest is the digest of a run with --smoke, seed 0, one thread, on the CPU, of random images where the data set
is not embedded: the same bits wherever torch and the processor are the same.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from compressor import strict_json
from compressor.data import Fingerprint
from compressor.data import differences as other_data
from compressor.errors import UserError
from compressor.experiment import digest, environment, run
from compressor.experiment.specification import Specification, without_claim
from compressor.files import replace_text

FILE = "records.json"
SCHEMA = 1
"""The number of the layout of the file."""


class Record(BaseModel):
    """What is recorded of one schedule."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: str
    """SHA-256 of the schedule without its claim and of the configuration, both as they stand in their files."""
    smoke: str
    """The smoke digest."""
    environment: dict[str, Any]
    """versions, platform, processor, device and threads, as in environment.json."""
    data: dict[str, Any] | None = None
    """The fingerprint of the data set; None where its files were not at hand."""


class Smoke(BaseModel):
    """A smoke digest beside the recorded one."""

    model_config = ConfigDict(frozen=True)

    result: Literal["equal", "differs", "not compared"]
    why: str | None = None
    """Why it was not compared."""


def read(schedule: Path) -> Record | None:
    """Return the record of a schedule's file; None where there is none. Raises `UserError` where it is damaged."""
    return _all(schedule.with_name(FILE)).get(schedule.stem)


def _all(path: Path) -> dict[str, Record]:
    if not path.is_file():
        return {}
    try:
        content = strict_json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise ValueError(f"its layout is number {content['schema']}, {SCHEMA} is wanted")
        return {name: Record.model_validate(record) for name, record in content["schedules"].items()}
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: cannot be read: {(str(error).splitlines() or [''])[0]}") from None


def write(schedule: Path, record: Record) -> Path:
    """Write the record of a schedule into the file beside it, and return that file; other records stay."""
    path = schedule.with_name(FILE)
    records = sorted({**_all(path), schedule.stem: record}.items())
    rows = [f"{strict_json.dumps(name)}: {strict_json.dumps(one.model_dump(mode='json'))}" for name, one in records]
    replace_text(path, f'{{"schema": {SCHEMA}, "schedules": {{\n' + ",\n".join(rows) + "\n}}\n")
    return path


def record(spec: Specification, made_with: Mapping[str, Any], data: Fingerprint | None) -> Record:
    """Return what is recorded of a schedule: its smoke digest is made; `made_with`: a record of environment.json."""
    kept = {key: made_with[key] for key in environment.here(torch.device("cpu"))}
    return Record(inputs=inputs(spec), smoke=smoke_digest(spec), environment=kept, data=data)


def inputs(spec: Specification) -> str:
    """Return the SHA-256 of a schedule without its claim and of its configuration, as they stand in their files."""
    schedule = None if spec.schedule is None else without_claim(spec.schedule.document.data)
    text = strict_json.dumps([schedule, spec.config_document.data])
    return sha256(text.encode()).hexdigest()


def smoke_digest(spec: Specification) -> str:
    """Return the digest of a smoke run."""
    with tempfile.TemporaryDirectory() as work, _one_thread():
        path, nowhere = Path(work) / "smoke", Path(work) / "no-data"  # so that all machines have the same images
        run.train(spec, path, nowhere, "cpu", False, smoke=True)
        return digest.of_run(path)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def compare_smoke(spec: Specification, recorded: Record | None) -> Smoke:
    """Return whether the smoke digest of a schedule is the recorded one.

    With another torch or processor, or changed files, it is not compared. One that differs, while other libraries do,
    too, is not compared either.
    """
    if recorded is None:
        return Smoke(result="not compared", why="none is recorded")
    if recorded.inputs != inputs(spec):
        return Smoke(result="not compared", why="the schedule or its configuration has changed since")
    differing = dict(_differing(environment.here(torch.device("cpu")), recorded.environment))
    decisive = [words for name, words in differing.items() if name in ("torch", "processor")]
    if decisive:
        return Smoke(result="not compared", why="; ".join(decisive))
    if smoke_digest(spec) == recorded.smoke:
        return Smoke(result="equal")
    others = [words for name, words in differing.items() if name in environment.LIBRARIES]
    if others:
        return Smoke(result="not compared", why=f"it differs, and {'; '.join(others)}")
    return Smoke(result="differs")


def differences(recorded: Record | None, made_with: Mapping[str, Any], data: Fingerprint) -> list[str]:
    """Return how a run's environment and data differ from the recorded ones, in words.

    `made_with`: a record of environment.json; `data`: the fingerprint of the run's data set.
    """
    if recorded is None:
        return ["no environment and no data are recorded to compare with"]
    found = [words for _, words in _differing(made_with, recorded.environment)]
    if recorded.data is None:
        found.append("data: no fingerprint is recorded")
    else:
        found += [f"data: {words} (was: in the record)" for words in other_data(recorded.data, data)]
    return found or ["environment and data are those of the record"]


def _differing(here: Mapping[str, Any], there: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the name of each value that differs, and both values in words."""
    ours, theirs = _flat(here), _flat(there)
    for name, value in theirs.items():
        if ours.get(name) != value:
            yield name, f"{name} is {_shown(ours.get(name))} here, {_shown(value)} in the record"


def _flat(made_with: Mapping[str, Any]) -> dict[str, Any]:
    device = made_with.get("device") or {}
    named = {"device": device.get("name") or device.get("type"), "cuda": device.get("cuda")}
    plain = {key: made_with.get(key) for key in ("processor", "platform", "threads")}
    return {**made_with.get("versions", {}), **plain, **named}


def _shown(value: Any) -> str:
    return "-" if value is None else str(value)
