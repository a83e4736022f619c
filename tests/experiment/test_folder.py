"""The folder of a run belongs to one process, which holds it before it writes anything."""

import os
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from filelock import FileLock
from helpers import compress, succeed

from compressor.errors import UserError
from compressor.experiment import folder
from compressor.experiment.specification import specification


def forked(child: Callable[[], int]) -> int:
    """Run `child` in a process of its own, as the workers that load data are; return its number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which the child does not use
        number = os.fork()
    if number:
        return number
    try:
        os._exit(child())
    finally:
        os._exit(99)


def test_of_simultaneous_starts_one_writes_its_files_and_the_others_nothing() -> None:
    specs = [specification(None, "tiny", [("seed", str(seed))]) for seed in range(4)]
    for attempt in range(8):
        out = Path(f"run{attempt}")
        begin = time.time() + 0.1

        def start(seed: int, out: Path = out, begin: float = begin) -> int:
            while time.time() < begin:
                pass
            try:
                with folder.made(specs[seed], out, resume=False):
                    time.sleep(0.05)
            except UserError:
                return 2
            return 0

        numbers = [forked(lambda seed=seed: start(seed)) for seed in range(4)]  # type: ignore[misc]
        codes = [os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) for number in numbers]
        assert sorted(codes) == [0, 2, 2, 2]
        assert yaml.safe_load((out / "config.yaml").read_text())["seed"] == codes.index(0)


def test_who_comes_second_writes_nothing_even_where_the_folder_was_empty_when_it_looked(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, make = work / "run", folder._make
    held = FileLock(run / ".lock")

    def made_and_taken_by_another(path: Path, *, exist_ok: bool) -> bool:
        done = make(path, exist_ok=exist_ok)
        held.acquire()
        return done

    monkeypatch.setattr(folder, "_make", made_and_taken_by_another)
    result = compress("train", "-c", "tiny", "--out", "run")
    held.release()
    assert (result.code, result.err) == (2, "error: run: another process is training in it\n")
    assert [path.name for path in run.iterdir()] == [".lock"]

    def made_and_finished_by_another(path: Path, *, exist_ok: bool) -> bool:
        done = make(path, exist_ok=exist_ok)
        for name in ("config.yaml", "checkpoint.pt"):
            (path / name).write_text("another's")
        return done

    monkeypatch.setattr(folder, "_make", made_and_finished_by_another)
    for resume in ((), ("--resume",)):
        result = compress("train", "-c", "tiny", "--out", "run", *resume)
        assert (result.code, "run exists and is not overwritten" in result.err) == (2, True)
        assert {(run / name).read_text() for name in ("config.yaml", "checkpoint.pt")} == {"another's"}
        for name in ("config.yaml", "checkpoint.pt"):
            (run / name).unlink()


def test_a_folder_with_only_a_lock_is_empty(work: Path) -> None:
    (work / "run").mkdir()
    (work / "run" / ".lock").touch()
    succeed("train", "-c", "tiny", "--set", "epochs=1", "--out", "run")


def test_nothing_is_written_into_a_folder_of_something_else(work: Path) -> None:
    (work / "mine").mkdir()
    (work / "mine" / "thesis.tex").touch()
    for resume in ((), ("--resume",)):
        assert compress("train", "-c", "tiny", "--out", "mine", *resume).code == 2
        assert [path.name for path in (work / "mine").iterdir()] == ["thesis.tex"]


def test_a_worker_of_a_killed_run_does_not_hold_the_folder(work: Path) -> None:
    reader, writer = os.pipe()

    def worker() -> int:
        os.write(writer, os.getpid().to_bytes(4, "little"))
        time.sleep(60)
        return 0

    def train() -> int:
        with folder.held(work):
            forked(worker)
            time.sleep(60)
        return 0

    number = forked(train)
    child = int.from_bytes(os.read(reader, 4), "little")
    try:
        with pytest.raises(UserError, match="another process is training in it"), folder.held(work):
            pass
        os.kill(number, signal.SIGKILL)
        os.waitpid(number, 0)
        os.kill(child, 0)  # it lives
        with folder.held(work):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.close(reader)
        os.close(writer)
