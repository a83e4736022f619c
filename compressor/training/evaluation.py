"""Batches, and the loss and accuracy of a network on them."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from compressor.config import Config
from compressor.evaluating import evaluating
from compressor.training.meters import Meters
from compressor.world import World

Batches = Iterator[tuple[Tensor, Tensor]]

OwnBatches = Iterator[tuple[Tensor, Tensor, float, int]]
"""A process's images of each batch and their labels; the factor of their mean loss, so that the mean over all processes
is that over the batch; and how many processes have these same images."""


class Feed(Protocol):
    """A source of prepared batches (images, labels). The batches of an epoch depend on the epoch alone.

    Of several processes each evaluates its own images, and all of them while it is alone (`World.alone`).
    """

    steps_per_epoch: int

    def train(self, epoch: int, first_step: int) -> Batches:
        """Return the training batches of an epoch from `first_step` on."""

    def of_process(self, epoch: int, first_step: int) -> OwnBatches:
        """Return the images of this process in each of these batches, where several processes share them."""

    def validation(self) -> Batches:
        """Return the validation images, not augmented; nothing where there are none."""

    def test(self) -> Batches:
        """Return the test images."""


def evaluate(
    model: nn.Module,
    batches: Batches,
    device: torch.device,
    config: Config,
    meters: Meters | None = None,
    world: World | None = None,
) -> dict[str, float]:
    """Return mean cross-entropy, top-1 and top-5 (percent) of `model` in eval mode; empty where there are no
    batches. `meters` count the batches; `world`: the processes that have the other images.
    """
    meters = meters or Meters(device)
    with torch.no_grad(), evaluating(model), autocast(device, config):
        for images, labels in batches:
            meters.add(model(images).float(), labels)
    if world is not None:
        meters.gather(world)
    return meters.means()


def autocast(device: torch.device, config: Config) -> AbstractContextManager[Any]:
    """Return the context of the forward pass's precision; bf16 needs no scaling of the gradient."""
    return torch.autocast(device.type, torch.bfloat16) if config.precision == "bf16" else nullcontext()
