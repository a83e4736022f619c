"""The benchmarks' own rules: turns, verdicts, rows that stay when the rest is cut off. No figure is measured here."""

import json
import os
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks import bench, components, gpu, growth, measuring, recorded
from benchmarks.measuring import Figure, take_turns

ROOT = Path(__file__).parents[1]


def test_variants_take_turns_in_an_order_that_rotates() -> None:
    called: list[str] = []
    ticks = iter(range(100))
    steps = {name: (lambda name=name: called.append(name)) for name in ("a", "b", "c")}
    taken = take_turns(steps, 2, 2, clock=lambda: float(next(ticks)))
    assert called == ["a", "b", "c", *"aabbcc", *"bbccaa"]
    assert taken == {"a": [0.5, 0.5], "b": [0.5, 0.5], "c": [0.5, 0.5]}  # one tick for two calls


def test_a_ratio_is_the_median_of_the_blocks_own_ratios() -> None:
    assert measuring.ratio([2.0, 30.0, 8.0], [1.0, 10.0, 2.0]) == 3.0


@pytest.mark.parametrize(
    ("figure", "said"),
    [
        (Figure("a", 1.2), ""),
        (Figure("a", 1.01, budget=1.01), "met"),
        (Figure("a", 1.03, budget=1.01), "not met: the floor"),
        (Figure("b", 1.03, budget=1.01), "not met: not explained yet"),
        (Figure("a", 1.03, budget=1.01, again=0.97), "met within the noise"),
        (Figure("a", 0.99, budget=0.98, at_least=True), "met"),
        (Figure("a", 0.90, budget=0.98, at_least=True, again=1.02), "not met: the floor"),
    ],
)
def test_a_budget_is_met_or_not(figure: Figure, said: str) -> None:
    assert recorded.verdict(figure, {"a": "the floor"}) == said


def test_other_processes_are_what_is_busy_without_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([(100.0, 10.0, 0.0), (108.0, 13.0, 10.0)])  # 8 s of CPU, 3 of them ours, in 10 s
    monkeypatch.setattr(measuring, "_busy", lambda: next(readings))
    assert measuring.Load().others() == 0.5


def test_a_cost_that_rises_by_weight_is_not_linear() -> None:
    def rise(second: float, last: float, again: float = 0.1) -> Figure:
        return growth._rise("masks", [growth.Cost("", value, "ns", again) for value in (9.0, second, last)])

    flat, cliff, noisy = rise(0.2, 0.25), rise(0.2, 1.9), rise(-57.0, 1.2, -1.0)
    assert (flat.value, flat.note.split(":")[0]) == (pytest.approx(1.25), "linear")
    assert (cliff.value, cliff.note) == (pytest.approx(9.5), "the cost of one rises")
    assert recorded.verdict(cliff, {}).startswith("not met")
    assert noisy.value == pytest.approx(1.2)  # beside a noise of 1


def test_a_figure_of_growth_is_drawn_at_its_number() -> None:
    assert growth._count(Figure("AGP, masks every mini-batch, 10^5 weights", 1.0)) == 1e5
    assert growth._count(Figure("L1 penalties, 100 policies", 1.0)) == 100
    svg = growth.picture(
        {"tensors": [Figure("m, 1 tensors", 2.0, "us a tensor"), Figure("m, 10 tensors", 1.0, "us a tensor")]}
    )
    assert svg.count("us a tensor") == 1


def test_every_registered_component_is_measured() -> None:
    from rig import all_components

    measured = {f"{section}.{name}" for section in components.SECTIONS for name in components.in_section(section)}
    assert measured == set(all_components())


def test_the_rounds_of_two_ranks_are_read_from_its_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = """\
round 1: images/s: one 500, two ranks 900, two runs 990; two ranks: 1.80 x one, 0.91 of two runs; others used 0.02 cores
round 2: images/s: one 500, two ranks 600, two runs 990; two ranks: 1.20 x one, 0.61 of two runs; others used 0.50 cores
2 of 2 rounds reach 1.7 x one process, or 0.85 of two runs
"""
    ended = subprocess.CompletedProcess([], 0, lines)
    monkeypatch.setattr(subprocess, "run", lambda *words, **settings: ended)
    figures, _ = bench._two_ranks(bench.SHORT)
    assert [(figure.value, recorded.verdict(figure, {})) for figure in figures] == [
        (1.80, ""),  # 0.91 of what two runs reach is enough
        (1.20, "not met: not explained yet"),
    ]


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, int]:
    """Two rows in place of all: how often each was measured; the second fails at first."""
    counts = {"one": 0, "two": 0}

    def measure(key: str) -> bench.Found:
        counts[key] += 1
        if key == "two" and counts[key] == 1:
            raise RuntimeError("no memory")
        return [Figure(f"figure {key}", 0.5, budget=1.0)], ["a peer"]

    made = {key: bench.Row(f"row {key}", lambda size, key=key: measure(key)) for key in counts}
    monkeypatch.setattr(bench, "ROWS", made)
    monkeypatch.setattr(bench, "QUICK", tmp_path / "quick")
    monkeypatch.setattr(bench, "BEFORE", 0.0)
    return counts


