"""A run's folder holds the merged schedule and the expanded configuration: it needs nothing else to be resumed."""

from pathlib import Path

import pytest
import yaml
from helpers import compress, succeed

from compressor.experiment import folder
from compressor.experiment.specification import specification


def test_a_run_is_resumed_without_the_base_and_the_variables(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (work / "one.yaml").write_text("extends: tiny\ndata: {images: 64}\nepochs: 1\n")
    (work / "two.yaml").write_text("extends: one\ninit: '${START}/checkpoint.pt'\nema: {decay: 0.5}\nepochs: 4\n")
    (work / "late.yaml").write_text("version: 2\nextends: prune\npruners: {fine: {final_sparsity: 0.5}}\n")
    succeed("train", "-c", "one", "--out", "first")
    monkeypatch.setenv("START", "first")
    succeed("train", "-s", "late", "-c", "two", "--out", "run")
    written = yaml.safe_load((work / "run" / "config.yaml").read_text())
    assert written["init"] == str(work / "first" / "checkpoint.pt")
    assert (written["data"]["images"], written["epochs"], written["ema"]) == (64, 4, {"decay": 0.5})
    assert "extends" not in written
    schedule = yaml.safe_load((work / "run" / "schedule.yaml").read_text())
    assert schedule["pruners"]["fine"]["final_sparsity"] == 0.5
    assert "extends" not in schedule
    # The same two files are this run; a change of a base is another one.
    assert folder.other_content(specification("late", "two"), Path("run")) is None
    (work / "one.yaml").write_text("extends: tiny\ndata: {images: 65}\nepochs: 1\n")
    result = compress("train", "--resume", "-s", "late", "-c", "two", "--out", "run")
    assert result.code == 2
    assert "data.images is 65 now, 64 there" in result.err
    monkeypatch.delenv("START")
    for name in ("tiny", "one", "two", "prune", "late"):
        (work / f"{name}.yaml").unlink()
    assert "finished already" in succeed("train", "--resume", "--out", "run")
