"""The standard streams of a command, where the terminal has gone."""

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any, TextIO

from compressor import torchrun


def prepare() -> None:
    """Open the standard streams that are closed; let stderr drop what cannot be written to it, and both escape
    characters that they cannot encode.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: the next file that is opened would get what libraries write to stderr
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdout is None:
        sys.stdout = _dropping(1, None)
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        sys.stderr = _dropping(2, sys.stderr)
    if torchrun.size() > 1:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # its warnings of lost connections are not ours
    for stream in (sys.stdout, sys.stderr):  # an ascii terminal, a path that is not UTF-8: escaped, and no error
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if torchrun.rank() > 0:  # rank 0 shows what there is to see
        _loud.append(sys.stderr)
        sys.stdout = sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")


_loud: list[TextIO] = []
"""The stderr of a process that shows nothing but its last word."""


@contextmanager
def last_word() -> Iterator[bool]:
    """Yield whether this process shows why the command ends; inside the block stderr is what the user reads.

    Of several processes the first one does; it is not disturbed by signals, with which torchrun ends all others.
    """
    if torchrun.size() > 1 and threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    first = torchrun.first()
    with redirect_stderr(_loud[0] if first and _loud else sys.stderr):
        yield first


def drop_lost_output() -> None:
    """Let stdout drop what cannot be written to it, from now on. A run goes on when its terminal has gone."""
    if sys.stdout is sys.__stdout__ and sys.stdout is not None:
        sys.stdout.flush()
        sys.stdout = _dropping(1, sys.stdout)


def leave_stdout() -> None:
    """Discard what could not be written to stdout: Python would report it again when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _dropping(descriptor: int, before: TextIO | None) -> TextIO:
    """Return a stream like the one `before`, which drops what cannot be written."""
    raw = _Dropping(descriptor, "w", closefd=False)
    encoding, errors = (before.encoding, before.errors) if before is not None else ("utf-8", "backslashreplace")
    buffered = io.BufferedWriter(raw)
    return io.TextIOWrapper(buffered, encoding, errors, line_buffering=descriptor == 2 or raw.isatty())


class _Dropping(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            written = super().write(data)
        except OSError:  # a full disk, a terminal or a reader that has gone
            written = None
        return len(data) if written is None else written
