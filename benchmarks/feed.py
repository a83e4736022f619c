"""Images a second of the feed beside a plain loop with the same decoder and transforms.

    python -m benchmarks.feed [--images 2000] [--rounds 7] [--folder FOLDER]

A synthetic ImageFolder of JPEGs of ImageNet's size (500 x 375, about 110 kB: smooth content and noise) is made once, in
the temporary folder. Both read it for RandomResizedCrop(224) and a flip, as normalized float32 batches of 64, without
and with two processes: ours as a run is fed, the other one torchvision's ImageFolder and a DataLoader whose processes
stay, too. They take turns, one thread for each process; ours also beside itself, which shows the noise. The ratios are
medians over the rounds, of CPU time (with that of the processes) and of wall time.
"""

import argparse
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from compressor.config import DataConfig
from compressor.data import DataFeed, load
from compressor.data.imagefolder import IMAGENET_MEAN, IMAGENET_STD

SIDE, BATCH, CLASSES = 224, 64, 10
WIDTH, HEIGHT, NOISE, QUALITY = 500, 375, 26.0, 90

Pass = Callable[[], Iterable[tuple[Tensor, Tensor]]]


class Spent(NamedTuple):
    """Seconds of one pass over the images: on the clock, and of the CPUs."""

    wall: float
    cpu: float


def made(folder: Path, images: int) -> Path:
    """Return a folder of training images, and of a few for the test; it is made where it does not exist."""
    root = folder / f"compress_feed_{images}"
    if root.is_dir():
        return root
    draws = np.random.default_rng(0)
    new = Path(tempfile.mkdtemp(dir=folder))
    for split, count in (("train", images), ("test", CLASSES)):
        for number in range(count):
            place = new / split / f"class_{number % CLASSES}"
            place.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(draws.integers(0, 256, (6, 8, 3), dtype=np.uint8))
            smooth = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), dtype=np.float32)
            pixels = smooth + NOISE * draws.standard_normal((HEIGHT, WIDTH, 1), dtype=np.float32)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"{number:05d}.jpg", quality=QUALITY)
    new.rename(root)
    return root


def ours(root: Path, workers: int) -> Pass:
    """Return passes of the feed of a run, each one an epoch."""
    crop = {"RandomResizedCrop": {"size": SIDE}}
    config = DataConfig(
        name="imagefolder", size=SIDE, batch=BATCH, validation=0.0, augment=[crop, "flip"], workers=workers
    )
    feed = DataFeed(load(config, root, 0), config, 0, torch.device("cpu"))
    epochs = iter(range(10**6))
    return lambda: feed.train(next(epochs), 0)


def plain(root: Path, workers: int) -> Pass:
    """Return passes of the loop that everybody writes."""
    transform = v2.Compose(
        [
            v2.PILToTensor(),
            v2.RandomResizedCrop(SIDE),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    loader = DataLoader(
        ImageFolder(root / "train", transform),
        batch_size=BATCH,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    return lambda: loader


def spent(one: Pass) -> Spent:
    """Return what a pass costs."""
    wall, cpu = time.perf_counter(), _cpu()
    for _ in one():
        pass
    return Spent(time.perf_counter() - wall, _cpu() - cpu)


def _cpu() -> float:
    """Return the CPU seconds of this process and of its children, those that run among them."""
    ended = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    total = sum(one.ru_utime + one.ru_stime for one in ended)
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def compared(root: Path, workers: int, rounds: int) -> tuple[list[Spent], list[Spent], list[Spent]]:
    """Return what each pass cost: of the plain loop, of ours, and of ours again."""
    passes = [plain(root, workers), ours(root, workers), ours(root, workers)]
    for one in passes:
        spent(one)  # the first pass starts the processes
    found: list[list[Spent]] = [[], [], []]
    for number in range(rounds):
        for turn in range(3):
            which = (number + turn) % 3
            found[which].append(spent(passes[which]))
    return found[0], found[1], found[2]


def ratio(first: Sequence[Spent], second: Sequence[Spent], of: str) -> float:
    """Return how many times as fast the second one is: the median over the rounds."""
    return statistics.median(getattr(a, of) / getattr(b, of) for a, b in zip(first, second, strict=True))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    given = parser.parse_args()
    torch.set_num_threads(1)
    root = made(given.folder, given.images)
    sizes = [path.stat().st_size for path in root.glob("train/*/*")]
    print(f"{len(sizes)} images, {statistics.mean(sizes) / 1000:.0f} kB each; {given.rounds} rounds")
    print("| processes | ours, images/s | plain loop | ours / plain: CPU, wall | ours / ours: CPU, wall |")
    print("| --- | --- | --- | --- | --- |")
    for workers in (0, 2):
        theirs, first, again = compared(root, workers, given.rounds)
        speeds = [len(sizes) / statistics.median(one.wall for one in each) for each in (first, theirs)]
        pairs = [f"{ratio(a, b, 'cpu'):.3f}, {ratio(a, b, 'wall'):.3f}" for a, b in ((theirs, first), (first, again))]
        print(f"| {workers} | {speeds[0]:.0f} | {speeds[1]:.0f} | {pairs[0]} | {pairs[1]} |")


if __name__ == "__main__":
    main()