def run_bench(monkeypatch: pytest.MonkeyPatch, *words: str) -> Any:
    monkeypatch.setattr(sys, "argv", ["bench", "--quick", *words])
    try:
        bench.main()
    except SystemExit as ended:
        return ended.code
    return None


def test_rows_that_were_finished_stay_and_are_not_measured_again(
    rows: dict[str, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert run_bench(monkeypatch) == "failed: two"
    assert set(recorded.read(tmp_path / "quick" / "benchmarks.json")) == {"one"}
    assert run_bench(monkeypatch) is None
    assert rows == {"one": 1, "two": 2}
    assert run_bench(monkeypatch, "--only", "one") is None
    assert rows == {"one": 2, "two": 2}
    table = (tmp_path / "quick" / "benchmarks.md").read_text()
    assert "| figure two | 0.500 |  | 1.000 | met |" in table
    assert "| a peer | | | | left out |" in table
    assert table.index("row one") < table.index("row two")


def test_a_row_that_does_not_exist_is_named(rows: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_bench(monkeypatch, "--only", "three") == "no row 'three': there are one, two"


def test_the_table_of_the_page_is_made_from_the_file() -> None:
    page = bench.PAGE.read_text()
    assert bench.MARKS[0] in page
    assert gpu.MARKS[0] in page
    saved = recorded.read(bench.FOLDER / "benchmarks.json")
    if saved:
        assert recorded.between(bench.PAGE, bench.MARKS, bench.text_of(saved)) == page, "run `make bench`"


def test_of_a_row_that_is_cut_off_the_figures_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gpu.SECONDS, "step", 0.2)
    results = gpu.Results(tmp_path, smoke=False)

    def figures() -> Iterator[Figure]:
        yield Figure("first", 1.0)
        time.sleep(5)
        yield Figure("second", 1.0)

    assert results.run("step", figures) == "cut off after 0.2 s"
    assert results.run("throughput", lambda: iter([Figure("third", 1.0)])) == ""
    saved = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert [figure["what"] for row in saved.values() for figure in row["figures"]] == ["first", "third"]
    assert saved["step"]["left_out"] == ["cut off after 0.2 s"]


def test_the_rows_of_the_gpu_take_less_than_eight_minutes() -> None:
    assert set(gpu.SECONDS) == set(gpu.TITLES)
    assert sum(gpu.SECONDS.values()) <= gpu.WHOLE < 460


def test_the_trainings_share_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    results = gpu.Results(tmp_path, smoke=False)
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0 + gpu.WHOLE - 200.0)
    assert [results.limit(key) for key in ("step", "dense", "l0")] == [60, 50, 200]
    monkeypatch.setattr(time, "monotonic", lambda: 2000.0)
    assert results.limit("dense") == 36


def test_the_schedules_of_the_trainings_fit_their_network() -> None:
    import rig

    from benchmarks import gpu_rows
    from compressor import models
    from compressor.schedule.faults import Faults

    network, faults = models.build("resnet20_cifar", num_classes=10), Faults()
    for key in gpu.TRAININGS:
        bound = rig.read(gpu_rows.schedule_of(key, 10)).bind(network, 10, faults)
        faults.raise_any()
        assert len(bound.policies) == (1 if key == "dense" else 2)


def test_wheels_of_the_folder_can_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", "")
    with zipfile.ZipFile(tmp_path / "brought-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("brought_along.py", "ANSWER = 3\n")
    gpu.unpack(tmp_path)
    import brought_along

    assert brought_along.ANSWER == 3


def processed(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **settings}
    return subprocess.run([sys.executable, "-m", *words], cwd=ROOT, env=environment, capture_output=True, text=True)


FULL = pytest.mark.skipif("BENCH" not in os.environ, reason="minutes long: BENCH=1, as in `make test-full`")


@FULL
@pytest.mark.slow
def test_the_gpu_script_runs_here(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "cifar10-jpeg.tar.gz", "w:gz") as archive:
        for part in ("train", "test"):
            for number in range(40):
                file = tmp_path / f"{number}.jpg"
                Image.new("RGB", (32, 32), (6 * number, 90, 255 - 6 * number)).save(file)
                archive.add(file, f"{part}/class{number % 10}/{number:04}.jpg")
    ended = processed("benchmarks.gpu", "--smoke", "--files", str(tmp_path), "--out", str(tmp_path / "out"))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    saved = recorded.read(tmp_path / "out" / "gpu.json")
    assert set(saved) == set(gpu.SECONDS)
    assert all(row["figures"] and not row["left_out"] for row in saved.values()), ended.stdout


@FULL
@pytest.mark.slow
def test_the_short_form_of_the_benchmarks_runs() -> None:
    some = ["step-no-policy", "all-gates", "start", "trainer", "packed", "tensors", "memory"]
    ended = processed("benchmarks.bench", "--quick", "--only", ",".join(some))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    saved = recorded.read(bench.QUICK / "benchmarks.json")
    assert set(some) <= set(saved)
    assert all(saved[key]["figures"] and saved[key]["quick"] for key in some)
