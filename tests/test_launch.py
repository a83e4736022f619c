"""`benchmarks.launch`: the same command in a process that has torch already."""

from pathlib import Path

import pytest

from benchmarks import launch


def test_the_exit_code_and_the_files_are_those_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # the old value comes back after the test
    monkeypatch.chdir(tmp_path)
    assert launch.compress("validate", "benchmarks/one_network/dense.yaml") == 0  # from the root
    assert launch.compress("train", "--no-such-flag") == 2
    out = tmp_path / "run"
    words = ("train", "--config", "mlp_digits", "--set", "epochs=1", "--out", str(out))
    assert launch.compress(*words) == 0
    assert (out / "checkpoint.pt").exists()
    assert launch.compress(*words) == 2  # the folder is there
