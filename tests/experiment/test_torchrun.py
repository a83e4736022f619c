"""torchrun starts, stops, kills and restarts the processes of a run: equal bits, one message, no traceback of ours."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import TINY, environment, metrics, run_difference, saved, succeed
from two_ranks import free_port, variables

DEAD = int(os.environ.get("DEAD_RANKS", "3"))

# 12 steps an epoch; a checkpoint every 60 ms. Dropout draws other numbers in each process, at every step.
CONFIG = f"""\
{TINY.replace("epochs: 4", "epochs: 8").replace("batch: 64", "batch: 32, images: 420")}
checkpoint: {{every_minutes: 0.001}}
"""
SCHEDULE = """\
version: 2
pruners:
  fine: {class: AutomatedGradualPruner, initial_sparsity: 0.25, final_sparsity: 0.75, weights: '*'}
regularizers:
  shrink: {class: L1Regularizer, reg_regims: {fc1.weight: 1e-4}}
lr_schedulers:
  plateau: {class: ReduceLROnPlateau, patience: 1, factor: 0.5}
policies:
  - pruner: {instance_name: fine, args: {mini_batch_pruning_frequency: 5}}
    starting_epoch: 2
    ending_epoch: 6
  - {regularizer: {instance_name: shrink}, starting_epoch: 1, ending_epoch: 5}
  - {lr_scheduler: {instance_name: plateau}}
