"""docs/thinning.md has every classifier of torchvision, and those that must thin do."""

from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from benchmarks import thinning_table
from compressor.models import torchvision_models

PAGE = (Path(__file__).parents[2] / "docs" / "thinning.md").read_text(encoding="utf-8")
MUST_THIN = " ".join(
    (
        "resnet* wide_resnet* resnext* vgg* alexnet mobilenet_* densenet*",
        "googlenet squeezenet* efficientnet* mnasnet*",
    )
).split()


def rows() -> dict[str, list[str]]:
    """The table's rows: name -> the other cells."""
    lines = PAGE.partition(thinning_table.BEGIN)[2].partition(thinning_table.END)[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines if line.startswith("| ")]
    return {name: rest for name, *rest in cells[2:]}


def must_thin(name: str) -> bool:
    return any(fnmatchcase(name, family) for family in MUST_THIN)


def test_every_classifier_has_its_row() -> None:
    assert PAGE.count(thinning_table.BEGIN) == PAGE.count(thinning_table.END) == 1
    assert list(rows()) == list(torchvision_models.names())


@pytest.mark.parametrize("name", [name for name in torchvision_models.names() if must_thin(name)])
def test_a_network_that_must_thin_does(name: str) -> None:
    _, verdict, parameters, macs, difference, stays, *_ = rows()[name]
    assert verdict == "thins"
    assert float(difference.rpartition(",")[2]) <= thinning_table.EXACT
    assert stays == "nothing"
    for change in (parameters, macs):
        assert float(change.partition("(")[2].rstrip(")")) < 0.6


def test_no_network_is_refused_without_a_reason_or_crashes() -> None:
    for name, (_, verdict, *_) in rows().items():
        assert verdict == "nothing goes" or verdict.startswith(("thins", "refused: ")), name
        assert "DIFFERS" not in verdict, name
        assert "crashed" not in verdict, name
        assert verdict.removeprefix("refused: ").strip(), name


def test_what_the_table_says_of_a_small_network_is_so() -> None:
    found = thinning_table.line(thinning_table.attempt("squeezenet1_1"))
    assert [cell.strip() for cell in found.strip("| ").split(" | ")][1:4] == rows()["squeezenet1_1"][:3]
