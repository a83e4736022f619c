"""Processes that are stopped at any moment: the run that goes on from its checkpoint ends in the same bits."""

import random
import signal
import time
from pathlib import Path

import pytest
from helpers import TINY, metrics, run_difference, saved, start, succeed

# 162 steps an epoch; a checkpoint every 30 ms, several in an epoch. Dropout draws from torch's generator at every step.
CONFIG = f"""\
{TINY.replace("batch: 64", "batch: 8").replace("epochs: 4", "epochs: 10")}
checkpoint: {{every_minutes: 0.0005}}
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
  - pruner: {instance_name: fine, args: {mini_batch_pruning_frequency: 50}}
    starting_epoch: 2
    ending_epoch: 8
  - {regularizer: {instance_name: shrink}, starting_epoch: 1, ending_epoch: 6}
  - {lr_scheduler: {instance_name: plateau}}
"""
RUN = ("train", "-s", "killed", "-c", "often", "--resume", "--out")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that was never stopped, trained in this process."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "often.yaml").write_text(CONFIG)
    (folder / "killed.yaml").write_text(SCHEDULE)
    finish(folder / "reference")
    return folder / "reference"


def test_a_process_that_gets_a_signal_ends_with_128_and_its_number_and_another_one_goes_on(reference: Path) -> None:
    run = reference.with_name("signalled")
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        before = progress(run)
        with start(*RUN, run.name, cwd=run.parent) as running:
            deadline = time.monotonic() + 60
            while progress(run) == before and time.monotonic() < deadline:
                time.sleep(0.01)
            running.send_signal(number)
            _, err = running.communicate(timeout=60)
        assert running.returncode == code, err
        assert (err.count("\n"), "Traceback" in err) == (1, False)
        assert progress(run) > before
        assert [line["epoch"] for line in metrics(run)] == list(range(progress(run)[0]))
    finish(run)
    assert run_difference(run, reference) is None


def finish(run: Path) -> None:
    """Start or continue `run` in this process, to its end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(run.parent)
        succeed(*RUN, run.name)


def progress(run: Path) -> tuple[int, int]:
    """Epochs and steps of the last checkpoint."""
    path = run / "checkpoint.pt"
    found = saved(path)["state"]["progress"] if path.exists() else {"epoch": 0, "step": 0}
    return int(found["epoch"]), int(found["step"])


def kill(run: Path, delay: float) -> bool:
    """Start or continue `run`, and SIGKILL it `delay` seconds after training began; False where it was done before."""
    log = run / "log.txt"
    before = log.stat().st_size if log.exists() else 0
    with start(*RUN, run.name, cwd=run.parent) as running:
        while running.poll() is None and not (log.exists() and log.stat().st_size > before):
            time.sleep(0.002)
        time.sleep(delay)
        running.kill()
    assert running.returncode in (-signal.SIGKILL, 0), running.stderr
    return running.returncode != 0


def is_mid_epoch(run: Path) -> bool:
    """Whether what is continued now is a checkpoint from inside an epoch."""
    return progress(run)[1] > 0


def kill_and_resume(reference: Path, kills: int, kills_per_run: int, seed: int) -> list[bool]:
    """Kill runs until `kills` have hit, each run up to `kills_per_run` times, and compare each with the reference.

    Returns for each kill whether the run went on from inside an epoch.
    """
    draws = random.Random(seed)
    duration = 1.5 * sum(line["seconds"] for line in metrics(reference, timed=True)) / kills_per_run
    hits: list[bool] = []
    number = 0
    while len(hits) < kills:
        run = reference.with_name(f"run{number}")
        number += 1
        for _ in range(min(kills_per_run, kills - len(hits))):
            if not kill(run, draws.uniform(0, duration)):
                break
            hits.append(is_mid_epoch(run))
        finish(run)
        assert run_difference(run, reference) is None
        assert {path.name for path in run.iterdir()} == {path.name for path in reference.iterdir()}
    return hits


def test_a_run_killed_at_random_moments_ends_in_the_same_bits(reference: Path) -> None:
    hits = kill_and_resume(reference, kills=3, kills_per_run=3, seed=0)
    assert any(hits)


@pytest.mark.slow
def test_twenty_of_twenty_kills_end_in_the_same_bits(reference: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begun = time.monotonic()
    hits = kill_and_resume(reference, kills=20, kills_per_run=3, seed=1)
    with capsys.disabled():
        print(
            f"\nkill-and-resume: {len(hits)} of 20 SIGKILLs end in equal bits,"
            f" {sum(hits)} of them mid-epoch ({time.monotonic() - begun:.0f} s)"
        )
    assert len(hits) == 20
    assert sum(hits) >= 5
