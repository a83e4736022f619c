"""`compress sweep`: the grid, what is checked before the first run, one folder that goes on, failures and signals."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from helpers import compress, environment, succeed

from compressor.errors import CompressError
from compressor.experiment import grid, local_queue, run, sweeping
from compressor.experiment.specification import specification

SHORT = ("--grid", "epochs=1", "--grid", "data.images=64")
TWO = (*SHORT, "--grid", "optimizer.lr=0.1,0.01")
LR = [f"epochs=1_images=64_lr={lr}_seed=0" for lr in ("0.1", "0.01")]


class Here:
    """Trains one run after the other in this process; those of the learning rate 0.3 fail."""

    trained: list[str] = []

    def __init__(self, path: Path, jobs: int | None, device: str, data: Path | None) -> None:
        self._path = path

    def run(self, names: Sequence[str], stop: sweeping.Stop) -> Iterator[tuple[str, str | None]]:
        for name in names:
            path, failure = self._path / name, None
            spec = specification(str(path / "schedule.yaml"), str(path / "config.yaml"))
            if spec.config.optimizer.lr == 0.3:
                yield name, "the disk is full"
                continue
            try:
                run.train(spec, path, None, "cpu", resume=True)
            except CompressError as error:
                failure = str(error)
            self.trained.append(name)
            yield name, failure


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the runs that are trained in this process."""
    monkeypatch.setattr(local_queue, "LocalQueue", Here)
    Here.trained = []
    return Here.trained


def rows(folder: str) -> list[dict[str, str]]:
    with open(Path(folder) / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_sweep_is_a_folder_of_ordinary_runs_that_goes_on(here: list[str], work: Path) -> None:
    out = succeed("sweep", "prune", *TWO)
    folder = work / "runs" / "sweep-prune-tiny"
    assert here == LR
    assert "report: runs/sweep-prune-tiny/report.html" in out
    assert [(row["run"], row["optimizer.lr"], row["seed"], row["status"]) for row in rows(str(folder))] == [
        (LR[0], "0.1", "0", "finished"),
        (LR[1], "0.01", "0", "finished"),
    ]
    assert all(float(row["latency_ms"]) > 0 for row in rows(str(folder)))
    for row in rows(str(folder)):
        report = json.loads((folder / row["run"] / "sparsity.json").read_text())
        assert float(row["top1"]) == report["totals"]["top1"]
    assert "lr: 0.01" in (folder / LR[1] / "config.yaml").read_text()

    # The same command again trains nothing; an unfinished run is trained; other values and seeds are added.
    result = compress("sweep", "prune", *TWO, "--no-latency")
    assert (result.code, len(here)) == (0, 2)
    assert "2 runs, 2 of them finished already" in result.err
    for file in (folder / LR[0]).iterdir():
        if file.name not in ("config.yaml", "schedule.yaml"):
            file.unlink()
    succeed("sweep", "prune", *SHORT, "--grid", "optimizer.lr=0.1,0.05", "--seeds", 2, "--no-latency")
    assert here[2:] == [LR[0], *(f"epochs=1_images=64_lr={lr}_seed={n}" for lr, n in ((0.1, 1), (0.05, 0), (0.05, 1)))]
    assert [row["setting"] for row in rows(str(folder))] == ["1", "1", "2", "3", "3"]
    assert {row["status"] for row in rows(str(folder))} == {"finished"}


def test_a_run_that_fails_is_named_and_the_others_are_trained(here: list[str]) -> None:
    result = compress("sweep", "prune", *SHORT, "--grid", "optimizer.lr=0.3,0.1", "--out", "s")
    assert result.code == 1
    assert result.err.endswith("error: epochs=1_images=64_lr=0.3_seed=0: the disk is full\n")
    assert [row["status"] for row in rows("s")] == ["failed", "finished"]
    assert "the disk is full" in Path("s/report.html").read_text()
    assert here == [LR[0]]


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ("optimizer.l=1,2", "--grid optimizer.l=2: unknown key 'l' in the configuration: did you mean 'lr'?"),
        ("optimizer.lr=0.1,-1", "--grid optimizer.lr=-1: "),
        ("schedule.pruners.fine.final_sparsit=0.5", "did you mean 'final_sparsity'"),
        ("schedule.pruners.fin.final_sparsity=0.5", "the file has no 'fin': did you mean 'fine'?"),
        ("schedule.policies.7.ending_epoch=2", "should be a number from 0 to 2 here, got '7'"),
        ("schedule.pruners.fine.weights='*',fc9.weight", "--grid schedule.pruners.fine.weights=fc9.weight: "),
        ("seed=1,2", "give the number of seeds with --seeds"),
        ("optimizer.lr=", "should be values with commas between"),
        ("optimizer.lr=1],[2", "should be values with commas between"),
        ("optimizer.lr=1,1.0", "the value 1.0 stands there twice"),
        ("optimizer.lr", "should look like"),
    ],
)
def test_what_is_wrong_in_any_run_is_said_before_the_first_one(
    here: list[str], work: Path, grid: str, said: str
) -> None:
    result = compress("sweep", "prune", "--grid", grid)
    assert (result.code, here) == (2, [])
    assert said in result.err
    assert not (work / "runs").exists()


