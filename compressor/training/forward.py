"""The network as training calls it: compiled where that is asked for, and shared by the processes of a world."""

import gc
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from compressor.world import World

_QUIET = "Grad strides do not match bucket view strides"
"""A warning on speed alone, with `channels_last`."""


class Forward:
    """Calls the network in training. Over several processes the gradients of a backward pass become their means.

    The wrapper that does this knows the parameters that it was made with: where a policy removes channels, or freezes
    weights, a new one is made. Compiled, the network is called through a wrapper; its parameters and their names stay
    those of the plain one.
    """

    def __init__(self, model: nn.Module, world: World, *, compiled: bool) -> None:
        self._model, self._several, self._compiled = model, world.size > 1, compiled
        self._known: list[tuple[nn.Parameter, bool, torch.Size]] = []
        self._wrapped: DistributedDataParallel | None = None
        self._call: Callable[[Tensor], Tensor] = self._made(model)

    def _made(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        called: Callable[[Tensor], Tensor] = torch.compile(model) if self._compiled else model
        return called

    def __call__(self, images: Tensor) -> Tensor:
        return self._call(images)

    def prepare(self) -> None:
        """Get ready for a step, when the network is as it will be in its forward passes."""
        if not self._several:
            return
        now = [(one, one.requires_grad, one.shape) for one in self._model.parameters()]
        if len(now) == len(self._known) and all(map(_same, now, self._known)):
            return
        self._known, self._wrapped, self._call = now, None, self._model
        gc.collect()  # the old wrapper would still act on the parameters
        if any(trained for _, trained, _ in now):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                # find_unused_parameters also keeps the first division of the gradients into buckets. Without it torch
                # makes a new one after each process's first step. The sums of three or more processes depend on the
                # buckets, so a resumed run would have other bits.
                self._wrapped = DistributedDataParallel(
                    self._model, broadcast_buffers=False, find_unused_parameters=True
                )
            warnings.filterwarnings("ignore", _QUIET)
            self._call = self._made(self._wrapped)

    def part(self, *, last: bool) -> AbstractContextManager[Any]:
        """Return the context of the passes of one part of a batch: gradients are averaged in those of the last one."""
        return nullcontext() if last or self._wrapped is None else self._wrapped.no_sync()


def _same(one: tuple[nn.Parameter, bool, torch.Size], other: tuple[nn.Parameter, bool, torch.Size]) -> bool:
    return one[0] is other[0] and one[1:] == other[1:]
