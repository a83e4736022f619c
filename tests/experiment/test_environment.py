"""`environment.json`: what a run was made with; and the numbers of the layouts of JSON outputs."""

import hashlib
import json
import math
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import interrupted, saved, succeed

from compressor.data import fingerprint
from compressor.experiment import building, environment, loading

RUN = ("-s", "prune", "--set", "epochs=2", "--set", "schedule.policies.0.ending_epoch=2")


def starts(folder: Path) -> list[dict[str, Any]]:
    """The records of a run."""
    content = json.loads((folder / "environment.json").read_text())
    assert list(content) == ["schema", "starts"]
    assert content["schema"] == 1
    return list(content["starts"])


def test_a_run_says_what_it_was_made_with_and_each_start_adds_a_record(work: Path) -> None:
    interrupted(*RUN, "--out", "run", epoch=1, step=3)
    [first] = starts(work / "run")
    assert list(first) == [
        *("started", "command", "working_directory", "versions", "platform", "processor", "device", "threads"),
        *("processes", "git_commit", "sha256"),
    ]
    assert first["command"] == ["compress", "train", *RUN, "--out", "run"]
    assert first["versions"]["python"] == platform.python_version()
    assert first["versions"]["torch"] == torch.__version__
    assert {"compressor", "torchvision"} <= set(first["versions"])
    assert (first["device"], first["threads"], first["processes"], first["git_commit"]) == ({"type": "cpu"}, 1, 1, None)
    for name in ("config", "schedule"):
        content = (work / "run" / f"{name}.yaml").read_bytes()
        assert first["sha256"][name] == hashlib.sha256(content).hexdigest()
    config = loading.load(work / "run").config
    data = json.dumps(fingerprint(building.load_data(config, None)), sort_keys=True)
    assert first["sha256"]["data"] == hashlib.sha256(data.encode()).hexdigest()

    succeed("train", *RUN, "--out", "run", "--resume")
    again = starts(work / "run")
    assert again[0] == first
    assert [record["command"][-1] for record in again] == ["run", "--resume"]
    whole = (work / "run" / "environment.json").read_bytes()
    succeed("train", *RUN, "--out", "run", "--resume")  # finished: it does not start
    assert (work / "run" / "environment.json").read_bytes() == whole


@pytest.mark.parametrize("text", ["", "{", "[]", '{"starts": 3}', "\udcff"])
def test_a_damaged_record_never_stops_a_run(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text("epochs: 1\n")
    (tmp_path / "environment.json").write_bytes(os.fsencode(text))
    environment.add(tmp_path, torch.device("cpu"), {"classes": []})
    [record] = starts(tmp_path)
    assert record["sha256"]["schedule"] is None


def test_the_commit_is_that_of_the_working_directory(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("git") is None:
        pytest.skip("no git")
    (work / "config.yaml").touch()
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", *command], check=True, cwd=work)
    head = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    environment.add(work, torch.device("cpu"), {})
    monkeypatch.setenv("PATH", str(work))  # no git
    environment.add(work, torch.device("cpu"), {})
    assert [record["git_commit"] for record in starts(work)] == [head, None]
    assert len(head) == 40


def test_a_run_that_was_killed_before_it_trained_starts_afresh(work: Path) -> None:
    (work / "run").mkdir()
    (work / "run" / "environment.json").write_text('{"schema": 1, "starts": [{"started": "long ago"}]}')
    (work / "run" / ".environment.json.partial").write_text("{")
    succeed("train", *RUN, "--out", "run", "--resume")
    assert len(starts(work / "run")) == 1
    assert not (work / "run" / ".environment.json.partial").exists()


def test_every_json_output_says_its_layout_first(work: Path) -> None:
    succeed("train", *RUN, "--out", "run")
    outputs = {
        "sparsity.json": (work / "run" / "sparsity.json").read_text(),
        "report": succeed("report", "run", "--json"),
        "eval": succeed("eval", "run", "--json"),
        "plan": succeed("plan", "prune", "--json"),
    }
    for name, text in outputs.items():
        first, number = next(iter(json.loads(text).items()))
        assert (name, first, number) == (name, "schema", 1)
    # Accuracies are in percent, sparsities fractions: 360 test images, 0.75 of the weights.
    report = json.loads(outputs["report"])["totals"]
    assert report["top1"] * 3.6 == pytest.approx(round(report["top1"] * 3.6))
    assert report["top1"] == saved(work / "run" / "checkpoint.pt")["metrics"]["test"]["top1"]
    assert (report["sparsity"], json.loads(outputs["plan"])["total_sparsity"]) == (0.75, 0.75)
    assert "layout" not in "".join(outputs.values())
    whole = saved(work / "run" / "checkpoint.pt")
    whole["model"]["fc2.bias"][3] = math.nan
    torch.save(whole, "nan.pt")
    assert json.loads(succeed("eval", "nan.pt", "--json"), parse_constant=pytest.fail)["loss"] is None
