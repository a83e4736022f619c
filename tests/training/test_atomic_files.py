"""Files on disk are the old one or the new one, whatever happens in between."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
from helpers import environment, saved

from compressor.errors import CompressError
from compressor.training import checkpoint
from compressor.training.files import replace, replace_text


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    replace_text(tmp_path / "a.txt", "grün\n")
    assert (tmp_path / "a.txt").read_bytes() == "grün\n".encode()
    replace_text(tmp_path / "a.txt", "")
    assert (tmp_path / "a.txt").read_bytes() == b""
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_until_it_is_whole_the_old_file_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    seen = []

    def write(file: BinaryIO) -> None:
        file.write(b"ne")
        file.flush()
        seen.append(path.read_text())
        file.write(b"w")

    replace(path, write)
    assert (seen, path.read_text()) == (["old"], "new")


def test_the_new_file_is_on_the_disk_before_it_takes_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, rename = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        order.append(f"sync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
        fsync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        order.append(f"{Path(source).name} becomes {Path(target).name}")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    replace_text(tmp_path / "a.txt", "new")
    temporary = order[0].removeprefix("sync ")
    assert temporary != "a.txt"
    assert order == [f"sync {temporary}", f"{temporary} becomes a.txt", f"sync {tmp_path.name}"]


FAILURES: dict[str, Callable[[BinaryIO], object]] = {
    "the disk is full": lambda file: _raise(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))),
    "torch says so in its way": lambda file: _raise(RuntimeError("PytorchStreamWriter failed writing file\nmore")),
}


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("fail", FAILURES.values(), ids=FAILURES)
def test_a_failing_write_leaves_the_old_file_and_no_other(tmp_path: Path, fail: Callable[[BinaryIO], object]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write(file: BinaryIO) -> None:
        file.write(b"half of the n")
        fail(file)

    with pytest.raises(CompressError, match=r"a\.txt: cannot be written") as error:
        replace(path, write)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 1
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "old")]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_disk_that_fails_late_leaves_the_old_file_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    monkeypatch.setattr(os, step, lambda *arguments: _raise(OSError(errno.EIO, os.strerror(errno.EIO))))
    with pytest.raises(CompressError, match="Input/output error"):
        replace_text(path, "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "old")]


def test_an_interrupted_write_leaves_the_old_file_and_the_next_one_takes_its_place(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    kill = f"""
import os, pathlib, signal
from compressor.training.files import replace
def write(file):
    file.write(b"half of the n")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
replace(pathlib.Path({str(path)!r}), write)
"""
    done = subprocess.run([sys.executable, "-c", kill], env=environment(), timeout=60)
    assert done.returncode == -9
    assert path.read_text() == "old"
    replace_text(path, "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "new")]


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"weight": torch.ones(1000)})

    class FullDisk:
        """A file that takes 100 bytes and then no more."""

        def __init__(self, file: BinaryIO) -> None:
            self._file, self._left = file, 100

        def write(self, data: bytes) -> int:
            self._left -= len(data)
            if self._left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self._file.write(data)

        def flush(self) -> None:
            self._file.flush()

    save = torch.save
    monkeypatch.setattr(torch, "save", lambda content, file: save(content, FullDisk(file)))
    with pytest.raises(CompressError, match=r"checkpoint\.pt: cannot be written"):
        checkpoint.save(path, {"weight": torch.zeros(1000)})
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert torch.equal(saved(path)["weight"], torch.ones(1000))
