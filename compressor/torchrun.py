"""What `torchrun` says to the processes that it starts, and which of them shows a message when they end.

Several processes find the same error, or find that another one has ended: the first one that asks the store shows its
message, and the others are silent. torch is imported by what uses the store alone.
"""

import contextlib
import os
import socket
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

from compressor.errors import CompressError
from compressor.importing import late

_NAMES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

_ANSWER = timedelta(seconds=60)
"""How long the store may take to answer."""

_MEETING = timedelta(minutes=10)
"""How long the processes wait for the last one to begin."""

_ENDING = 3.0
"""How many seconds a process that ends may still be seen after its connections are closed."""

_store: Any = None
_places: dict[int, tuple[int, str]] = {}
"""The number of each process on its machine, and the machine's name."""


def started() -> bool:
    """Return whether this process is one of those that `torchrun` started."""
    return all(name in os.environ for name in _NAMES)


def rank() -> int:
    """Return the number of this process; 0 without torchrun."""
    return int(os.environ["RANK"]) if started() else 0


def size() -> int:
    """Return the number of processes; 1 without torchrun."""
    return int(os.environ["WORLD_SIZE"]) if started() else 1


def local_rank() -> int:
    """Return the number of this process among those on this machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def restarted() -> bool:
    """Return whether torchrun has started the processes again, after one of them had failed (`--max-restarts`)."""
    return started() and _attempt() > 0


def _attempt() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def store() -> Any:
    """Return the store that all processes share."""
    global _store
    if _store is None:
        dist = late("torch.distributed")
        found, _, _ = next(iter(dist.rendezvous("env://", timeout=_MEETING)))
        found.set_timeout(_ANSWER)
        _store = dist.PrefixStore(f"compress/{_attempt()}", found)
    return _store


def meet() -> None:
    """Wait until all processes are here. Raises `CompressError` where one does not come.

    A process that waits in torch's own way would not end after a signal.
    """
    shared = store()
    shared.set(f"place/{rank()}", f"{os.getpid()} {socket.gethostname()}")
    missing, until = set(range(size())), time.monotonic() + _MEETING.total_seconds()
    while missing := {other for other in missing if not shared.check([f"place/{other}"])}:
        if time.monotonic() > until:
            raise CompressError(f"{_named(missing)} did not begin within {_MEETING.total_seconds():.0f} seconds")
        time.sleep(0.02)
    for other in range(size()):
        process, host = shared.get(f"place/{other}").decode().split(" ", 1)
        _places[other] = int(process), host


def first() -> bool:
    """Return whether this process is the first that asks, of those that were started together: it has the word."""
    if size() < 2:
        return True
    try:
        return bool(store().add("said", 1) == 1)
    except Exception:  # the store has gone with its machine
        return True


def first_now() -> bool:
    """Return the same inside a signal's handler: before the store is open, rank 0 has the word."""
    return first() if _store is not None else rank() == 0


def is_loss(error: BaseException | None) -> bool:
    """Return whether an error says that the connection to another process is lost."""
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is None or size() < 2:
        return False
    while error is not None:
        signs = ("gloo", "nccl", "closed by peer", "reset by peer")
        if isinstance(error, distributed.DistError):
            return True
        if isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in signs):
            return True
        error = error.__cause__ or error.__context__
    return False


def loss(error: BaseException) -> CompressError:
    """Return what to say of a lost connection: which process is gone, where that can be known."""
    said = _gone()
    if not said:
        said = f"the processes lost their connection ({(str(error).splitlines() or [''])[0]})"
    return CompressError(f"{said}: all others end; --resume continues from the last checkpoint")


def _gone() -> str:
    """Return the processes that are gone, in words; empty where all still run."""
    here = socket.gethostname()
    until = time.monotonic() + _ENDING
    while True:
        gone = {other for other, (process, host) in _places.items() if host == here and not _runs(process)}
        if gone:
            return f"{_named(gone)} {'is' if len(gone) == 1 else 'are'} gone"
        if time.monotonic() > until:
            break
        time.sleep(0.05)
    elsewhere = {other for other, (_, host) in _places.items() if host != here}
    return f"a process on another machine is gone ({_named(elsewhere)})" if elsewhere else ""


def _named(ranks: set[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, sorted(ranks)))}"


def _runs(process: int) -> bool:
    """Return whether a process of this machine still runs; one that has ended and is not yet collected does not."""
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")


def leave(code: int) -> NoReturn:
    """End this process at once where others may wait for it: torch would wait for them when it is taken down."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if size() > 1:
        if rank() == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
            with contextlib.suppress(Exception):
                _wait_for_others()
        os._exit(code)
    sys.exit(code)


def _wait_for_others() -> None:
    """Wait a moment until all processes have asked: where no agent of torchrun has the store, it ends with rank 0."""
    until = time.monotonic() + _ENDING
    while store().add("said", 0) < size() and time.monotonic() < until:
        time.sleep(0.02)