"""
RUN = ("train", "-s", "killed", "-c", "often", "--resume", "--out")

pytestmark = pytest.mark.slow


class Ranks:
    """Two processes of a command, as torchrun would start them, with what each has said."""

    def __init__(self, *arguments: object, cwd: Path, size: int = 2) -> None:
        port, command = free_port(), [sys.executable, "-m", "compressor", *map(str, arguments)]
        self.processes = [
            subprocess.Popen(
                command,
                cwd=cwd,
                env={**environment(), **variables(rank, size, port)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            for rank in range(size)
        ]

    def end(self, within: float = 300) -> tuple[list[int], str]:
        """Wait for all; return their codes and what they wrote to stderr."""
        said = [process.communicate(timeout=within)[1] for process in self.processes]
        return [process.returncode for process in self.processes], "".join(said)


@contextmanager
def ranks(*arguments: object, cwd: Path, size: int = 2) -> Iterator[Ranks]:
    """Start processes; none is left at the end."""
    started = Ranks(*arguments, cwd=cwd, size=size)
    try:
        yield started
    finally:
        for process in started.processes:
            process.kill()
            process.communicate()


def under_torchrun(*arguments: object, cwd: Path, options: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start a command under torchrun; what its processes say is in the folder `said`, and not torchrun's own."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    kept = ("--log-dir", str(cwd / "said"), "--redirects", "3")
    return subprocess.Popen(
        [*torchrun, *kept, *options, "-m", "compressor", *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(folder: Path) -> list[str]:
    """The lines that all processes wrote to stderr."""
    return [line for file in sorted((folder / "said").rglob("stderr.log")) for line in file.read_text().splitlines()]


def processes_of(running: subprocess.Popen[str]) -> list[int]:
    """The processes that torchrun has started."""
    found = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text()
    return [int(number) for number in found.split()]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "often.yaml").write_text(CONFIG)
    (folder / "killed.yaml").write_text(SCHEDULE)
    return folder


@pytest.fixture(scope="module")
def reference(files: Path) -> Path:
    """The run in two processes that was never stopped."""
    finish(files / "reference")
    return files / "reference"


def finish(run: Path) -> None:
    """Start or continue a run in two processes, to its end."""
    with ranks(*RUN, run.name, cwd=run.parent) as started:
        codes, errors = started.end()
    assert (codes, errors) == ([0, 0], "")


def progress(run: Path) -> tuple[int, int]:
    """Epochs and steps of the last checkpoint."""
    path = run / "checkpoint.pt"
    found = saved(path)["state"]["progress"] if path.exists() else {"epoch": 0, "step": 0}
    return int(found["epoch"]), int(found["step"])


def wait_for_saves(run: Path, saves: int, limit: float = 300) -> None:
    """Wait until that many checkpoints were written."""
    path, until = run / "checkpoint.pt", time.monotonic() + limit
    seen = path.stat().st_ino if path.exists() else None
    while saves and time.monotonic() < until:
        time.sleep(0.002)
        now = path.stat().st_ino if path.exists() else None
        saves -= now != seen
        seen = now


@pytest.mark.counted
def test_a_run_of_which_ranks_are_killed_ends_in_the_same_bits(
    reference: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draws, hits, slowest, runs = random.Random(DEAD), list[bool](), 0.0, 0
    while len(hits) < DEAD:
        run = reference.with_name(f"run{runs}")
        runs += 1
        for _ in range(min(4, DEAD - len(hits))):
            rank = draws.randrange(2)
            with ranks(*RUN, run.name, cwd=run.parent) as started:
                wait_for_saves(run, 1 + draws.randrange(6))
                time.sleep(draws.uniform(0, 0.1))
                started.processes[rank].kill()
                killed = time.monotonic()
                codes, errors = started.end()
            if codes == [0, 0]:
                break
            slowest = max(slowest, time.monotonic() - killed)
            assert codes[rank] in (-signal.SIGKILL, 0), errors
            if codes[rank] == 0:  # it had ended before
                break
            gone = f"error: rank {rank} is gone: all others end; --resume continues from the last checkpoint\n"
            assert (codes[1 - rank], errors) in ((1, gone), (0, "")), errors
            hits.append(progress(run)[1] > 0)
        finish(run)
        assert run_difference(run, reference) is None
        assert {path.name for path in run.iterdir()} == {path.name for path in reference.iterdir()}
    assert slowest < 30
    with capsys.disabled():
        print(
            f"\ndead ranks: {len(hits)} SIGKILLs end in equal bits, {sum(hits)} of them mid-epoch;"
            f" all processes ended within {slowest:.1f} s"
        )


def test_a_signal_to_torchrun_ends_all_ranks_after_the_same_step(reference: Path) -> None:
    run = reference.with_name("signalled")
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        before = progress(run)
        running = under_torchrun(*RUN, run.name, cwd=run.parent)
        wait_for_saves(run, 2)
        running.send_signal(number)
        running.communicate(timeout=300)
        assert running.returncode != 0
        assert said(run.parent)[-1:] == ["error: interrupted; the checkpoint is written, --resume continues"]
        assert progress(run) > before
        assert code  # each process ends with it; torchrun has a code of its own
    assert len(said(run.parent)) == 2
    finish(run)
    assert run_difference(run, reference) is None


def test_torchrun_restarts_a_run_that_goes_on_by_itself(reference: Path, tmp_path: Path) -> None:
    for name in ("often.yaml", "killed.yaml"):
        (tmp_path / name).write_text((reference.parent / name).read_text())
    without_resume = [word for word in RUN if word != "--resume"]
    running = under_torchrun(*without_resume, "again", cwd=tmp_path, options=("--max-restarts", "1"))
    wait_for_saves(tmp_path / "again", 4)
    os.kill(processes_of(running)[-1], signal.SIGKILL)
    _, errors = running.communicate(timeout=300)
    assert running.returncode == 0, errors
    assert said(tmp_path) == ["error: rank 1 is gone: all others end; --resume continues from the last checkpoint"]
    assert "continuing in epoch" in (tmp_path / "again" / "log.txt").read_text()
    assert run_difference(tmp_path / "again", reference) is None


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("train", "-c", "often", "--set", "data.batch=33"), 2, "data.batch: 33 images cannot be shared equally by 2"),
        (("train", "-c", "often", "--smoke"), 2, "--smoke tries a run in one process: start it without torchrun"),
        (("train", "-c", "often", "--no-such-option"), 2, "No such option"),
        (("train", "-c", "often", "--set", "optimizer.lr=1e30"), 1, "is not finite"),
        (("list", "models"), 2, "compress list runs in one process: start it without torchrun"),
    ],
)
def test_what_is_wrong_is_said_once(files: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    with ranks(*arguments, cwd=files) as started:
        codes, errors = started.end()
    assert codes == [code, code]
    assert errors.count(message) == 1
    assert "Traceback" not in errors
    assert errors.count("rror: ") == 1


def test_a_run_goes_on_in_any_number_of_processes(files: Path) -> None:
    run = files / "moved"
    with ranks(*RUN, run.name, cwd=files) as started:
        wait_for_saves(run, 3)
        for process in started.processes:
            process.terminate()
        assert started.end()[0] == [143, 143]
    now = progress(run)
    with ranks(*RUN, run.name, cwd=files, size=4) as started:
        wait_for_saves(run, 2)
        for process in started.processes:
            process.terminate()
        codes, errors = started.end()
    assert codes == [143] * 4, errors
    assert progress(run) > now
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(files)
        succeed(*RUN, run.name)  # without torchrun
    assert [line["epoch"] for line in metrics(run)] == list(range(8))
