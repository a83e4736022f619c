"""Two processes that train one network together, started once for all tests; what they do is in `two_processes`."""

import importlib
import multiprocessing
import os
import traceback
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

SIZE, PATIENCE = 2, 900


class Pair:
    """The two processes. `ask` calls a function, as `module.name`, in both, and each answers."""

    def __init__(self, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._lines: list[Any] = []
        self._processes: list[Any] = []
        self._late = ""
        for rank in range(SIZE):
            mine, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, str(folder / "store"), theirs), daemon=True)
            process.start()
            theirs.close()
            self._lines.append(mine)
            self._processes.append(process)

    def ask(self, which: str, *args: Any, **named: Any) -> list[Any]:
        """The answers of both. Raises `AssertionError` with the traceback of one that failed."""
        assert not self._late, f"{self._late}: the answers that come now are not those of {which}"
        for line in self._lines:
            line.send((*which.split("."), args, named))
        answers: dict[int, Any] = {}
        failed: list[str] = []
        while len(answers) < SIZE:
            waiting = [line for rank, line in enumerate(self._lines) if rank not in answers]
            ready = wait(waiting, 10 if failed else PATIENCE)  # the other one may wait for one that failed
            if not ready:
                self._late = "\n".join([*failed, f"{which}: no answer"])
                raise AssertionError(self._late)
            for line in ready:
                worked, answer = line.recv()  # type: ignore[union-attr]
                answers[self._lines.index(line)] = answer
                failed += [] if worked else [answer]
        assert not failed, "\n".join(failed)
        return [answers[rank] for rank in range(SIZE)]

    def close(self) -> None:
        """End both."""
        for line in self._lines:
            line.close()
        for process in self._processes:
            process.join(5)
            process.kill()


def _serve(rank: int, store: str, line: Connection) -> None:
    """Answer until the line is closed."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=SIZE, timeout=timedelta(seconds=PATIENCE)
    )
    try:
        while True:
            where, name, args, named = line.recv()
            try:
                answer = True, getattr(importlib.import_module(where), name)(*args, **named)
            except Exception:
                answer = False, f"rank {rank}: {traceback.format_exc()}"
            line.send(answer)
    except EOFError:
        os._exit(0)  # without waiting for the other one
