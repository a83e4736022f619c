"""Processes that are stopped at any moment: the run that goes on from its checkpoint ends in the same bits."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from helpers import TINY, environment, metrics, run_difference, saved, start, succeed

KILLS = int(os.environ.get("KILLS", "3"))

# 57 steps an epoch; a checkpoint every 30 ms, several in an epoch. Dropout draws from torch's generator at every step.
CONFIG = f"""\
{TINY.replace("epochs: 4", "epochs: 10").replace("name: digits, size: 8, batch: 64", "name: streamed:digits, batch: 8")}
checkpoint: {{every_minutes: 0.0005}}
"""
# A worker process decodes the images: it may live on for seconds when the run was killed.
STREAMED = """\
import dataclasses
from compressor.config import DataConfig
from compressor.data import load
from compressor.data.streamed import Streamed

class Source:
    def __init__(self, images):
        self.images, self.shape = images, tuple(images.shape[1:])

    def image(self, index):
        return self.images[index]

def digits():
    made = load(DataConfig(name="digits", size=8), None, 0)
    source = Source(made.train.images[:500])
    return dataclasses.replace(made, train=Streamed(source, made.train.labels[:500], workers=1, seed=0))
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
    (folder / "streamed.py").write_text(STREAMED)
    finish(folder / "reference")
    return folder / "reference"


def test_a_process_that_gets_a_signal_ends_with_128_and_its_number_and_another_one_goes_on(reference: Path) -> None:
    run = reference.with_name("signalled")
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        before = progress(run)
        with begin(run) as running:
            wait_for_saves(run, running, 1)
            running.send_signal(number)
            _, err = running.communicate(timeout=300)
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
        patch.syspath_prepend(run.parent)
        patch.setenv("COMPRESS_ALLOW_PLUGINS", "1")
        succeed(*RUN, run.name)


def progress(run: Path) -> tuple[int, int]:
    """Epochs and steps of the last checkpoint."""
    path = run / "checkpoint.pt"
    found = saved(path)["state"]["progress"] if path.exists() else {"epoch": 0, "step": 0}
    return int(found["epoch"]), int(found["step"])


def begin(run: Path) -> subprocess.Popen[str]:
    """Start or continue `run` as a process of its own."""
    return start(*RUN, run.name, cwd=run.parent, env={**environment(), "COMPRESS_ALLOW_PLUGINS": "1"})


def wait_for_saves(run: Path, running: subprocess.Popen[str], saves: int) -> None:
    """Wait until the process has written this many checkpoints, or has ended."""
    path = run / "checkpoint.pt"
    seen = path.stat().st_ino if path.exists() else None
    while saves and running.poll() is None:
        time.sleep(0.002)
        now = path.stat().st_ino if path.exists() else None
        saves -= now != seen
        seen = now


def kill(run: Path, saves: int, delay: float) -> bool:
    """Start or continue `run`, and SIGKILL it `delay` seconds after it wrote its checkpoint number `saves`.

    Returns False where it was done before.
    """
    with begin(run) as running:
        wait_for_saves(run, running, saves)
        time.sleep(delay)
        running.kill()
    assert running.returncode in (-signal.SIGKILL, 0), running.communicate()[1]
    return running.returncode != 0


def is_mid_epoch(run: Path) -> bool:
    """Whether what is continued now is a checkpoint from inside an epoch."""
    return progress(run)[1] > 0


@pytest.mark.counted
def test_a_run_killed_at_random_moments_ends_in_the_same_bits(
    reference: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draws, hits, runs = random.Random(KILLS), list[bool](), 0
    while len(hits) < KILLS:
        run = reference.with_name(f"run{runs}")
        runs += 1
        # What is killed is continued at once, while its worker may still live.
        for _ in range(min(3, KILLS - len(hits))):
            if not kill(run, draws.randrange(6), draws.uniform(0, 0.06)):
                break
            hits.append(is_mid_epoch(run))
        finish(run)
        assert run_difference(run, reference) is None
        assert {path.name for path in run.iterdir()} == {path.name for path in reference.iterdir()}
    with capsys.disabled():
        print(f"\nkill-and-resume: {len(hits)} SIGKILLs end in equal bits, {sum(hits)} of them mid-epoch")
    assert sum(hits) >= KILLS // 4
