"""`compress train --smoke`: each epoch has two small steps, from which the cost of the full run is estimated."""

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compressor.config import Config
from compressor.data import DataSet, SmokeFeed, fits, random_set
from compressor.errors import UserError
from compressor.evaluating import evaluating
from compressor.experiment import building, folder
from compressor.experiment.networks import Networks
from compressor.importing import random_state_kept
from compressor.training import autocast, duration, optimizers, part_sizes

_LONG = 0.3
"""If a step of 8 images takes this many seconds, larger steps are not timed but estimated in proportion."""

_LARGE = 64
"""The number of images of the larger step that is timed."""


@dataclass(frozen=True)
class Estimate:
    """The expected cost of the full run on this machine: seconds, largest number of bytes in memory, bytes on disk."""

    seconds: float
    memory: int
    disk: int

    def __str__(self) -> str:
        return (
            f"the full run is expected to take {duration(self.seconds)}, {_size(self.memory)} of memory and"
            f" {_size(self.disk)} on disk"
        )


def _size(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def load_data(config: Config, root: Path | None) -> tuple[DataSet, int | None]:
    """Return the configuration's data set, or random images without its files; and its number of training images."""
    try:
        return building.load_data(config, root), None
    except UserError as error:
        if ":" in config.data.name:
            raise
        try:
            return random_set(config.data, config.model.num_classes, config.seed)
        except UserError:
            raise error from None


def estimate(
    config: Config,
    networks: Networks,
    path: Path,
    dataset: DataSet,
    feed: SmokeFeed,
    where: torch.device,
    count: int | None,
) -> Estimate:
    """Return the cost of the full run, from the smoke run in `path` and some steps of the dense network.

    `count` is the number of training images of the set, where `dataset` has random ones instead.
    """
    with random_state_kept():
        return _estimate(config, networks, path, dataset, feed, where, count)


def _estimate(
    config: Config,
    networks: Networks,
    path: Path,
    dataset: DataSet,
    feed: SmokeFeed,
    where: torch.device,
    count: int | None,
) -> Estimate:
    seconds = folder.seconds(path)
    peak = _peak(where)
    network = networks.to_load(len(dataset.classes)).to(where)
    batches = list(feed.train(0, 0))
    images, labels = (torch.cat([batch[n] for batch in batches]) for n in (0, 1))
    step, forward, saved = _measure(network, config, images, labels, where)
    parts = part_sizes(min(config.data.batch, feed.images), config.optimizer.accumulate)
    own = step(len(batches[0][1]))
    extra = [max(spent / feed.steps_per_epoch - own, 0.0) for spent in seconds]
    full = len(seconds) * feed.full_steps
    spent = (
        full * len(parts) * step(parts[0])
        + sum(extra) * feed.steps_per_epoch
        + max(full - len(seconds) * feed.steps_per_epoch, 0) * statistics.median(extra)
        + len(seconds) * feed.held_out * forward
        + config.test * len(dataset.test) * forward
    )
    data = 0
    if count is not None and fits(count, dataset.shape):
        data = count * torch.Size(dataset.shape).numel()
    checkpoint, best = ((path / name).stat().st_size for name in (folder.CHECKPOINT, folder.BEST))
    kept = config.checkpoint.keep + 1  # the next one is written before the oldest goes
    return Estimate(spent, peak + data + saved * parts[0], kept * checkpoint + best)


def _peak(where: torch.device) -> int:
    if where.type == "cuda":
        return torch.cuda.max_memory_allocated(where)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _measure(
    network: nn.Module, config: Config, images: Tensor, labels: Tensor, where: torch.device
) -> tuple[Callable[[int], float], float, int]:
    """Return the seconds of a step of this many images, of the forward pass of one, and the bytes that one keeps for
    the backward pass.
    """
    optimizer = optimizers.build(network, config.optimizer)
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel() * tensor.element_size())
        return tensor

    def step(size: int) -> float:
        some = torch.arange(size) % len(labels)
        batch, truth = images[some.to(where)], labels[some.to(where)]
        begun = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with autocast(where, config):
            loss = nn.functional.cross_entropy(network(batch).float(), truth)
        torch.autograd.backward(loss)
        optimizer.step()
        _wait(where)
        return time.perf_counter() - begun

    network.train()
    few = len(labels)
    with torch.autograd.graph.saved_tensors_hooks(keep, _given):
        step(few)
    few_seconds = min(step(few) for _ in range(3))
    many = max(min(_LARGE, config.data.batch), few)
    per_image = few_seconds / few
    if few_seconds < _LONG and many > few:
        per_image = max((min(step(many) for _ in range(3)) - few_seconds) / (many - few), 0.0)
    fixed = max(few_seconds - few * per_image, 0.0)
    begun = time.perf_counter()
    with torch.no_grad(), evaluating(network), autocast(where, config):
        network(images)
        _wait(where)
    forward = (time.perf_counter() - begun) / few
    return lambda size: fixed + size * per_image, forward, sum(kept) // few


def _given(tensor: Any) -> Any:
    return tensor


def _wait(where: torch.device) -> None:
    if where.type == "cuda":
        torch.cuda.synchronize(where)
