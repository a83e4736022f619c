"""`benchmarks.launch`: the same command in a process that has torch already."""

from pathlib import Path

from benchmarks import launch


def test_the_exit_code_and_the_files_are_those_of_the_command(tmp_path: Path) -> None:
    assert launch.compress("train", "--no-such-flag") == 2
    out = tmp_path / "run"
    words = ("train", "--config", "mlp_digits", "--set", "epochs=1", "--out", str(out))
    assert launch.compress(*words) == 0
    assert (out / "checkpoint.pt").exists()
    assert launch.compress(*words) == 2  # the folder is there
