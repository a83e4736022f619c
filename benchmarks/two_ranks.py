"""Images a second of two processes under torchrun, beside one process and two runs that know nothing of each other.

    python -m benchmarks.two_ranks [--data ../shared/data] [--rounds 3] [--images 6400]

resnet20 on CIFAR-10 (JPEG), batch 128, crops and flips; every process has one thread. A run has two epochs without
validation, and the second one is timed: files are decoded before the first. The three kinds take turns. `others` is
what all other processes of the machine used meanwhile, in cores: figures hold where that is below 0.05.

Two processes should reach 1.7 times one process, or 0.85 of what two separate runs reach together.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ENOUGH, OF_TWO = 1.7, 0.85

CONFIG = """\
model: {{name: resnet20_cifar}}
data: {{name: imagefolder, batch: 128, images: {images}, validation: 0, augment: [crop, flip]}}
optimizer: {{name: sgd, lr: 0.1, momentum: 0.9, weight_decay: 1e-4}}
epochs: 2
report: {{html: false}}
"""


def main() -> None:
    """Measure, and print a line for each round and the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=6400)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        with tarfile.open(given.data / "cifar10-jpeg.tar.gz") as archive:
            archive.extractall(folder / "data", filter="data")
        (folder / "speed.yaml").write_text(CONFIG.format(images=given.images))
        ratios = []
        for number in range(given.rounds):
            rates, others = {}, 0.0
            for name, run in (("one", one), ("two ranks", two_ranks), ("two runs", two_runs)):
                seconds, used = beside_others(lambda run=run: run(folder))  # type: ignore[misc]
                rates[name] = sum(given.images / each for each in seconds)
                others = max(others, used)
            ratios.append((rates["two ranks"] / rates["one"], rates["two ranks"] / rates["two runs"]))
            shown = ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items())
            print(
                f"round {number + 1}: images/s: {shown}; two ranks: {ratios[-1][0]:.2f} x one,"
                f" {ratios[-1][1]:.2f} of two runs; others used {others:.2f} cores",
                flush=True,
            )
        met = sum(of_one >= ENOUGH or of_two >= OF_TWO for of_one, of_two in ratios)
        print(f"{met} of {len(ratios)} rounds reach {ENOUGH} x one process, or {OF_TWO} of two runs")


def one(folder: Path) -> list[float]:
    """Return the seconds of the timed epoch of one process."""
    return [finished(started(folder, "one"), folder / "one")]


def two_runs(folder: Path) -> list[float]:
    """Return those of two separate runs at the same time."""
    names = ("first", "second")
    both = [started(folder, name) for name in names]
    return [finished(each, folder / name) for each, name in zip(both, names, strict=True)]


def two_ranks(folder: Path) -> list[float]:
    """Return those of two processes that torchrun starts."""
    return [
        finished(started(folder, "ranks", "torch.distributed.run", "--nproc-per-node", "2", "-m"), folder / "ranks")
    ]


def started(folder: Path, name: str, *launcher: str) -> subprocess.Popen[bytes]:
    """Start a run in a new folder."""
    subprocess.run(["rm", "-rf", str(folder / name)], check=True)
    arguments = ["train", "-c", "speed", "--data", "data", "--out", name]
    return subprocess.Popen(
        [sys.executable, "-m", *launcher, "compressor", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )


def finished(run: subprocess.Popen[bytes], path: Path) -> float:
    """Wait for a run; return the seconds of its second epoch."""
    if run.wait() != 0:
        raise SystemExit(f"{path.name}: the run failed with {run.returncode}")
    return float(json.loads((path / "metrics.jsonl").read_text().splitlines()[1])["seconds"])


def beside_others(run: Callable[[], list[float]]) -> tuple[list[float], float]:
    """Return what `run` returns, and how many cores all processes used that it did not start."""
    before, own, begun = busy(), of_children(), time.monotonic()
    found = run()
    spent = time.monotonic() - begun
    return found, max(busy() - before - (of_children() - own), 0.0) / spent


def busy() -> float:
    """Return the CPU seconds that the machine has used so far."""
    fields = [int(number) for number in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / os.sysconf("SC_CLK_TCK")


def of_children() -> float:
    """Return the CPU seconds of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
