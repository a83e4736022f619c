"""The runs of a sweep as processes of this machine, some at the same time."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from compressor.experiment import building
from compressor.experiment.signals import Stop
from compressor.experiment.sweeping import threads_of_a_run
from compressor.importing import ALLOWED, plugins_are_allowed

_POLL = 0.05
"""Seconds between two looks at the processes."""
_TRAIN = """\
import ctypes, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
sys.argv[0] = "compress"
from compressor.__main__ import main
main()
"""
"""`compress`, which gets SIGTERM (prctl's PR_SET_PDEATHSIG is 1) when the sweep is killed: it saves and ends."""


@dataclass
class _Started:
    process: subprocess.Popen[bytes]
    errors: BinaryIO
    slot: int


class LocalQueue:
    """Train `jobs` runs at the same time; None: as many as CUDA devices are wanted, or as the cores bear."""

    def __init__(self, path: Path, jobs: int | None, device: str, data: Path | None) -> None:
        self._path, self._data = path, data
        where, threads = building.device(device), threads_of_a_run()
        every = where.type == "cuda" and where.index is None
        self._devices = [f"cuda:{n}" for n in range(torch.cuda.device_count())] if every else [str(where)]
        cores = max(1, len(os.sched_getaffinity(0)) // threads)
        self._jobs = jobs or (cores if where.type == "cpu" else len(self._devices))

    def run(self, names: Sequence[str], stop: Stop) -> Iterator[tuple[str, str | None]]:
        """Yield the name of each run that ended, and why it failed; after a signal end all, with their checkpoints."""
        waiting, running, told = deque(names), dict[str, _Started](), False
        slots = deque(range(self._jobs))
        try:
            while waiting or running:
                if stop() is not None and not told:
                    waiting.clear()
                    _end(running.values())
                    told = True
                while waiting and slots:
                    name = waiting.popleft()
                    running[name] = self._start(name, slots.popleft())
                for name, one in list(running.items()):
                    if one.process.poll() is not None:
                        slots.append(running.pop(name).slot)
                        yield name, _failure(one)
                time.sleep(_POLL)
        finally:
            _end(running.values())
            for one in running.values():
                one.process.wait()

    def _start(self, name: str, slot: int) -> _Started:
        given = ["train", "--resume", "--out", str(self._path / name)]
        given += ["--device", self._devices[slot % len(self._devices)]]
        given += [] if self._data is None else ["--data", str(self._data)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads_of_a_run())}
        if plugins_are_allowed():
            environment[ALLOWED] = "1"
        errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed when the process has ended)
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _TRAIN, *given],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=environment,
            process_group=0,  # a signal of the terminal comes to the sweep alone, which tells it once
        )
        return _Started(process, errors, slot)


def _end(running: Iterable[_Started]) -> None:
    for one in running:
        if one.process.poll() is None:
            one.process.terminate()


def _failure(one: _Started) -> str | None:
    """Return why a process failed, from its code and what it wrote to stderr; None where it did not."""
    with one.errors:
        one.errors.seek(0)
        text = one.errors.read().decode(errors="replace").strip()
    code = one.process.returncode
    if code == 0:
        return None
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    *_, said = re.split(r"^error: ", text, flags=re.MULTILINE)
    return said or f"exit code {code}"
