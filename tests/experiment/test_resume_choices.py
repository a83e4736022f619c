"""Which run `--resume` takes where there are several; an init that has gone; a folder without a checkpoint yet."""

import shutil
from pathlib import Path

import pytest
from helpers import compress, interrupted, metrics, run_difference, saved, succeed

DENSE = ("-c", "tiny", "--set", "epochs=1")
RESUME = ("train", *DENSE, "--resume")


def runs() -> list[str]:
    return sorted(path.name for path in Path("runs").iterdir())


def seed(run: str) -> int:
    return int(saved(Path("runs", run, "checkpoint.pt"))["config"]["seed"])


def contents(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_of_finished_runs_of_several_seeds_the_one_asked_for_is_finished_and_a_new_one_starts_afresh() -> None:
    for number in (0, 1):
        succeed("train", *DENSE, "--seed", number)
    before = contents(Path("runs"))
    for number in (0, 1):
        result = compress(*RESUME, "--seed", number)
        assert (result.code, result.err) == (0, "")
        assert "finished" in result.out
        assert f"dense-tiny-{number + 1}" in result.out
    assert contents(Path("runs")) == before
    assert "dense-tiny-3" in succeed(*RESUME, "--seed", "2")
    assert [seed(run) for run in runs()] == [0, 1, 2]
    assert "finished" in compress(*RESUME, "--seed", "0").out
    assert len(runs()) == 3


def test_the_unfinished_run_of_the_same_content_is_continued_though_newer_ones_are_of_another() -> None:
    interrupted(*DENSE, "--seed", "0", epoch=0)
    interrupted(*DENSE, "--seed", "1", epoch=0)
    succeed("train", *DENSE, "--seed", "2")
    assert "dense-tiny-1" in succeed(*RESUME, "--seed", "0")
    assert [saved(Path("runs", run, "checkpoint.pt"))["finished"] for run in runs()] == [True, False, True]


@pytest.mark.parametrize(
    ("change", "key"), [(["--seed", "5"], "seed"), (["--set", "data.batch=32"], "data.batch")], ids=["seed", "batch"]
)
def test_an_unfinished_run_of_another_content_is_exit_2_with_the_key(change: list[str], key: str) -> None:
    interrupted(*DENSE, epoch=0)
    before = contents(Path("runs"))
    result = compress(*RESUME, *change)
    assert (result.code, result.out) == (2, "")
    assert key in result.err
    assert "dense-tiny-1" in result.err
    assert contents(Path("runs")) == before
    assert runs() == ["dense-tiny-1"]


@pytest.mark.parametrize("newer", [False, True], ids=["an older run", "a newer run"])
@pytest.mark.parametrize("size", [0, 1000])
def test_a_torn_checkpoint_of_another_run_of_the_name_does_not_matter(newer: bool, size: int) -> None:
    ours, torn = ("0", "1") if newer else ("1", "0")
    for number in ("0", "1"):
        succeed("train", *DENSE, "--seed", number)
    path = Path("runs", f"dense-tiny-{int(torn) + 1}", "checkpoint.pt")
    path.write_bytes(path.read_bytes()[:size])
    result = compress(*RESUME, "--seed", ours)
    assert (result.code, result.err) == (0, "")
    assert f"dense-tiny-{int(ours) + 1}: finished" in result.out
    assert path.stat().st_size == size


def test_a_torn_checkpoint_of_another_run_does_not_stand_in_the_way_of_an_unfinished_one() -> None:
    interrupted(*DENSE, "--seed", "0", epoch=0)
    succeed("train", *DENSE, "--seed", "1")
    path = Path("runs/dense-tiny-2/checkpoint.pt")
    path.write_bytes(path.read_bytes()[:1000])
    assert "dense-tiny-1" in succeed(*RESUME, "--seed", "0")
    assert saved(Path("runs/dense-tiny-1/checkpoint.pt"))["finished"] is True


# --- an init that has gone -----------------------------------------------------------------------------------------


def test_resume_works_when_the_init_file_has_gone() -> None:
    succeed("train", *DENSE, "--out", "first")
    Path("first/best.pt").rename("dense.pt")
    start = ("-s", "prune", "--init", "dense.pt")
    succeed("train", *start, "--out", "whole")
    for out in ("run", "again"):
        interrupted(*start, "--out", out)
    Path("dense.pt").unlink()
    succeed("train", "--resume", "--out", "run")
    assert run_difference(Path("run"), Path("whole")) is None
    result = compress("train", "-s", "prune", "--init", str(Path("dense.pt").absolute()), "--out", "again", "--resume")
    assert result.code == 0, result.err
    assert run_difference(Path("again"), Path("whole")) is None


def test_an_init_that_is_not_there_is_still_refused_where_a_run_would_begin() -> None:
    result = compress("train", *DENSE, "--init", "gone.pt", "--resume", "--out", "run")
    assert (result.code, "gone.pt" in result.err) == (2, True)
    assert not Path("run").exists()


# --- killed in the very first moments ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "kept", "partial"),
    [
        ((), ["config.yaml"], ()),
        (("-s", "prune"), ["config.yaml"], ()),
        (("-s", "prune"), ["config.yaml"], (".schedule.yaml.partial",)),
        (("-s", "prune"), [], (".config.yaml.partial",)),
    ],
    ids=["dense", "prune", "half a schedule", "half a config"],
)
def test_a_folder_left_from_the_very_first_moments_is_started_afresh(
    schedule: tuple[str, ...], kept: list[str], partial: tuple[str, ...]
) -> None:
    arguments = ("-c", "tiny", *schedule)
    succeed("train", *arguments, "--out", "whole")
    Path("run").mkdir()
    for name in kept:
        shutil.copy(f"whole/{name}", "run")
    for name in partial:
        Path("run", name).write_text("version: 2\npoli")
    succeed("train", *arguments, "--resume", "--out", "run")
    assert run_difference(Path("run"), Path("whole")) is None
    assert {path.name for path in Path("run").iterdir()} == {path.name for path in Path("whole").iterdir()}


def test_a_dense_folder_with_only_config_yaml_is_started_from_its_own_file() -> None:
    succeed("train", *DENSE, "--out", "whole")
    Path("run").mkdir()
    shutil.copy("whole/config.yaml", "run")
    succeed("train", "--resume", "--out", "run")
    assert metrics(Path("run")) == metrics(Path("whole"))


def test_an_empty_folder_is_started_afresh() -> None:
    Path("run").mkdir()
    succeed(*RESUME, "--out", "run")
    assert saved(Path("run/checkpoint.pt"))["finished"] is True


def test_such_a_folder_does_not_stand_in_the_way_of_resume_without_out() -> None:
    succeed("train", "-s", "prune", "--out", "whole")
    Path("runs/prune-tiny-1").mkdir(parents=True)
    shutil.copy("whole/config.yaml", "runs/prune-tiny-1")
    succeed("train", "-s", "prune", "--resume")
    assert any(run_difference(folder, Path("whole")) is None for folder in Path("runs").iterdir() if any_run(folder))


def any_run(folder: Path) -> bool:
    return (folder / "checkpoint.pt").is_file()
