"""docs/results.md and the records in the schedules' headers are what the JSON files of the runs say."""

import json

import pytest

from benchmarks import reproduce
from benchmarks.rows import ROWS


def test_the_page_is_made_from_the_results() -> None:
    assert reproduce.records(), "there are no results"
    assert (reproduce.ROOT / "docs" / "results.md").read_text() == reproduce.table()


def test_the_headers_of_the_schedules_are_made_from_the_results() -> None:
    for path, text in reproduce.headers():
        assert path.read_text() == text, f"{path}: run make reproduce"


@pytest.mark.parametrize("key", ROWS)
def test_every_stage_starts_from_one_of_its_row(key: str) -> None:
    row = ROWS[key]
    assert {row.result, row.reference, row.control} - {None} <= set(row.stages)
    assert {stage.init for stage in row.stages.values()} - {None} <= set(row.stages)


@pytest.mark.parametrize("key", reproduce.records())
def test_a_row_keeps_its_promise_over_its_seeds(key: str) -> None:
    made = reproduce.records()[key]
    errors = [record["result"]["error"] for record in made]
    assert len(errors) >= 3
    assert sum(errors) / len(errors) <= ROWS[key].paper_error
    assert min(reproduce.times(record["result"], "parameters") for record in made) >= ROWS[key].paper_times


def test_a_record_names_the_commands_that_made_it() -> None:
    for path in reproduce.RESULTS.glob("*.json"):
        record = json.loads(path.read_text())
        row = ROWS[record["row"]]
        for name, stage in row.stages.items():
            words = ["compress train", *reproduce.arguments(stage, record["seed"])]
            assert record["commands"][name] == " ".join(words)
