"""The standard streams of a command, where the terminal has gone."""

import io
import os
import sys
from typing import Any, TextIO


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
    for stream in (sys.stdout, sys.stderr):  # an ascii terminal, a path that is not UTF-8: escaped, and no error
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


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
