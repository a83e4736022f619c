"""What `make gpu` measures and checks, row by row; see `gpu.py`."""

import contextlib
import copy
import io
import json
import statistics
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn

import compressor
from benchmarks import step_overhead, throughput
from benchmarks.measuring import Figure, Step, milliseconds, ratio, take_turns
from compressor import models
from compressor.config import DataConfig
from compressor.data.images import DataSet
from compressor.data.memory import in_memory
from compressor.sparsity.structures import largest_of_runs

ROOT = Path(__file__).resolve().parents[1]
sys.path[1:1] = [str(ROOT / "tests"), str(ROOT / "tests" / "contract")]

import on_device  # noqa: E402

ARCHIVE = "cifar10-jpeg.tar.gz"
WITHIN = "['layer*.conv1.weight']"
SCHEDULES = {
    "dense": "",
    "agp-90": "{pruner: {class: AutomatedGradualPruner, initial_sparsity: 0.1, final_sparsity: 0.9, weights: '*'},"
    " starting_epoch: 0, ending_epoch: %d}",
    "filters-50": f"{{pruner: {{class: Pruner, criterion: l1, structure: Filters, weights: {WITHIN},"
    " rate: {agp: {initial_sparsity: 0.1, final_sparsity: 0.5}}}, starting_epoch: 0, ending_epoch: %d}",
    "l0": f"{{gate: {{class: HardConcreteL0, structure: Filters, weights: {WITHIN}, lambda: 0.005, l2: 5e-4,"
    " lr: 0.02}, starting_epoch: 0, ending_epoch: %d}",
}
"""The policies of the runs on CIFAR-10, up to an epoch; then the network is trained on as it is."""


def schedule_of(key: str, epochs: int) -> str:
    """The schedule of one of the runs on CIFAR-10: its policy in the first 70 % of the epochs, and a cosine."""
    policy = SCHEDULES[key] % max(1, round(0.7 * epochs)) if SCHEDULES[key] else ""
    rate = f"{{lr_scheduler: {{class: CosineAnnealingLR, T_max: {epochs}}}}}"
    return f"{{version: 2, policies: [{', '.join(filter(None, [policy, rate]))}]}}\n"


PRODUCTS = ((4096, 4096, 4096), (16384, 4096, 2048), (1024, 1024, 1024))
"""Outputs, inputs and columns of the 2:4 products."""


