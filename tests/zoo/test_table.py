"""docs/thinning.md has every network of the zoo, and what it says of a network is so."""

from pathlib import Path

from benchmarks import zoo_table
from zoo.entry import entries
from zoo.harness import examine

PAGE = (Path(__file__).parents[2] / "docs" / "thinning.md").read_text(encoding="utf-8")
TABLE = PAGE.partition(zoo_table.BEGIN)[2].partition(zoo_table.END)[0].strip().splitlines()


def test_every_network_has_its_row_and_none_fails() -> None:
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")][:3] for line in TABLE[4:]]
    assert rows == [[entry.name, entry.kind, entry.verdict] for entry in entries().values()]


def test_at_least_80_of_100_thin() -> None:
    thin = [entry for entry in entries().values() if entry.widths]
    assert TABLE[0].startswith(f"{len(thin)} of {len(entries())} thin: ")
    assert len(thin) >= max(80, 0.8 * len(entries()))


def test_the_rows_are_what_is_found() -> None:
    for name in ("FlattenedRest", "PartialConvolution"):
        entry = entries()[name]
        assert zoo_table.line(entry, examine(entry)) in TABLE
