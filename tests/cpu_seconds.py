"""The CPU seconds that the tests took, by folder, with the processes that they started: printed at the end."""

import resource
import time
from collections import Counter
from collections.abc import Generator
from typing import Any

import pytest

START = "(start)"
"""All that is no test: imports and collection, of each worker and of the process that leads them."""


def cpu_seconds() -> float:
    """Of this process, and of all its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def folder(nodeid: str) -> str:
    """`contract` of `tests/contract/test_axes.py::...`; the file's name where it lies in `tests` itself."""
    parts = nodeid.partition("::")[0].split("/")
    return parts[1] if len(parts) > 1 else parts[0]


class CpuSeconds:
    """Counts in a process that runs tests; the process that leads pytest-xdist's workers adds up what they counted."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._spent: Counter[str] = Counter()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Count one test, its fixtures included."""
        before = cpu_seconds()
        try:
            return (yield)
        finally:
            self._spent[folder(item.nodeid)] += cpu_seconds() - before

    def pytest_sessionfinish(self) -> None:
        """Tell, as a worker, what was counted."""
        if hasattr(self._config, "workeroutput"):
            self._config.workeroutput["cpu_seconds"] = dict(self._spent)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Add what a worker has counted; of one that died nothing is known."""
        self._spent.update(getattr(node, "workeroutput", {}).get("cpu_seconds", {}))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the folders, the dearest first."""
        whole = cpu_seconds()
        self._spent[START] = whole - self._spent.total()
        terminalreporter.section(f"{whole:.0f} CPU seconds")
        shown = [f"{name} {seconds:.1f}" for name, seconds in self._spent.most_common() if seconds >= 0.05]
        terminalreporter.write_line(", ".join(shown))
