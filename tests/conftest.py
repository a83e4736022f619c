"""What the tests of schedules share: a schedule's text read, bound to a small model, and its events fired.

torch and what needs it is imported by the fixtures: the process that leads pytest-xdist's workers needs neither.
"""

import gc
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from cpu_seconds import CpuSeconds
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from run_of import Run

    from compressor.schedule.document import Document
    from compressor.schedule.grammar import Schedule


# Seconds on a busy machine say nothing about the code: no example fails because it took long.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


def pytest_configure(config: pytest.Config) -> None:
    """Print at the end what the tests cost."""
    config.pluginmanager.register(CpuSeconds(config))


def pytest_collection_finish() -> None:
    """Keep the garbage collector from passing again and again over what was imported and collected."""
    gc.freeze()
    gc.set_threshold(10_000)


@pytest.fixture(scope="session", autouse=True)
def _no_terminal() -> None:
    """Let tables have all their columns: pytest-xdist gives its workers the width of a terminal."""
    os.environ.pop("COLUMNS", None)


@pytest.fixture(scope="session", autouse=True)
def _brief_latency() -> None:
    """Measure latency in a few rounds: its statistics have tests of their own, by given samples."""
    from compressor.reports import latency

    latency._SECONDS, latency._ROUNDS_AT_LEAST = 0.0, 3


@pytest.fixture
def parsed() -> "Callable[[str], tuple[Document, list[str]]]":
    """`parsed(text)`: the document, called `s.yaml`, and the lines of its faults."""
    from compressor.schedule.document import parse
    from compressor.schedule.faults import Faults

    def read(text: str) -> "tuple[Document, list[str]]":
        faults = Faults()
        document = parse("s.yaml", text, faults)
        return document, faults.lines

    return read


@pytest.fixture
def faults_of() -> Callable[[str], list[str]]:
    """`faults_of(text)`: one line for everything that is wrong in a schedule, called `s.yaml`."""
    return lambda text: _read(text)[1].lines


@pytest.fixture
def schedule_of() -> "Callable[[str], Schedule]":
    """`schedule_of(text)`: the schedule; its faults raise."""

    def read(text: str) -> "Schedule":
        schedule, faults = _read(text)
        faults.raise_any()
        return schedule

    return read


def _read(text: str) -> Any:
    from compressor.schedule import grammar
    from compressor.schedule.document import parse
    from compressor.schedule.faults import Faults

    faults = Faults()
    return grammar.read(parse("s.yaml", text, faults, repeats=True), faults), faults


@pytest.fixture
def run_of(schedule_of: "Callable[[str], Schedule]") -> "Callable[..., Run]":
    """`run_of(text, model, epochs=4, steps=1, lr=0.1, momentum=0.0)`: a run of a schedule, with SGD."""
    from run_of import make

    return lambda text, model, *args, **settings: make(schedule_of(text), model, *args, **settings)