class Rows:
    """The rows for one device."""

    def __init__(
        self, device: torch.device, files: Path, work: Path, limit: Callable[[str], float], *, smoke: bool
    ) -> None:
        """`files` has the archive; `limit` tells how many seconds a row may take."""
        self._device, self._files, self._work, self._limit, self._smoke = device, files, work, limit, smoke
        self._cuda = device.type == "cuda"

    def of(self, key: str) -> Callable[[], Iterator[Figure]]:
        """Return the function of a row."""
        named: dict[str, Callable[[], Iterator[Figure]]] = {
            "placement": self.placement,
            "settings": self.settings,
            "step": self.step,
            "throughput": self.throughput,
            "two-of-four": self.two_of_four,
            "decode": self.decode,
        }
        return named.get(key) or partial(self.training, key)

    def placement(self) -> Iterator[Figure]:
        """Every component: placed, resumed bit by bit, and where its plain step waits for the device."""
        torch.use_deterministic_algorithms(True, warn_only=True)
        keys = list(on_device.COMPONENTS)[:: 20 if self._smoke else 1]
        faults: dict[str, str] = {}
        waiting: dict[str, list[str]] = {}
        try:
            for number, key in enumerate(keys, 1):
                try:
                    on_device.is_placed_and_resumes(key, self._device)
                    if places := on_device.waits(key, self._device):
                        waiting[key] = places
                except Exception as error:  # one component's fault is not another's
                    faults[key] = f"{key}: {type(error).__name__}: {str(error)[:200]}"
                if number % 10 == 0 or number == len(keys):
                    note = "; ".join(faults.values())
                    yield Figure(f"{number} components", number - len(faults), "right", number, True, note=note)
        finally:
            torch.use_deterministic_algorithms(False)
        told = "; ".join(
            f"{key} ({', '.join(Path(place).name for place in places)})" for key, places in waiting.items()
        )
        yield Figure("components whose plain step waits for the device", len(waiting), "components", note=told)

    def settings(self) -> Iterator[Figure]:
        """Masked weights stay zero; images a second of ResNet-20 under each setting."""
        names = [name for name in on_device.SETTINGS if self._cuda or "compile" not in name]
        count, blocks, steps = (2, 1, 1) if self._smoke else (512, 5, 10)
        batch = self._batch(count, 32, 10)
        network = models.build("resnet20_cifar", num_classes=10)
        for name in names:
            on_device.keeps_zeros(name, self._device)
            yield Figure(f"{name}: masked weights stay zero", 1, "right", 1, True)
            variants = {
                "float32": self._set({}, network, batch),
                name: self._set(on_device.SETTINGS[name], network, batch),
            }
            taken = take_turns(variants, blocks, steps, self._clock(), warm=True)
            rates = {key: count / statistics.median(times) for key, times in taken.items()}
            note = f"{ratio(taken['float32'], taken[name]):.2f} x float32, {rates['float32']:,.0f}"
            yield Figure(f"{name}: images a second of ResNet-20, batch {count}", rates[name], "images/s", note=note)

    def _set(self, chosen: dict[str, Any], network: nn.Module, batch: tuple[Tensor, Tensor]) -> Step:
        """A step with a mask in force, under a setting."""
        own = copy.deepcopy(network).to(self._device).train()
        if chosen.get("channels_last"):
            own.to(memory_format=torch.channels_last)
        config = {**step_overhead.CONFIG, **chosen}
        return step_overhead.ours(step_overhead.SCHEDULES["element mask in force"], own, *batch, config=config)

    def step(self) -> Iterator[Figure]:
        """Each schedule's step beside the bare loop, on ResNet-18."""
        sizes = [(2, 32)] if self._smoke else [(32, 64), (64, 224)]
        names = list(step_overhead.SCHEDULES)[:: 5 if self._smoke else 1]
        blocks, steps = (1, 1) if self._smoke else (5, 6)
        network = torchvision.models.resnet18(weights=None).to(self._device).train()
        for count, side in sizes:
            batch = self._batch(count, side, 1000)
            for name in names:
                variants = {
                    "dense": step_overhead.bare(copy.deepcopy(network), *batch),
                    "again": step_overhead.bare(copy.deepcopy(network), *batch),
                    "ours": step_overhead.ours(step_overhead.SCHEDULES[name], copy.deepcopy(network), *batch),
                }
                taken = take_turns(variants, blocks, steps, self._clock(), warm=True)
                dense, own = taken["dense"], taken["ours"]
                note = f"{milliseconds(own):.2f} ms beside {milliseconds(dense):.2f}"
                again = ratio(taken["again"], dense)
                budget = step_overhead.BUDGETS.get(name)
                what = f"{name}, {count} images of {side} pixels"
                yield Figure(what, ratio(own, dense), "x", budget, again=again, note=note)

    def throughput(self) -> Iterator[Figure]:
        """The trainer's images a second beside a bare loop's."""
        count, blocks = (130, 1) if self._smoke else (12_800, 5)
        yield from throughput.figures(count, blocks, self._device, self._clock())

    def two_of_four(self) -> Iterator[Figure]:
        """Products of a 2:4 weight, chosen by the N:M structure, beside the dense ones."""
        torch.manual_seed(0)
        for outputs, inputs, columns in [(64, 64, 64)] if self._smoke else PRODUCTS:
            weight = torch.randn(outputs, inputs, device=self._device, dtype=torch.bfloat16)
            keep = largest_of_runs(weight, 2, 4)
            assert bool((keep.view(outputs, -1, 4).sum(2) == 2).all()), "not 2 of each 4 are kept"
            masked = weight * keep
            if not self._cuda:
                yield Figure("2 of each 4 weights are kept", 1, "right", 1, True, note="the products need CUDA")
                return
            images = torch.randn(inputs, columns, device=self._device, dtype=torch.bfloat16)
            sparse = torch.sparse.to_sparse_semi_structured(masked)
            changed = float((sparse @ images - masked @ images).abs().max() / (masked @ images).abs().max())
            dense = partial(torch.mm, masked, images)
            variants = {"dense": dense, "again": dense, "sparse": partial(torch.mm, sparse, images)}
            taken = take_turns(variants, 7, 50, self._clock(), warm=True)
            what = f"{outputs} x {inputs} by {columns} columns: dense time / sparse time"
            note = (
                f"{milliseconds(taken['sparse']):.3f} ms beside {milliseconds(taken['dense']):.3f}; the largest change"
                f" of an output is {changed:.1g} of the largest output"
            )
            again = ratio(taken["dense"], taken["again"])
            yield Figure(what, ratio(taken["dense"], taken["sparse"]), again=again, note=note)

    def decode(self) -> Iterator[Figure]:
        """Decode the archive, and see how long an epoch takes."""
        self._choose()
        began = time.perf_counter()
        data = cifar()
        yield Figure(f"{len(data.train) + len(data.test):,} images decoded", time.perf_counter() - began, "s")
        yield Figure("an epoch of the dense network, the second", self._second(), "s")

    def training(self, key: str) -> Iterator[Figure]:
        """ResNet-20 on CIFAR-10, for as many epochs as fit into the row's seconds."""
        self._choose()
        began = time.monotonic()
        second = self._second()
        left = self._limit(key) - (time.monotonic() - began)
        epochs = 2 if self._smoke else max(3, min(90, int(0.65 * left / second)))  # reading, tests, reports: a third
        run = self._train(key, epochs)
        seconds = statistics.median(run["seconds"])
        note = f"{epochs} epochs of {seconds:.2f} s; {100 * run['sparsity']:.1f} % of the weights are zero"
        yield Figure("top-1 of the test images, last epoch", run["top1"], "%", note=note)
        yield Figure("training images a second", run["images"] / seconds, "images/s", note="validation is in the time")

    def _choose(self) -> None:
        """Say which images are used."""
        if not (self._files / ARCHIVE).is_file():
            raise FileNotFoundError(f"{self._files / ARCHIVE} is missing: GPU_FILES is the folder that has it")
        CHOSEN.update(archive=self._files / ARCHIVE, images=40 if self._smoke else None)

    @cache  # noqa: B019 - there is one object in a process
    def _second(self) -> float:
        """Seconds of the second epoch of a dense run."""
        return float(self._train("dense", 2, "trial")["seconds"][-1])

    def _train(self, key: str, epochs: int, name: str = "") -> dict[str, Any]:
        schedule = self._work / f"{name or key}.yaml"
        schedule.write_text(schedule_of(key, epochs))
        folder = self._work / f"run-{name or key}"
        batch = 16 if self._smoke else 512
        overrides = {"data.name": "benchmarks.gpu_rows:cifar", "epochs": epochs, "report.html": False}
        overrides |= {"data.batch": batch, "optimizer.lr": 0.2}
        with contextlib.redirect_stdout(io.StringIO()):
            outcome = compressor.train(
                schedule,
                "resnet20_cifar10",
                overrides=overrides,
                out=folder,
                device=str(self._device),
                allow_plugins=True,
            )
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert outcome.report is not None
        totals = outcome.report.totals
        data = cifar()
        return {
            "top1": totals.top1,
            "sparsity": totals.sparsity,
            "seconds": [line["seconds"] for line in lines],
            "images": round(0.9 * len(data.train)),
        }

    def _batch(self, count: int, side: int, classes: int) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        images, labels = torch.randn(count, 3, side, side), torch.randint(0, classes, (count,))
        return images.to(self._device), labels.to(self._device)

    def _clock(self) -> Callable[[], float]:
        return EventClock() if self._cuda else time.process_time


