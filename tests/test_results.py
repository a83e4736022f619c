"""docs/results.md and the records in the schedules' headers are what the JSON files of the runs say."""

import json
import re

import pytest

from benchmarks import reproduce
from benchmarks.rows import ROWS


def test_the_page_is_made_from_the_results() -> None:
    assert reproduce.records(), "there are no results"
    assert "<!-- papers -->" in reproduce.PAGE.read_text()
    assert reproduce.PAGE.read_text() == reproduce.page(), "run `make reproduce`"


def test_the_rows_of_the_readme_are_rows_of_the_page() -> None:
    readme = (reproduce.ROOT / "README.md").read_text()
    shown = [line for line in readme.splitlines() if re.search(r"\(`[\w-]+`\) \| ", line)]
    assert len(shown) >= 2
    assert set(shown) <= set(reproduce.table().splitlines())


def test_the_headers_and_claims_of_the_schedules_are_made_from_the_results() -> None:
    for path, text in reproduce.schedules():
        assert path.read_text() == text, f"{path}: run make reproduce"


@pytest.mark.parametrize("key", ROWS)
def test_every_stage_starts_from_one_of_its_row(key: str) -> None:
    row = ROWS[key]
    shown, begun = {row.result, *row.beside.values()}, {stage.init for stage in row.stages.values()} - {None}
    assert shown | begun == set(row.stages)


def test_rows_that_must_be_met_are_there() -> None:
    assert {key for key, row in ROWS.items() if row.met} <= set(reproduce.records())


@pytest.mark.parametrize("key", [key for key in reproduce.records() if ROWS[key].met])
def test_a_row_keeps_its_promise_over_its_seeds(key: str) -> None:
    made, row = reproduce.records()[key], ROWS[key]
    errors = [record["result"]["error"] for record in made]
    if row.paper is None:
        assert row.paired is not None
        assert all(record["result"]["error"] < record[row.paired]["error"] for record in made)
        assert all(record["result"]["parameters_left"] <= record[row.paired]["parameters_left"] for record in made)
        return
    assert len(errors) >= 3
    assert sum(errors) / len(errors) <= row.paper[0]
    assert min(reproduce.times(record["result"], "parameters") for record in made) >= row.paper[1]


def test_a_record_names_the_commands_that_made_it() -> None:
    for path in reproduce.RESULTS.glob("*.json"):
        record = json.loads(path.read_text())
        row = ROWS[record["row"]]
        for name, stage in row.stages.items():
            words = ["compress train", *reproduce.arguments(stage, record["seed"])]
            assert record["commands"][name] == " ".join(words)