def test_values_may_have_commas_in_brackets() -> None:
    assert grid.values_of([("model.hidden", "[16,8], [4]"), ("x", "'a,b',1e-4,{a: 1}")]) == {
        "model.hidden": ["[16, 8]", "[4]"],
        "x": ["a,b", "0.0001", "{a: 1}"],
    }


def test_a_key_is_given_once() -> None:
    assert "'epochs' is given twice" in compress("sweep", "prune", "--grid", "epochs=1", "--grid", "epochs=2").err


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("a file", "s is a file: give the sweep's folder"),
        ("a run", "s is the folder of a run"),
        ("notes", "s exists and is not the folder of a sweep (it has no sweep.json)"),
        ("another sweep", "s is a sweep of the schedule other and the configuration tiny, not of prune and tiny"),
        ("a damaged one", "sweep.json: cannot be read"),
    ],
)
def test_another_folder_is_not_touched(here: list[str], work: Path, made: str, said: str) -> None:
    path = work / "s"
    if made == "a file":
        path.write_text("")
    else:
        path.mkdir()
        index = {"schema": 1, "schedule": "other", "config": "tiny", "runs": []}
        name = {"a run": "config.yaml", "notes": "notes.txt"}.get(made, "sweep.json")
        (path / name).write_text("{" if made == "a damaged one" else json.dumps(index))
    before = sorted(work.rglob("*"))
    result = compress("sweep", "prune", *TWO, "--out", "s")
    assert (result.code, here) == (2, [])
    assert said in result.err
    assert [one for one in sorted(work.rglob("*")) if one.name != ".lock"] == before


def test_runs_of_files_that_have_changed_since_are_refused(here: list[str], work: Path) -> None:
    succeed("sweep", "prune", *SHORT, "--out", "s", "--no-latency")
    tiny = work / "tiny.yaml"
    tiny.write_text(tiny.read_text().replace("momentum: 0.9", "momentum: 0.5"))
    result = compress("sweep", "prune", *SHORT, "--out", "s")
    assert result.code == 2
    assert "is a run of another schedule or configuration" in result.err
    assert "momentum" in result.err
    assert len(here) == 1


def test_a_name_is_short_and_plain() -> None:
    taken: set[str] = set()
    first = grid._name({"a.path": "../x y/*"}, 0, taken)
    taken.add(first)
    assert first == "path=..-x-y-_seed=0"
    assert grid._name({"a.path": "../x y/*"}, 0, taken) == "path=..-x-y-_seed=0-2"
    assert len(grid._name({"a.path": "x" * 500}, 3, taken)) <= 100


def test_jobs_and_ray_exclude_each_other() -> None:
    assert "--jobs and --on" in compress("sweep", "prune", "--on", "ray", "--jobs", 2).err
    assert "should be ray, or ray:ADDRESS" in compress("sweep", "prune", "--on", "slurm").err


def started(work: Path, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "compressor", "sweep", "prune", *map(str, arguments), "--out", "s", "--jobs", "2"]
    return subprocess.Popen(
        command, cwd=work, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_the_runs_with_their_checkpoints(
    work: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    grid = ("--grid", "epochs=40", "--no-latency")
    with started(work, *grid) as running:
        while running.poll() is None and not list(work.glob("s/*/checkpoint.pt")):
            time.sleep(0.05)
        running.send_signal(number)
        _, err = running.communicate(timeout=120)
    if number == signal.SIGTERM:
        assert running.returncode == 128 + number
        assert "error: interrupted: 0 of 1 runs are finished; the same command goes on" in err
        assert "failed" not in err
    ended = time.monotonic() + 60  # after a SIGKILL the kernel tells the run
    while processes(work) and time.monotonic() < ended:
        time.sleep(0.1)
    assert not processes(work)
    monkeypatch.setattr(local_queue, "LocalQueue", Here)
    succeed("sweep", "prune", *grid, "--out", "s")
    [log] = work.glob("s/*/log.txt")
    assert len(re.findall("continuing in epoch", log.read_text())) == 1


def processes(work: Path) -> list[str]:
    """The processes whose working directory is that of the test, but for this one."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if int(path.name) != os.getpid() and os.readlink(path / "cwd") == str(work):
                found.append(path.name)
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_a_run_that_is_killed_does_not_end_the_others(work: Path) -> None:
    grid = ("--grid", "epochs=40", "--grid", "optimizer.lr=0.1,0.01", "--no-latency")
    with started(work, *grid) as running:
        while running.poll() is None and len(list(work.glob("s/*/checkpoint.pt"))) < 2:
            time.sleep(0.05)
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        _, err = running.communicate(timeout=600)
    assert running.returncode == 1, err
    assert sorted(row["status"] for row in rows("s")) == ["failed", "finished"]
    assert "ended by SIGKILL" in err.splitlines()[-1]
