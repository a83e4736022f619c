"""Start `compress` in a process of its own, forked from one that has imported torch: some seconds less for each run."""

import multiprocessing
import os
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMPORTED = ["torch._dynamo", "torchvision", "compressor.experiment.training_run", "compressor.experiment.drawing"]
IMPORTED += ["benchmarks.reproduce"]  # each child imports what `python -m` started, too: what that needs is there then


def compress(*words: str) -> int:
    """Run one command from the repository's root with one thread; return its exit code."""
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    process = context.Process(target=_main, args=(words,))
    process.start()
    process.join()
    return process.exitcode or 0


def _main(words: Sequence[str]) -> None:
    os.chdir(ROOT)
    sys.argv = ["compress", *words]
    from compressor.cli import main

    main()
