"""The processes that train one network together: one, or several over torch.distributed."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Value = TypeVar("Value")


class World:
    """One process alone. Random streams are torch's global generator, whose state is saved with the run."""

    rank = 0
    size = 1

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over all processes, on each of them; `tensor` stays as it is."""
        return tensor

    def decide(self, function: Callable[[], Value]) -> Value:
        """Return the result of `function` on rank 0, on all processes; the others do not call it."""
        return function()

    def stream(self, name: str) -> torch.Generator:
        """Return a stream of random numbers that is the same on all processes."""
        return torch.default_generator

    def state_dict(self) -> dict[str, Tensor]:
        """Return the states of all streams that are not global."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue saved streams; others begin again."""


class Processes(World):
    """The processes of a torch.distributed group; a stream is seeded from (seed, name) and is the same on all."""

    def __init__(self, seed: int, group: Any = None) -> None:
        self._seed, self._group = seed, group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self._streams: dict[str, torch.Generator] = {}

    def sum(self, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total, group=self._group)
        return total

    def decide(self, function: Callable[[], Value]) -> Value:
        box: list[Any] = [None, None]
        if self.rank == 0:
            try:
                box[0] = function()
            except Exception as error:  # the other processes wait for an answer
                box[1] = error
        dist.broadcast_object_list(box, group=self._group, group_src=0)
        if box[1] is not None:
            raise box[1]
        found: Value = box[0]
        return found

    def stream(self, name: str) -> torch.Generator:
        if name not in self._streams:
            self._streams[name] = torch.Generator().manual_seed(self._seed_of(name))
        return self._streams[name]

    def _seed_of(self, name: str) -> int:
        key = hashlib.sha256(f"{self._seed} {name}".encode()).digest()
        return int.from_bytes(key[:8], "little")

    def state_dict(self) -> dict[str, Tensor]:
        return {name: stream.get_state() for name, stream in self._streams.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, stream in self._streams.items():
            stream.manual_seed(self._seed_of(name))
        for name, bits in state.items():
            self.stream(name).set_state(bits)
