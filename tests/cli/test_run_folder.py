"""What a run leaves behind, and that eval and report say the same as the run did."""

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml
from helpers import Result, compress, metrics, saved, succeed

from compressor.reports.report import Report, Totals
from compressor.sparsity.summary import WeightSummary

FILES = {
    *("schedule.yaml", "config.yaml", "metrics.jsonl", "checkpoint.pt", "checkpoint.1.pt", "best.pt"),
    *("sparsity.csv", "sparsity.json", "log.txt", ".lock", "environment.json"),
    *("layers.jsonl", "figures.json"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A finished run of the tiny schedule, and what the command said."""
    from helpers import write_tiny

    folder = tmp_path_factory.mktemp("run")
    write_tiny(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = compress("train", "-s", "prune")
    assert result.code == 0, result.err
    return folder / "runs" / "prune-tiny-1", result


def test_runs_are_numbered_by_schedule_and_config(work: Path) -> None:
    for _ in range(2):
        assert compress("train", "-s", "prune").code == 0
    assert compress("train", "-s", "prune", "-c", "tiny", "--set", "seed=1").code == 0
    assert sorted(path.name for path in (work / "runs").iterdir()) == [f"prune-tiny-{n}" for n in (1, 2, 3)]


def test_a_run_leaves_exactly_its_files(run: tuple[Path, Result]) -> None:
    folder, result = run
    assert {path.name for path in folder.iterdir()} == FILES
    assert "runs/prune-tiny-1" in result.out.splitlines()[-1]
    assert result.err == ""


def test_a_dense_training_needs_no_schedule(work: Path) -> None:
    out = succeed("train", "--config", "tiny")
    [folder] = (work / "runs").iterdir()
    assert folder.name.endswith("-tiny-1")
    assert {path.name for path in folder.iterdir()} == FILES - {"schedule.yaml"}
    assert f"runs/{folder.name}" in out
    assert [line["sparsity"] for line in metrics(folder)] == [0.0] * 4
    assert [set(line["losses"]) for line in metrics(folder)] == [{"data"}] * 4
    assert metrics(folder)[-1]["val"]["top1"] > 80  # it learned


def test_metrics_have_a_line_an_epoch_with_the_keys_of_the_readme(run: tuple[Path, Result]) -> None:
    folder, _ = run
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2, 3]
    for line in lines:
        assert list(line) == ["epoch", "train", "val", "losses", "lr", "sparsity", "sparsity_all", "seconds"]
        assert list(line["train"]) == list(line["val"]) == ["loss", "top1", "top5"]
        assert set(line["losses"]) == {"data", "shrink"}
        assert line["losses"]["data"] == line["train"]["loss"]
        assert 0 <= line["train"]["top1"] <= line["train"]["top5"] <= 100
        # 144 validation images: every accuracy is a whole number of them
        for accuracy in ("top1", "top5"):
            assert line["val"][accuracy] * 1.44 == pytest.approx(round(line["val"][accuracy] * 1.44), abs=1e-9)
        assert line["seconds"] > 0


def test_sparsity_and_learning_rate_follow_the_schedule(run: tuple[Path, Result]) -> None:
    lines = metrics(run[0])
    # 1,184 weights, 1024 + 160; AGP at 0.25, 0.6875, 0.75; StepLR(2, 0.1) from 0.1
    assert [line["sparsity"] for line in lines] == pytest.approx([0, 296 / 1184, 814 / 1184, 888 / 1184], abs=1e-12)
    assert [line["lr"] for line in lines] == pytest.approx([0.1, 0.1, 0.01, 0.01], rel=1e-12)


def test_a_component_s_loss_is_its_penalty_at_the_end_of_the_epoch(run: tuple[Path, Result]) -> None:
    weight = saved(run[0] / "checkpoint.pt")["model"]["fc1.weight"]
    penalty = 1e-4 * weight.double().abs().sum().item()
    assert metrics(run[0])[-1]["losses"]["shrink"] == pytest.approx(penalty, rel=1e-5)


def test_the_config_is_resolved_and_the_schedule_is_the_file_itself(run: tuple[Path, Result]) -> None:
    folder, _ = run
    resolved = yaml.safe_load((folder / "config.yaml").read_text())
    assert resolved["data"]["validation"] == 0.1
    assert resolved["data"]["augment"] == []
    assert resolved["checkpoint"] == {"every_epochs": 1, "every_minutes": None, "keep": 2}
    assert (resolved["seed"], resolved["epochs"], resolved["init"]) == (0, 4, "default")
    assert (folder / "schedule.yaml").read_text() == (folder.parents[1] / "prune.yaml").read_text()


def test_the_files_of_a_run_are_a_schedule_and_a_config_again(run: tuple[Path, Result], work: Path) -> None:
    succeed("train", "-s", run[0] / "schedule.yaml", "-c", run[0] / "config.yaml", "--out", "again")
    assert metrics(work / "again") == metrics(run[0])


def test_the_log_has_the_lines_of_the_terminal(run: tuple[Path, Result]) -> None:
    folder, result = run
    log = (folder / "log.txt").read_text()
    for line in filter(None, result.out.splitlines()):
        assert line in log or line.startswith("run folder")


def test_the_report_counts_what_the_weights_are(run: tuple[Path, Result]) -> None:
    report = Report.model_validate_json((run[0] / "sparsity.json").read_text())
    model = saved(run[0] / "checkpoint.pt")["model"]
    assert [(row.name, row.shape, row.weights, row.nonzero, row.sparsity) for row in report.tensors] == [
        ("fc1.weight", [16, 64], 1024, 256, 0.75),
        ("fc2.weight", [10, 16], 160, 40, 0.75),
    ]
    for row in report.tensors:
        weight = model[row.name].double()
        assert row.rows == pytest.approx((weight == 0).all(1).double().mean().item())
        assert row.cols == pytest.approx((weight == 0).all(0).double().mean().item())
        assert (row.filters, row.channels, row.kernels) == (None, None, None)
        assert row.mean == pytest.approx(weight.mean().item(), abs=1e-7)
        assert row.std == pytest.approx(weight.std().item(), rel=1e-5)
        assert row.mean_abs == pytest.approx(weight.abs().mean().item(), rel=1e-5)
    totals = report.totals
    assert (totals.weights, totals.nonzero, totals.sparsity, totals.parameters) == (1184, 296, 0.75, 1210)
    assert (totals.macs, totals.macs_nonzero) == (1184, 296)  # a linear layer: in * out


def test_the_report_has_the_columns_of_the_issue() -> None:
    assert list(WeightSummary.model_fields) == (
        "name shape weights nonzero sparsity filters channels kernels rows cols mean std mean_abs prunable".split()
    )
    fields = "weights nonzero sparsity sparsity_all parameters macs macs_nonzero dense_weights stored_bits rates"
    assert list(Totals.model_fields) == [*fields.split(), "top1", "top5", "train_top1"]


def test_csv_and_json_agree(run: tuple[Path, Result]) -> None:
    report = json.loads((run[0] / "sparsity.json").read_text())
    with open(run[0] / "sparsity.csv", newline="") as file:
        *rows, others, total = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["fc1.weight", "fc2.weight"]
    for row, tensor in zip(rows, report["tensors"], strict=True):
        assert list(row) == [*tensor, "sparsity_all"]
        assert row.pop("sparsity_all") == ""
        assert row.pop("prunable") == str(tensor.pop("prunable")) == "True"
        assert row.pop("shape") == "x".join(map(str, tensor.pop("shape")))
        assert row.pop("name") == tensor.pop("name")
        assert {key: float(cell) if cell else None for key, cell in row.items()} == tensor
    assert (int(total["weights"]), int(total["nonzero"])) == (1184, 296)
    assert int(others["weights"]) == report["others"]["parameters"] == 26
    every = (888 + 26 - report["others"]["nonzero"]) / 1210
    assert float(total["sparsity_all"]) == report["totals"]["sparsity_all"] == pytest.approx(every)


def test_report_says_the_same_of_the_run_and_of_its_bare_checkpoint(run: tuple[Path, Result], work: Path) -> None:
    folder, result = run
    (work / "bare.pt").write_bytes((folder / "checkpoint.pt").read_bytes())
    paths = (folder, folder / "checkpoint.pt", "bare.pt")
    # All but the latency, which is measured again.
    tables = [succeed("report", path).partition("\n\n       ")[0] for path in paths]
    assert tables[0] == tables[1] == tables[2]
    assert tables[0] in result.out
    written = json.loads((folder / "sparsity.json").read_text())
    for path in paths:
        printed = json.loads(succeed("report", path, "--json"))
        assert all(rounds >= 3 for rounds in printed.pop("latency")["rounds"].values())
        assert json.loads(succeed("report", path, "--json", "--no-latency")) == {**printed, "latency": None}
        assert {**printed, "comparison": None, "latency": None} == written


def test_the_table_has_the_figures_of_the_report(run: tuple[Path, Result]) -> None:
    table = succeed("report", run[0])
    totals = json.loads((run[0] / "sparsity.json").read_text())["totals"]
    fc1 = next(line for line in table.splitlines() if line.startswith("fc1.weight"))
    assert fc1.split()[:5] == ["fc1.weight", "16x64", "1,024", "256", "75.00"]
    assert f"{totals['top1']:.2f}" in table
    assert f"{totals['top5']:.2f}" in table


def test_eval_prints_the_run_s_own_test_figures(run: tuple[Path, Result]) -> None:
    folder, result = run
    test = saved(folder / "checkpoint.pt")["metrics"]["test"]
    assert json.loads(succeed("eval", folder / "checkpoint.pt", "--json")) == {"schema": 1, **test}
    assert json.loads(succeed("eval", folder, "--json")) == {"schema": 1, **test}
    shown = f"loss {test['loss']:.4f}, top-1 {test['top1']:.2f} %, top-5 {test['top5']:.2f} %"
    assert shown in succeed("eval", folder / "checkpoint.pt")
    assert shown in result.out
    totals = json.loads((folder / "sparsity.json").read_text())["totals"]
    assert (totals["top1"], totals["top5"]) == (test["top1"], test["top5"])
    assert test["top1"] * 3.6 == pytest.approx(round(test["top1"] * 3.6), abs=1e-9)  # 360 test images


def test_eval_fails_below_the_accuracy_that_is_asked_for(run: tuple[Path, Result]) -> None:
    folder, _ = run
    top1 = saved(folder / "checkpoint.pt")["metrics"]["test"]["top1"]
    read = compress("eval", folder).err  # which file of the folder
    assert compress("eval", folder, "--min-top1", top1) == (0, succeed("eval", folder), read)  # equal is enough
    for more in ([], ["--json"]):
        result = compress("eval", folder, "--min-top1", top1 + 0.01, *more)
        missed = f"error: {folder}: test top-1 {top1:.6g} % is below --min-top1 {top1 + 0.01:.6g} %\n"
        assert result == (1, succeed("eval", folder, *more), read + missed)
    assert compress("eval", folder, "--min-top1", 101).code == 2
    assert "nan: should be a number of percent" in compress("eval", folder, "--min-top1", "nan").err
    assert "0.9 means 0.9 percent" in compress("eval", folder, "--min-top1", 0.9).err


def test_eval_of_the_best_weights_prints_theirs(run: tuple[Path, Result]) -> None:
    best = saved(run[0] / "best.pt")
    assert json.loads(succeed("eval", run[0] / "best.pt", "--json")) == {"schema": 1, **best["metrics"]["test"]}
    assert best["epoch"] == 4  # the last pruning event is in epoch 3, the last of 0..3


def test_a_checkpoint_loads_strictly_into_the_plain_class(run: tuple[Path, Result]) -> None:
    from collections import OrderedDict

    from torch import nn

    layers = [("flatten", nn.Flatten()), ("fc1", nn.Linear(64, 16)), ("relu1", nn.ReLU()), ("fc2", nn.Linear(16, 10))]
    for name in ("checkpoint.pt", "best.pt"):
        plain = nn.Sequential(OrderedDict(layers))
        plain.load_state_dict(saved(run[0] / name)["model"], strict=True)
        zeros = plain.get_submodule("fc1").weight == 0
        assert int(zeros.sum()) == 768
        assert not torch.signbit(plain.get_submodule("fc1").weight[zeros]).any()


def test_init_starts_from_the_trained_weights(run: tuple[Path, Result], work: Path) -> None:
    frozen = ["--set", "optimizer.lr=1e-30", "--set", "optimizer.weight_decay=0", "--set", "epochs=1"]
    succeed("train", "-c", "tiny", "--init", run[0] / "best.pt", *frozen, "--out", "next")
    ours, theirs = saved(work / "next" / "checkpoint.pt")["model"], saved(run[0] / "best.pt")["model"]
    assert all(torch.allclose(ours[name], theirs[name], rtol=0, atol=1e-20) for name in theirs)
    test = saved(run[0] / "best.pt")["metrics"]["test"]
    assert json.loads(succeed("eval", "next", "--json")) == {"schema": 1, **test}


def test_without_validation_images_val_is_empty_and_the_last_epoch_is_the_best(work: Path) -> None:
    succeed("train", "-s", "prune", "--set", "data.validation=0", "--out", "run")
    assert [line["val"] for line in metrics(work / "run")] == [{}] * 4
    best, last = saved(work / "run" / "best.pt"), saved(work / "run" / "checkpoint.pt")
    assert all(torch.equal(best["model"][name], weight) for name, weight in last["model"].items())


def test_the_same_command_gives_the_same_bits(run: tuple[Path, Result], work: Path) -> None:
    from helpers import run_difference

    succeed("train", "-s", "prune", "--out", "again")
    assert run_difference(run[0], work / "again") is None
    succeed("train", "-s", "prune", "--seed", "1", "--out", "other")
    assert run_difference(run[0], work / "other") is not None
