"""SIGINT and SIGTERM while something runs that should end in order."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Stop = Callable[[], int | None]
"""Returns the first signal that came; None while none has."""


@contextmanager
def noted(*, ignored_after_errors: bool = False) -> Iterator[Stop]:
    """Note the first SIGINT or SIGTERM inside the block; a second one ends the process at once.

    `ignored_after_errors`: where the block raises, all later signals are ignored, so that its message is shown.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        signal.signal(number, signal.SIG_DFL)

    def stop() -> int | None:
        return came[0] if came else None

    if threading.current_thread() is not threading.main_thread():  # there signals cannot be handled
        yield stop
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    except BaseException:
        if ignored_after_errors:
            before = dict.fromkeys(before, signal.SIG_IGN)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
