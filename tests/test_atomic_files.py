"""Files on disk are the old one or the new one, whatever happens in between."""

import errno
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from helpers import environment, saved

from compressor.errors import CompressError
from compressor.files import replace, replace_text
from compressor.training import checkpoint


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
from compressor.files import replace
def write(file):
    file.write(b"half of the n")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
replace(pathlib.Path({str(path)!r}), write)
"""
    done = subprocess.run([sys.executable, "-c", kill], env=environment(), timeout=300)
    assert done.returncode == -9
    assert path.read_text() == "old"
    replace_text(path, "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "new")]


class Killed(BaseException):
    """What ends the process in the middle of a write: nothing of ours runs after it."""


def texts(folder: Path) -> dict[str, str]:
    """What each file holds that has no temporary name."""
    return {path.name: path.read_text() for path in sorted(folder.iterdir()) if not path.name.startswith(".")}


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
@pytest.mark.parametrize("keep", [1, 2, 4])
def test_a_process_killed_at_any_call_leaves_whole_files_and_the_next_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: int, links: bool
) -> None:
    path = tmp_path / "a.txt"
    names = ["a.txt", *(f"a.{number}.txt" for number in range(1, keep))]

    def save(text: str) -> None:
        replace(path, lambda file: file.write(text.encode()), keep)

    calls = ["fsync", "replace", "unlink", *(["link"] if links else [])]
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: _raise(OSError(errno.EPERM, os.strerror(errno.EPERM))))
    plain = {name: getattr(os, name) for name in calls}
    version, moment = 0, 0
    for _ in range(keep + 1):
        version += 1
        save(f"{version:03}")
    while True:
        left, killed = moment, False

        def counted(name: str, *arguments: object, **options: object) -> object:
            nonlocal left, killed
            killed = killed or left == 0
            if killed:
                raise Killed
            left -= 1
            return plain[name](*arguments, **options)

        with pytest.MonkeyPatch.context() as patch:
            for name in calls:
                patch.setattr(os, name, partial(counted, name))
            with suppress(Killed):
                save(f"{version + 1:03}")
        assert path.read_text() in (f"{version:03}", f"{version + 1:03}")
        assert set(texts(tmp_path)) <= set(names)
        assert len(texts(tmp_path)) >= min(keep, max(keep - 1, 2))  # of three and more, one may have no name yet
        assert all(len(text) == 3 for text in texts(tmp_path).values())
        for _ in range(keep + 1):
            version += 1
            save(f"{version:03}")
        assert {path.name for path in tmp_path.iterdir()} == set(names)  # no temporary file stays
        assert [texts(tmp_path)[name] for name in names] == [f"{version - age:03}" for age in range(keep)]
        if not killed:
            break
        moment += 1
    assert moment >= (3 if keep == 1 else 5)


def test_a_write_that_fails_leaves_the_copies_too(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for text in ("first", "second"):
        replace(path, lambda file, text=text: file.write(text.encode()), 2)  # type: ignore[misc]
    with pytest.raises(CompressError):
        replace(path, lambda file: _raise(OSError(errno.EIO, "")), 2)
    assert texts(tmp_path) == {"a.txt": "second", "a.1.txt": "first"}


def test_a_full_disk_is_named_with_the_bytes_that_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.pt"
    checkpoint.save(path, {"weight": torch.ones(1000)})
    size = path.stat().st_size
    mount = subprocess.run(["stat", "-c", "%m", tmp_path], capture_output=True, text=True, check=True).stdout.strip()
    opened, content = open, path.read_bytes()

    class FullDisk(io.FileIO):
        """A disk that takes 100 bytes and then no more."""

        def write(self, data: Any) -> int:
            if self.tell() + len(data) > 100:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    monkeypatch.setattr("builtins.open", lambda name, mode="r", **options: FullDisk(name, mode))
    with pytest.raises(CompressError) as error:
        checkpoint.save(path, {"weight": torch.zeros(1000)})
    monkeypatch.setattr("builtins.open", opened)
    assert str(error.value) == f"{path}: cannot be written: no space left on {mount}, {size:,} bytes needed"
    assert [file.name for file in tmp_path.iterdir()] == ["c.pt"]
    assert path.read_bytes() == content


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_ended_by_a_signal_leaves_no_temporary_file(tmp_path: Path, number: int) -> None:
    lines = [
        "import os, pathlib, signal",
        "from compressor.__main__ import _end",
        "from compressor.files import replaced",
        f"signal.signal({int(number)}, _end)",
        "with replaced(pathlib.Path('model.onnx')) as temporary:",
        "    temporary.write_bytes(b'half')",
        f"    os.kill(os.getpid(), {int(number)})",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (128 + number, "interrupted\n")
    assert list(tmp_path.iterdir()) == []
