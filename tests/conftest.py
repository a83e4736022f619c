"""What the tests of schedules share: a schedule's text read, bound to a small model, and its events fired."""

from collections.abc import Callable

import pytest

from compressor.schedule import grammar
from compressor.schedule.document import Document, parse
from compressor.schedule.faults import Faults


@pytest.fixture
def parsed() -> Callable[[str], tuple[Document, list[str]]]:
    """`parsed(text)`: the document, called `s.yaml`, and the lines of its faults."""

    def read(text: str) -> tuple[Document, list[str]]:
        faults = Faults()
        document = parse("s.yaml", text, faults)
        return document, faults.lines

    return read


@pytest.fixture
def faults_of() -> Callable[[str], list[str]]:
    """`faults_of(text)`: one line for everything that is wrong in a schedule, called `s.yaml`."""

    def read(text: str) -> list[str]:
        faults = Faults()
        grammar.read(parse("s.yaml", text, faults), faults)
        return faults.lines

    return read


@pytest.fixture
def schedule_of() -> Callable[[str], grammar.Schedule]:
    """`schedule_of(text)`: the schedule; its faults raise."""

    def read(text: str) -> grammar.Schedule:
        faults = Faults()
        schedule = grammar.read(parse("s.yaml", text, faults), faults)
        faults.raise_any()
        return schedule

    return read
