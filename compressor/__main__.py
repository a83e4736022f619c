"""`compress` and `python -m compressor`: ready for signals before anything large is imported."""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    sys.path.pop(0)  # the working directory, put there by `python -m`: a file in it would stand for a library

import contextlib
import os
import signal
from types import FrameType

from compressor import torchrun

_PROCESS = os.getpid()


def main() -> None:
    """Run the command line. SIGINT and SIGTERM end it in one line, unless a run in training has handlers of its own."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    from compressor.cli import main as run  # after the handlers: it takes a second

    run()


def _end(number: int, frame: FrameType | None) -> None:
    """End the process at once: a library that catches all exceptions would lose one that is raised here."""
    if os.getpid() == _PROCESS:  # a worker that was forked has nothing to say
        files = sys.modules.get("compressor.files")  # not imported yet: nothing has been written
        for path in tuple(getattr(files, "unfinished", ())):
            with contextlib.suppress(OSError):
                path.unlink()
        if torchrun.first_now():
            with contextlib.suppress(OSError):
                os.write(2, b"interrupted\n")
    os._exit(128 + number)


if __name__ == "__main__":
    main()