class EventClock:
    """Seconds on the device, by CUDA events; each reading waits for the device."""

    def __init__(self) -> None:
        self._last, self._seconds = self._event(), 0.0

    @staticmethod
    def _event() -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        event.synchronize()
        return event

    def __call__(self) -> float:
        """Return the seconds since this clock was made."""
        last, self._last = self._last, self._event()
        self._seconds += last.elapsed_time(self._last) / 1000
        return self._seconds


CHOSEN: dict[str, Any] = {}
"""The archive, and how many images of each part are used; None: all."""


@cache
def cifar() -> DataSet:
    """CIFAR-10 of the archive of JPEG files, decoded once; all runs of the process have it on the device."""
    parts: dict[str, tuple[list[np.ndarray[Any, Any]], list[int]]] = {"train": ([], []), "test": ([], [])}
    classes: dict[str, int] = {}
    with tarfile.open(CHOSEN["archive"]) as archive:
        for member in archive:
            words = Path(member.name).parts[-3:]
            if not member.isfile() or not member.name.endswith(".jpg") or words[0] not in parts:
                continue
            pixels, labels = parts[words[0]]
            if CHOSEN["images"] is not None and labels.count(classes.setdefault(words[1], len(classes))) >= max(
                1, CHOSEN["images"] // 10
            ):
                continue
            file = archive.extractfile(member)
            assert file is not None
            pixels.append(np.asarray(Image.open(file).convert("RGB")))
            labels.append(classes.setdefault(words[1], len(classes)))
    tensors = [
        (torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels))
        for pixels, labels in parts.values()
    ]
    return in_memory("cifar10-jpeg", tensors[0], tensors[1], list(classes), DataConfig(name="cifar10-jpeg"))
