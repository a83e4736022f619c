"""Processes as torchrun starts them, without torchrun itself: rank 0 in this process, the others beside it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from helpers import environment, succeed

from compressor import torchrun


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def variables(rank: int, size: int, port: int) -> dict[str, str]:
    """What torchrun tells a process."""
    found = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {name: str(value) for name, value in found.items()}


@contextlib.contextmanager
def rank_0(size: int, port: int) -> Iterator[None]:
    """Make this process rank 0. A failure ends the command, not this process."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with (
        mock.patch.dict(os.environ, variables(0, size, port)),
        mock.patch.object(torchrun, "_store", None),
        mock.patch.object(torchrun, "leave", sys.exit),
    ):
        yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def train_in(size: int, *arguments: object, cwd: Path) -> str:
    """Run `compress train ...` in processes, and give the output of rank 0: the others say nothing."""
    port = free_port()
    command = [sys.executable, "-m", "compressor", "train", *map(str, arguments)]
    with contextlib.ExitStack() as stack:
        others = [
            stack.enter_context(
                subprocess.Popen(
                    command,
                    cwd=cwd,
                    env={**environment(), **variables(rank, size, port)},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
            for rank in range(1, size)
        ]
        stack.enter_context(rank_0(size, port))
        try:
            shown = succeed("train", *arguments)
        except BaseException:
            for other in others:
                other.kill()
            raise
        said = [other.communicate(timeout=120)[0] for other in others]
    assert [(other.returncode, text) for other, text in zip(others, said, strict=True)] == [(0, "")] * (size - 1)
    return shown
