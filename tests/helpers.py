"""What several folders of tests need: the command here and as a process, a tiny experiment, equality of bits."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch
from bits import copied, difference, raw, reread  # noqa: F401 - other tests take them from here
from torch import Tensor

from compressor import cli
from compressor.training.observers import Terminal

DISTILLER = {
    "pruners": (
        "MagnitudeParameterPruner SensitivityPruner SparsityLevelParameterPruner AutomatedGradualPruner BaiduRNNPruner"
        " SplicingPruner StructureParameterPruner L1RankedStructureParameterPruner L2RankedStructureParameterPruner"
        " L1RankedStructureParameterPruner_AGP L2RankedStructureParameterPruner_AGP RandomLevelStructureParameterPruner"
        " ActivationAPoZRankedFilterPruner ActivationAPoZRankedFilterPruner_AGP ActivationMeanRankedFilterPruner"
        " ActivationMeanRankedFilterPruner_AGP GradientRankedFilterPruner GradientRankedFilterPruner_AGP"
        " RandomRankedFilterPruner RandomRankedFilterPruner_AGP BernoulliFilterPruner BernoulliFilterPruner_AGP"
        " FMReconstructionChannelPruner"
    ).split(),
    "regularizers": ["L1Regularizer", "GroupLassoRegularizer", "GroupVarianceRegularizer"],
    "extensions": ["FilterRemover", "ChannelRemover", "StructureRemover"],
    "lr_schedulers": ["PolynomialLR", "MultiStepMultiGammaLR"],
}
"""The class names that Distiller's schedules use, by section, but for its quantizers."""

torch.set_num_threads(1)  # as `environment` has it: sums in another order are other bits

TINY = """\
model: {name: mlp, hidden: [16], dropout: [0.2], inputs: 64}
data: {name: digits, size: 8, batch: 64, validation: 0.1}
optimizer: {name: sgd, lr: 0.1, momentum: 0.9, weight_decay: 1e-4}
epochs: 4
report: {html: false}
"""
"""1,293 training images, 144 for validation, 360 test images; 21 steps an epoch, the last one of 13 images."""

PRUNE = """\
version: 2
config: tiny
pruners:
  fine: {class: AutomatedGradualPruner, initial_sparsity: 0.25, final_sparsity: 0.75, weights: '*'}
regularizers:
  shrink: {class: L1Regularizer, reg_regims: {fc1.weight: 1e-4}}
lr_schedulers:
  steps: {class: StepLR, step_size: 2, gamma: 0.1}
policies:
  - {pruner: {instance_name: fine}, starting_epoch: 1, ending_epoch: 4}
  - {regularizer: {instance_name: shrink}}
  - {lr_scheduler: {instance_name: steps}}
"""
"""AGP over epochs 1, 2, 3: sparsity 0.25, 0.75 - 0.5 / 8 = 0.6875, 0.75."""


def write_tiny(folder: Path) -> None:
    """`tiny.yaml` and `prune.yaml`, found by bare name from `folder`."""
    (folder / "tiny.yaml").write_text(TINY)
    (folder / "prune.yaml").write_text(PRUNE)


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of every test: `tiny.yaml` and `prune.yaml`."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("COMPRESS_DATA", raising=False)
    monkeypatch.delenv("COMPRESS_DEBUG", raising=False)
    monkeypatch.delenv("COMPRESS_ALLOW_PLUGINS", raising=False)
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path)
    return tmp_path


class Result(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def compress(*arguments: object) -> Result:
    """Run `compress ...` in this process, as the console script does."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["compress", *map(str, arguments)]
    with mock.patch.object(sys, "argv", argv), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main()
            code: Any = 0
        except SystemExit as ended:
            code = ended.code
    return Result(code, out.getvalue(), err.getvalue())


def succeed(*arguments: object) -> str:
    """Run `compress ...` in this process and give its output; a failure shows the message."""
    result = compress(*arguments)
    assert result.code == 0, result.err
    return result.out


def environment() -> dict[str, str]:
    """What a process of its own gets: one thread, nothing of the caller's settings."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("COMPRESS_", "COLUMNS"))}
    return {**kept, "OMP_NUM_THREADS": "1"}


def start(*arguments: object, cwd: Path, **options: Any) -> subprocess.Popen[str]:
    """Start `compress ...` as a process of its own, with its output in pipes."""
    command = [str(Path(sys.executable).with_name("compress")), *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment()}
    return subprocess.Popen(command, cwd=cwd, **{**pipes, **options})


def process(*arguments: object, cwd: Path, **options: Any) -> Result:
    """Run `compress ...` as a process of its own, to its end."""
    with start(*arguments, cwd=cwd, **options) as running:
        out, err = running.communicate(timeout=300)
    return Result(running.returncode, out, err)


def metrics(folder: Path, *, timed: bool = False) -> list[dict[str, Any]]:
    """metrics.jsonl; without `seconds`, which no two runs share, unless they are asked for."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if timed or key != "seconds"} for line in lines]


def saved(path: Path) -> dict[str, Any]:
    """A checkpoint, read as strangers read it: weights only."""
    checkpoint: dict[str, Any] = torch.load(path, weights_only=True)
    return checkpoint


def run_difference(ours: Path, theirs: Path) -> str | None:
    """The first difference between two finished runs: state, best weights, metrics, what is recorded, reports."""
    for name in ("checkpoint.pt", "best.pt"):
        if found := difference(saved(ours / name), saved(theirs / name), name):
            return found
    if found := difference(metrics(ours), metrics(theirs), "metrics.jsonl"):
        return found
    names = ("layers.jsonl", "figures.json", "sparsity.json", "sparsity.csv", "config.yaml", "schedule.yaml")
    there = [name for name in names if (ours / name).exists() or (theirs / name).exists()]
    return next((name for name in there if (ours / name).read_bytes() != (theirs / name).read_bytes()), None)


@contextlib.contextmanager
def signal_after(number: int, epoch: int, step: int) -> Iterator[None]:
    """Send this process a signal once that step of that epoch is taken (both count from 0)."""
    plain = Terminal.on_step

    def on_step(self: Terminal, at_epoch: int, at_step: int, loss: Tensor) -> None:
        plain(self, at_epoch, at_step, loss)
        if (at_epoch, at_step) == (epoch, step):
            os.kill(os.getpid(), number)

    with mock.patch.object(Terminal, "on_step", on_step):
        yield


def interrupted(*arguments: object, epoch: int = 2, step: int = 9, number: int = signal.SIGTERM) -> Result:
    """Run `compress train ...` in this process until a signal stops it there."""
    with signal_after(number, epoch, step):
        result = compress("train", *arguments)
    assert result.code == 128 + number, result.err
    return result
