"""A disk that takes no more: exit 1, one line, the old files whole."""

import contextlib
import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import compress, interrupted, saved, succeed

SCHEDULE = ("-s", "prune")


def one_line(err: str, *words: str) -> None:
    """A single line with all the words in it, that is no traceback."""
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    assert all(word in err for word in words), err


@contextlib.contextmanager
def limit(size: int) -> Iterator[None]:
    """Inside, files may have `size` bytes; more is refused as a full disk refuses it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_run_that_cannot_write_its_checkpoint_keeps_the_old_one(work: Path) -> None:
    interrupted(*SCHEDULE, "--out", "run")
    path = work / "run" / "checkpoint.pt"
    before, size = path.read_bytes(), path.stat().st_size
    # best.pt is small enough to be written, checkpoint.pt with its state is not
    with limit(size // 2):
        result = compress("train", *SCHEDULE, "--out", "run", "--resume")
    assert result.code == 1
    one_line(result.err, "run/checkpoint.pt", "cannot be written", os.strerror(errno.EFBIG))
    assert path.read_bytes() == before
    assert not [path.name for path in (work / "run").iterdir() if "partial" in path.name]
    succeed("train", *SCHEDULE, "--out", "run", "--resume")
    assert saved(path)["finished"] is True


@pytest.mark.parametrize("name", ["checkpoint.pt", "best.pt", "metrics.jsonl", "layers.jsonl", "figures.json"])
def test_whichever_file_the_disk_refuses_is_named(work: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    interrupted(*SCHEDULE, "--out", "run", epoch=3, step=0)
    before = {path.name: path.read_bytes() for path in (work / "run").glob("*.pt")}
    original = os.fsync

    def fsync(descriptor: int) -> None:
        target = os.readlink(f"/proc/self/fd/{descriptor}")
        if name in target:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    result = compress("train", *SCHEDULE, "--out", "run", "--resume")
    assert result.code == 1
    one_line(result.err, f"run/{name}", "no space left on /", "bytes needed")
    assert not [path.name for path in (work / "run").iterdir() if "partial" in path.name]
    if name.endswith(".pt"):
        after = {path.name: path.read_bytes() for path in (work / "run").glob("*.pt")}
        assert after.get(name) == before.get(name)
    monkeypatch.undo()
    monkeypatch.chdir(work)
    succeed("train", *SCHEDULE, "--out", "run", "--resume")


def test_a_log_that_the_disk_refuses_does_not_end_the_run(work: Path) -> None:
    interrupted(*SCHEDULE, "--out", "run", epoch=3, step=0)
    log = work / "run" / "log.txt"
    log.unlink()
    log.symlink_to("/dev/full")
    result = compress("train", *SCHEDULE, "--out", "run", "--resume")
    assert result.code == 0
    one_line(result.err, "warning: run/log.txt", "no space left on /dev")
    assert saved(work / "run" / "checkpoint.pt")["finished"] is True


def test_a_folder_that_takes_no_files_is_one_line(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "replace", refuse)
    result = compress("train", *SCHEDULE, "--out", "run")
    assert result.code in (1, 2)
    one_line(result.err, "run/", os.strerror(errno.EROFS))
