"""The runs of a sweep as tasks of a Ray cluster, whose nodes need not share a disk.

A task trains in a folder of its own node. Whenever it has written a checkpoint, it sends the files of its run to an
actor on the node where the sweep was started, which writes them into the sweep's folder. When a worker or a node is
lost, Ray starts the task again, elsewhere: it first gets the files of its run from that actor, and goes on from there.
"""

import contextlib
import os
import signal
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from compressor.errors import CompressError, UserError
from compressor.experiment import run
from compressor.experiment.folder import CHECKPOINT, CONFIG, SCHEDULE
from compressor.experiment.signals import Stop
from compressor.experiment.specification import specification
from compressor.experiment.sweeping import threads_of_a_run
from compressor.files import replace
from compressor.importing import late, plugins_allowed, plugins_are_allowed

RETRIES = 3
"""How often Ray starts a run again whose worker or node was lost."""
_POLL, _PATIENCE = 0.2, 60.0
"""Seconds between two looks at a checkpoint, or at Ray; and how long after a signal runs may take to save and end."""

_KNOCK = 10.0
"""Seconds after which an address does not answer."""

Contents = dict[str, bytes]
"""The contents of a run's files, by their path in its folder."""
Marks = dict[str, tuple[int, int, int]]
"""Of the same files the time of the last change, the size and the number on the disk."""


class RayQueue:
    """Train as many runs at the same time as the nodes of a cluster have cores, or GPUs, for."""

    def __init__(self, path: Path, address: str, device: str, data: Path | None) -> None:
        try:
            self._ray = late("ray")
        except ImportError:
            raise UserError("--on ray: Ray is not installed: pip install 'compressor[ray]'") from None
        if "://" in address:
            raise UserError(
                f"--on ray:{address}: the results are written on this machine, so it must be a node of the cluster: run"
                f" `ray start --address=HOST:PORT` here, and give ray:HOST:PORT"
            )
        if device not in ("auto", "cpu", "cuda"):
            raise UserError(f"--device {device}: with --on ray it takes auto, cpu or cuda: Ray chooses the GPU")
        self._path, self._address, self._device = path.absolute(), address, device
        # As it is named here: another machine has another working directory, and other variables.
        self._data = Path(data or os.environ.get("COMPRESS_DATA") or "data").absolute()

    def run(self, names: Sequence[str], stop: Stop) -> Iterator[tuple[str, str | None]]:
        """Yield the name of each run that ended, and why it failed; after a signal end all, with their checkpoints."""
        with self._cluster() as ray:
            gpus = ray.cluster_resources().get("GPU", 0)
            if self._device == "cuda" and not gpus:
                raise UserError("--device cuda: no node of the Ray cluster has a GPU")
            on_gpu = self._device == "cuda" or (self._device == "auto" and gpus > 0)
            here = late("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy(
                ray.get_runtime_context().get_node_id(), soft=False
            )
            store = ray.remote(num_cpus=0, scheduling_strategy=here)(Store).remote(str(self._path))
            threads, device = threads_of_a_run(), "cuda" if on_gpu else "cpu"
            task = ray.remote(
                num_cpus=threads, num_gpus=int(on_gpu), max_retries=RETRIES, max_calls=1, retry_exceptions=False
            )(train)
            given = (device, str(self._data), threads, plugins_are_allowed())
            running = {task.options(name=name).remote(store, name, *given): name for name in names}
            told = None
            while running:
                if told is None and stop() is not None:
                    told = time.monotonic()
                    for one in running:
                        ray.cancel(one)
                if told is not None and time.monotonic() - told > _PATIENCE:
                    return
                for one in ray.wait(list(running), timeout=_POLL)[0]:
                    yield running.pop(one), self._failure(one)

    @contextlib.contextmanager
    def _cluster(self) -> Iterator[Any]:
        """Connect to the cluster inside the block. Raises `UserError` where none answers."""
        ray = self._ray
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # of a cluster that is started here
        try:
            with _signals_kept():
                self._knock()
                ray.init(address=self._address or None, log_to_driver=False, logging_level="ERROR")
        except Exception as error:  # of many kinds, also plain ones
            first = (str(error).splitlines() or [type(error).__name__])[0]
            named = f"--on ray:{self._address}" if self._address else "--on ray"
            raise UserError(f"{named}: no Ray cluster answers: {first}") from None
        try:
            yield ray
        finally:
            ray.shutdown()

    def _knock(self) -> None:
        """Raise `OSError` where nobody listens at the address: Ray itself tries for minutes."""
        host, colon, port = (self._address or os.environ.get("RAY_ADDRESS", "")).rpartition(":")
        if colon and port.isdecimal():
            socket.create_connection((host, int(port)), _KNOCK).close()

    def _failure(self, done: Any) -> str | None:
        """Return why a task failed; None where it did not."""
        try:
            found: str | None = self._ray.get(done)
        except self._ray.exceptions.RayError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            return f"{type(error).__name__}: {lines[-1] if lines else ''}"
        return found


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Put back at the end of the block what is done at a signal: Ray has a handler of its own for SIGTERM."""
    if threading.current_thread() is not threading.main_thread():  # there Ray installs none
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Store:
    """The sweep's folder, as an actor on the node of the sweep: tasks get the files of their runs, and send them."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._starts: Counter[str] = Counter()

    def begin(self, name: str) -> tuple[int, Contents]:
        """Return the number of this start of a run, and its files."""
        self._starts[name] += 1
        return self._starts[name], changed(self._path / name, {})

    def keep(self, name: str, start: int, files: Contents) -> None:
        """Write files of a run, the checkpoint last; those of an earlier start, taken for lost, are dropped."""
        if start == self._starts[name]:
            write(self._path / name, files)


