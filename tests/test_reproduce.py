"""`make reproduce`: a row's runs, what is recorded of them, and tuning without the test images."""

import json
import sys
from pathlib import Path
from unittest import mock

import pytest
from helpers import compress, work  # noqa: F401

from benchmarks import launch, reproduce
from benchmarks.rows import Row, Stage
from compressor.data import DataFeed

QUICK = (
    *("epochs=1", "model.hidden=[16]", "model.dropout=[0.0]", "model.inputs=64"),
    *("data.size=8", "data.batch=64", "data.validation=0"),
)
PRUNE = """\
version: 2
pruners:
  half: {class: Pruner, criterion: l1, structure: Rows, weights: fc1.weight, rate: {sparsity: 0.5}}
policies:
  - {pruner: {instance_name: half}, epochs: [0]}
"""
DENSE, HALF = Stage(None, "mlp_digits", QUICK), Stage("half", "mlp_digits", QUICK, "base")
ROW = Row(
    "Half", "pruned", {"reference": "base"}, {"base": DENSE, "pruned": HALF}, kept="structure", paired="reference"
)
WEIGHTS, LEFT, THIN = 64 * 16 + 16 * 10, 64 * 8 + 16 * 10, 64 * 8 + 8 * 10
"""Dense; where half of the hidden units have no inputs; where they are removed."""


@pytest.fixture
def row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for results and runs, with one row of two small runs that are trained in this process."""

    def train(*words: str) -> int:
        result = compress(*words)
        assert result.code == 0, result.err
        return 0

    (tmp_path / "half.yaml").write_text(PRUNE)
    monkeypatch.setattr(launch, "compress", train)
    monkeypatch.setattr(reproduce, "ROWS", {"half": ROW})
    monkeypatch.setattr(reproduce, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(reproduce, "schedules", list)
    reproduce.PAGE.write_text("<!-- papers -->\n<!-- end of papers -->\n")
    for name in ("RESULTS", "RUNS", "TUNING", "CHECKS"):
        monkeypatch.setattr(reproduce, name, tmp_path / name.lower())
    return tmp_path


def test_a_result_has_errors_counts_macs_speed_and_the_digest_of_its_schedule(row: Path) -> None:
    reproduce.run("half", 0, None)
    record = json.loads((row / "results" / "half-seed0.json").read_text())
    result, reference = record["result"], record["reference"]
    assert (result["weights"], result["weights_left"], reference["weights_left"]) == (WEIGHTS, LEFT, WEIGHTS)
    assert (result["parameters"], result["parameters_left"]) == (
        WEIGHTS + 26,
        LEFT + 26 - 8,
    )  # a unit goes with its bias
    assert 0 < result["error"] < 100
    assert (result["macs"], result["macs_left"]) == (WEIGHTS, THIN)
    assert result["times_as_fast"] > 0
    assert record["commands"]["pruned"].startswith("compress train --schedule half --config mlp_digits --set epochs=1 ")
    assert len(record["commit"]) >= 10
    line = reproduce._line("half", [record])
    assert f"reference {reference['error']:.2f}; less reference: {result['error'] - reference['error']:+.2f}" in line
    assert "0.00118 M MACs -> 0.000592 M, " in line

    assert reproduce.stale("half") == []
    again(row)
    assert json.loads((row / "results" / "half-seed0.json").read_text()) == record  # it was not run again
    (row / "half.yaml").write_text(PRUNE.replace("0.5", "0.25"))
    assert reproduce.stale("half") == [0]
    again(row)
    left = json.loads((row / "results" / "half-seed0.json").read_text())["result"]["weights_left"]
    assert left == LEFT + 64 * 4
    assert "(`half`)" in (row / "page.md").read_text()


def again(row: Path) -> None:
    """Call `make reproduce AGAIN=1`."""
    with mock.patch.object(sys, "argv", ["reproduce", "--again"]):
        reproduce.main()


@pytest.mark.parametrize(("others", "agrees"), [((0.0, 1.0), True), ((30.0, 31.0), False)])
def test_a_recorded_row_is_run_again_and_judged_by_the_spread_of_its_seeds(
    row: Path, others: tuple[float, float], agrees: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    reproduce.run("half", 0, None)
    path = row / "results" / "half-seed0.json"
    record = json.loads(path.read_text())
    error = record["result"]["error"]
    for seed, more in enumerate(others, start=1):  # 0.5 and 30.5 above on average; the interval is +- 11
        other = {**record, "seed": seed, "result": {**record["result"], "error": error + more}}
        path.with_name(f"half-seed{seed}.json").write_text(json.dumps(other))
    path.unlink()
    capsys.readouterr()
    with mock.patch.object(sys, "argv", ["reproduce", "--check"]), pytest.raises(SystemExit) as ended:
        reproduce.main()
    assert ended.value.code == (0 if agrees else 1)
    [said] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("half, seed 0, result: ")]
    verdict = "agrees" if agrees else "DIFFERS"
    assert f" error {error:.2f} %, recorded {error + others[0]:.2f}, {error + others[1]:.2f}: {verdict}; " in said
    assert len(list((row / "checks").glob("*-seed0"))) == 2
    assert not path.exists()  # nothing was recorded
    assert (row / "page.md").read_text() == "<!-- papers -->\n<!-- end of papers -->\n"


def test_tuning_looks_at_no_test_image_and_each_variant_has_a_folder(
    row: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with mock.patch.object(DataFeed, "test", side_effect=AssertionError("the test images were asked for")):
        reproduce.tune("half", 0, None, ())
        reproduce.tune("half", 0, None, ["optimizer.lr=0.01"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("half, seed 0, ")]
    assert [line.split(", ")[2].partition(":")[0] for line in lines] == ["result", "reference"] * 2
    assert all("validation error " in line for line in lines)
    assert len(list((row / "tuning").glob("base-*"))) == 1
    assert len(list((row / "tuning").glob("pruned-*"))) == 2
    assert not (row / "results").exists()


def test_the_interval_of_paired_differences_is_student_s() -> None:
    made = [{"result": {"error": one}, "control": {"error": 1.0}} for one in (1.1, 1.2, 1.3)]
    # mean 0.2, deviation 0.1, t(0.975; 2) = 4.3027: 0.2 -+ 4.3027 * 0.1 / sqrt(3)
    assert reproduce._paired(made, "control") == "less control: +0.20 (+0.10, +0.20, +0.30; -0.05 to +0.45)"
    assert reproduce._paired(made[:2], "control") == "less control: +0.15 (+0.10, +0.20)"
