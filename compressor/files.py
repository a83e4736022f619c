"""Files that are either the old one or the new one, whatever happens between."""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, cast

from compressor.errors import CompressError

_FULL = {errno.ENOSPC: "no space left on", errno.EDQUOT: "the disk quota is used up on"}

_ESCAPED = "backslashreplace"
"""How text is written that is not UTF-8: names of files may have such bytes."""

unfinished: set[Path] = set()
"""Temporary files that are being written: who ends the process at once removes them."""


def replace(path: Path, write: Callable[[BinaryIO], object], keep: int = 1) -> None:
    """Write to a temporary file, sync, rename, sync the folder.

    `keep` files are kept in all: the one that is replaced becomes NAME.1, and so on. At every moment each name is that
    of a whole file. `write` may be called again, to count the bytes that a full disk lacks.

    Raises `CompressError`; then the old file is unchanged.
    """
    with replaced(path, keep, needed=lambda: _size(write)) as temporary, open(temporary, "wb") as file:
        write(file)


@contextlib.contextmanager
def replaced(path: Path, keep: int = 1, needed: Callable[[], int] | None = None) -> Iterator[Path]:
    """Yield the path of a temporary file, to be written inside the block; at its end that file takes the name `path`.

    Where the block raises, the temporary file is removed and the old file is unchanged; what a disk refuses is raised
    as `CompressError`. `needed` returns how many bytes a full disk should have.
    """
    temporary = _temporary(path)
    unfinished.add(temporary)
    try:
        yield temporary
        _sync(temporary)
        _make_copies(path, keep)
        os.replace(temporary, path)
        _sync(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, (OSError, RuntimeError)):  # torch.save reports a full disk as RuntimeError
            raise CompressError(f"{path}: cannot be written: {_reason(error, path, needed)}") from error
        raise
    finally:
        unfinished.discard(temporary)


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def replace_text(path: Path, text: str) -> None:
    """Replace a text file in the same way."""
    replace(path, lambda file: file.write(text.encode(errors=_ESCAPED)))


def append_text(path: Path, text: str) -> None:
    """Append to a text file, and sync. Raises `CompressError`."""
    try:
        with open(path, "a", encoding="utf-8", errors=_ESCAPED) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise CompressError(f"{path}: cannot be written: {_reason(error, path, lambda: len(text))}") from error


def older_copies(path: Path) -> list[Path]:
    """Return the copies that `replace` kept of the files before this one, the newest first; `path` may be a copy."""
    stem, dot, number = path.stem.rpartition(".")
    if not (dot and number.isdecimal()):
        stem, number = path.stem, "0"
    found: dict[int, Path] = {}
    for other in path.parent.glob(f"*{path.suffix}"):
        name, _, count = other.stem.rpartition(".")
        if name == stem and count.isdecimal() and int(count) > int(number):
            found[int(count)] = other
    return [found[count] for count in sorted(found)]


def _make_copies(path: Path, keep: int) -> None:
    """Let NAME.1 be the file itself, and each older copy take the next number. The file keeps its name, too."""
    copies = [path.with_name(f"{path.stem}.{number}{path.suffix}") for number in range(1, keep)]
    if not copies or not path.exists():
        return
    newest = copies[0]
    if newest.exists() and newest.samefile(path):  # done already, by a process that was killed before it went on
        return
    for newer, older in reversed(list(pairwise(copies))):
        if newer.exists():
            os.replace(newer, older)
    temporary = _temporary(newest)
    temporary.unlink(missing_ok=True)
    try:
        os.link(path, temporary)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, temporary)
    os.replace(temporary, newest)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def _reason(error: BaseException, path: Path, needed: Callable[[], int] | None) -> str:
    """Return why a file cannot be written; where the disk is full, which one it is and how many bytes are needed."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return (str(error).splitlines() or [type(error).__name__])[0]
    if cause.errno not in _FULL:
        return cause.strerror or str(cause)
    wanted = "" if needed is None else f", {needed():,} bytes needed"
    return f"{_FULL[cause.errno]} {_mount(path)}{wanted}"


def _mount(path: Path) -> Path:
    """Return the folder at which the file system of `path` is mounted."""
    folder = path.resolve().parent
    while not folder.is_mount():
        folder = folder.parent
    return folder


def _size(write: Callable[[BinaryIO], object]) -> int:
    counter = _Counter()
    with contextlib.suppress(OSError, RuntimeError):
        write(cast(BinaryIO, counter))
    return counter.size


class _Counter:
    """A file that counts what is written to it."""

    def __init__(self) -> None:
        self.size, self._at = 0, 0

    def write(self, data: bytes) -> int:
        self._at += len(data)
        self.size = max(self.size, self._at)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        return self._at

    def flush(self) -> None:
        pass