def train(store: Any, name: str, device: str, data: str, threads: int, plugins: bool) -> str | None:
    """Train a run in a folder of this node, to its end, and send its files; return why it failed, or None."""
    ray = late("ray")
    torch.set_num_threads(threads)
    start, files = ray.get(store.begin.remote(name))
    with tempfile.TemporaryDirectory(prefix="compress-sweep-") as work:
        path = Path(work) / name
        path.mkdir()
        write(path, files)
        failure = None
        with (
            mirrored(path, lambda found: ray.get(store.keep.remote(name, start, found))),
            plugins_allowed(plugins),
        ):
            try:
                schedule = str(path / SCHEDULE) if (path / SCHEDULE).is_file() else None
                spec = specification(schedule, str(path / CONFIG))
                outcome = run.train(spec, path, Path(data), device, resume=True)
                failure = "\n".join(outcome.shortfalls) or None
            except CompressError as error:
                failure = str(error)
        return failure


@contextlib.contextmanager
def mirrored(path: Path, send: Any) -> Iterator[None]:
    """Send what changed in a run's folder whenever its checkpoint was written inside the block, and at its end."""
    known, ended = changed_marks(path), threading.Event()

    def once() -> None:
        if found := changed(path, known):
            send(found)

    def watch() -> None:
        while not ended.wait(_POLL):
            if mark(path / CHECKPOINT) not in (None, known.get(CHECKPOINT)):
                once()

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield
    finally:
        ended.set()
        watching.join()
        once()


def mark(file: Path) -> tuple[int, int, int] | None:
    """Return what tells a file from the one that it was before; None where there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def files_of(path: Path) -> list[Path]:
    """Return the files of a run's folder, the checkpoint first; locks and files that are being written are left out."""
    found = [
        file
        for file in sorted(path.rglob("*"))
        if not any(part.startswith(".") for part in file.relative_to(path).parts) and not file.is_symlink()
    ]
    return sorted((file for file in found if file.is_file()), key=lambda file: file.name != CHECKPOINT)


def changed(path: Path, known: Marks) -> Contents:
    """Return the files of a run's folder that are not as they are `known`, which is brought up to date.

    The checkpoint is read first: what belongs to it was written before it, or is written again when a run goes on.
    """
    found = Contents()
    for file in files_of(path):
        name, now = file.relative_to(path).as_posix(), mark(file)
        if now is None or known.get(name) == now:
            continue
        with contextlib.suppress(FileNotFoundError):  # an older copy, which has taken the next number
            found[name] = file.read_bytes()
            known[name] = now
    return found


def changed_marks(path: Path) -> Marks:
    """Return the marks of all files of a run's folder."""
    return {file.relative_to(path).as_posix(): now for file in files_of(path) if (now := mark(file)) is not None}


def write(path: Path, files: Mapping[str, bytes]) -> None:
    """Write files of a run into a folder, each completely or not at all, the checkpoint last."""
    for name in sorted(files, key=lambda name: name == CHECKPOINT):
        content = files[name]
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        replace(path / name, lambda file, content=content: file.write(content))  # type: ignore[misc]
