"""Batches, where they come from, and what a network makes of them."""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from compressor.config import Config
from compressor.evaluating import evaluating
from compressor.training.meters import Meters

Batches = Iterator[tuple[Tensor, Tensor]]


class Feed(Protocol):
    """Where prepared batches (images, labels) come from; an epoch's batches are a function of the epoch alone."""

    steps_per_epoch: int

    def train(self, epoch: int, first_step: int) -> Batches:
        """The training batches of an epoch from `first_step` on."""

    def validation(self) -> Batches:
        """The held-out training images, un-augmented; nothing where there are none."""

    def test(self) -> Batches:
        """The test images."""


def evaluate(model: nn.Module, batches: Batches, device: torch.device, config: Config) -> dict[str, float]:
    """Mean cross-entropy, top-1 and top-5 (percent) of `model` in eval mode; empty where there are no batches."""
    meters = Meters(device)
    with torch.no_grad(), evaluating(model), autocast(device, config):
        for images, labels in batches:
            meters.add(model(images).float(), labels)
    return meters.means()


def autocast(device: torch.device, config: Config) -> torch.autocast:
    """The forward pass's precision; bf16 needs no scaling of the gradient."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")
