"""`make every-method`: trials without the test images, what is chosen of them, final runs, the table."""

import json
import re
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from helpers import compress, work  # noqa: F401

from benchmarks import every_method, every_method_table, launch
from benchmarks.every_method import Comparison, Method, Results, chosen
from benchmarks.recorded import between
from compressor.data import DataFeed

LAYERS = ("fc1", "fc2")
CONFIG = """\
model: {name: mlp, inputs: 64, hidden: [20]}
data: {name: digits, size: 8, images: 100, validation: 0.5, batch: 50}
optimizer: {name: sgd, lr: 0.05, momentum: 0.9}
epochs: 1
"""
DENSE = """\
version: 2
config: %s/lenet5.yaml
policies:
  - {lr_scheduler: {class: CosineAnnealingLR, T_max: 1}}
"""
PRUNE = """\
version: 2
config: %s/lenet5.yaml
pruners:
  agp: {class: Pruner, criterion: l1, scope: layer, weights: '*', rate: {sparsity: 0.9}}
policies:
  - {pruner: {instance_name: agp}, epochs: [0]}
"""
SHUFFLED = "version: 2\nconfig: %s/lenet5.yaml\npruners:\n" + "".join(
    f"  {layer}: {{class: Pruner, criterion: random, weights: {layer}.weight, rate: {{agp: {{initial_sparsity: 0.0,"
    f" final_sparsity: 0.5}}}}}}\n"
    for layer in LAYERS
)
SHUFFLED += "policies:\n" + "".join(f"  - {{pruner: {{instance_name: {layer}}}, epochs: [0]}}\n" for layer in LAYERS)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[str]]:
    """Return a folder, and the commands as they come: one pruner with one rate that is too high among two, its shuffled
    control, one way to prune filters.
    """

    def train(*words: str) -> int:
        calls.append(" ".join(words))
        return int(compress(*words).code)

    calls = list[str]()
    for name, text in (("dense", DENSE), ("prune", PRUNE), ("shuffled", SHUFFLED)):
        (tmp_path / f"{name}.yaml").write_text(text % tmp_path)
    (tmp_path / "lenet5.yaml").write_text(CONFIG)
    filters = "schedule.pruners.agp."
    methods = {
        "dense": Method("nothing pruned", "dense"),
        "magnitude": Method("magnitude", "prune", every_method._set(f"{filters}rate.sparsity")),
        "shuffled": Method("shuffled", "shuffled", like="magnitude"),
    }
    structured = {
        "filters": Method(
            "filters",
            "prune",
            lambda point: (f"{filters}rate={{macs: {point}}}",),
            fixed=(f"{filters}structure=Rows", f"{filters}weights=fc1.weight"),
        )
    }
    settings = {
        "HERE": str(tmp_path),
        "ROOT": tmp_path,
        "RUNS": tmp_path / "runs",
        "SEEDS": (0,),
        "LAYERS": LAYERS,
        "RATES": (1e30, 0.05),
        "SPARSITIES": {0.75: "75 %"},
        "MACS": {0.5: "50 %"},
        "FILTERS": structured,
        "ELEMENTS": {"magnitude": methods["magnitude"], "shuffled": methods["shuffled"]},
        "METHODS": {**methods, **structured},
    }
    for name, value in settings.items():
        monkeypatch.setattr(every_method, name, value)
        if hasattr(every_method_table, name):
            monkeypatch.setattr(every_method_table, name, value)
    monkeypatch.setattr(launch, "compress", train)
    monkeypatch.setattr(every_method_table, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(every_method_table, "PICTURE", tmp_path / "picture.svg")
    (tmp_path / "page.md").write_text("before\n<!-- every method -->\n<!-- end of every method -->\nafter\n")
    return tmp_path, calls


def test_trials_choose_on_validation_images_and_final_runs_are_made_once(small: tuple[Path, list[str]]) -> None:
    folder, calls = small
    results = Results(folder / "found.json")
    old = {"validation": 0.0, "left": 0.25, "rate": 0.3, "strength": None}  # of a rate that is not in the list any more
    results.trials["base, rate 0.3"] = {"method": "base", "point": None, **old}
    results.trials["magnitude, point 0.75, rate 0.3"] = {"method": "magnitude", "point": 0.75, **old}
    with (
        mock.patch.object(DataFeed, "test", side_effect=AssertionError("the test images were asked for")),
        mock.patch.object(every_method, "SEEDS", ()),
    ):
        Comparison(results, None, 1).run()
    high = ("base", "dense, point 0", "magnitude, point 0.75", "shuffled, point 0.75", "filters, point 0.5")
    assert {name for name, one in results.trials.items() if "failed" in one} == {f"{one}, rate 1e+30" for one in high}
    assert len(results.trials) == 2 * len(high) + 2
    assert len(calls) == 2 * len(high)  # the dense network that they begin with is not started again
    assert not results.finals
    assert all("error" not in one for one in results.trials.values())

    Comparison(results, None, 1).run()
    assert json.loads((folder / "found.json").read_text()) == {"trials": results.trials, "finals": results.finals}
    assert len(results.trials) == 2 * len(high) + 2
    dense, pruned, mixed, filters = (
        results.finals[f"{name}, seed 0"] for name in ("dense, 0", "magnitude, 0.75", "shuffled, 0.75", "filters, 0.5")
    )
    assert len(results.finals) == 4
    assert dense["left"] == 1
    assert pruned["left"] == pytest.approx(0.25, abs=1e-3)
    assert mixed["layers"] == pytest.approx(pruned["layers"], abs=1e-3)
    assert 0.4 < filters["left"] <= 0.5
    assert filters["times_as_fast"] > 0

    before = len(calls)
    Comparison(Results(folder / "found.json"), None, 1).run()
    assert len(calls) == before  # not even the dense networks
    name = "magnitude, 0.75, seed 0"
    results.finals[name] = {**pruned, "rate": 0.3}  # as if another rate had been chosen before
    Comparison(results, None, 1).run()
    assert results.finals[name] == pruned

    every_method_table.write(results.trials, results.finals)
    page = (folder / "page.md").read_text()
    assert page.startswith("before\n<!-- every method -->\n")
    assert page.endswith("\n<!-- end of every method -->\nafter\n")
    cells = dict(re.findall(r"^\| (\w+) \| \*?\*?(\d+\.\d\d) ± 0\.00", page, re.MULTILINE))
    errors = {"magnitude": pruned, "shuffled": mixed, "filters": filters}
    assert cells == {name: f"{found['error']:.2f}" for name, found in errors.items()}
    assert f"\n{2 * len(high)} trials: " in page
    assert "Diverged: base, rate 1e+30; " in page
    assert "<svg role" in (folder / "picture.svg").read_text()


def tried(validation: float, left: float, rate: float = 0.02, point: float | None = None) -> dict[str, Any]:
    return {"validation": validation, "left": left, "rate": rate, "point": point}


def test_of_a_method_with_a_target_the_lowest_validation_error_at_the_point_is_chosen() -> None:
    made = [tried(1.0, 0.1, 0.05, 0.9), tried(1.0, 0.1, 0.02, 0.9), tried(0.5, 0.2, 0.02, 0.8)]
    assert chosen("agp", 0.9, made)["rate"] == 0.02
    assert chosen("agp", 0.8, made)["validation"] == 0.5


def test_of_a_method_without_a_target_those_count_that_came_near_the_point() -> None:
    made = [tried(1.0, 0.12), tried(2.0, 0.1009), tried(3.0, 0.08), tried(1.5, 0.076), tried(0.1, 0.07)]
    assert chosen("l0", 0.9, made)["validation"] == 1.5  # 0.12 prunes too little, 0.07 too much: 0.075 to 0.101
    assert chosen("l0", 0.98, made)["validation"] == 0.1  # none came near: the nearest


def test_what_is_alike_is_within_two_standard_errors_of_the_difference_seed_by_seed() -> None:
    # differences 0.1, 0.2, 0.3: deviation 0.1, twice its standard error 0.1155; the seeds' own spread does not matter
    lowest = (0.8, 1.0, 5.0)
    assert not every_method_table.alike((0.9, 1.2, 5.3), lowest)
    assert every_method_table.alike((0.8, 1.1, 5.2), lowest)  # 0.1 more


def test_every_method_has_as_many_trials_for_each_operating_point() -> None:
    for name in every_method.METHODS:
        assert len(every_method.trials(name)) == 4 * len(every_method.points(name)), name


def test_the_page_is_made_from_the_results() -> None:
    results = Results(every_method.FILE)
    assert every_method.asked() == set(results.trials)
    page, marks = every_method_table.PAGE, every_method_table.MARKS
    assert page.read_text() == between(page, marks, every_method_table.text(results.trials, results.finals))
