"""Every network of the zoo thins to its expected widths, computes the same, trains on, resumes and is exported."""

import pytest

from zoo.entry import Entry, entries
from zoo.harness import examine


@pytest.mark.parametrize("entry", entries().values(), ids=lambda entry: entry.name)
def test_network(entry: Entry) -> None:
    assert examine(entry).problems == []
