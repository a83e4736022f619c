"""The processes that train one network together: one, or several that `torchrun` started."""

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from compressor.errors import CompressError, UserError

Value = TypeVar("Value")

_CPU = torch.device("cpu")


class World:
    """One process alone. Random streams are torch's global generators, whose state is saved with the run."""

    rank = 0
    size = 1
    alone = True
    """Whether this process computes something now without the others: always, or inside `decide`."""

    @property
    def writes(self) -> bool:
        """Return whether this is the process that writes files and shows messages."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over all processes, on each of them; `tensor` stays as it is."""
        return tensor

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set on one of the processes, on each of them."""
        return flag

    def share(self, tensors: Sequence[Tensor]) -> None:
        """Set tensors on all processes, in place, to their values on rank 0."""

    def decide(self, function: Callable[[], Value]) -> Value:
        """Return the result of `function` on rank 0, on all processes; the others do not call it.

        Inside it nothing is shared: rank 0 is `alone`. An error is raised on all of them.
        """
        return function()

    def stream(self, name: str, device: torch.device = _CPU) -> torch.Generator:
        """Return a stream of random numbers that is the same on all processes, for tensors on `device`."""
        if device.type == "cuda":
            index = torch.cuda.current_device() if device.index is None else device.index
            generator: torch.Generator = torch.cuda.default_generators[index]
            return generator
        return torch.default_generator

    def seed_of_step(self, epoch: int, step: int) -> int | None:
        """Return a seed for what this process alone draws in a step (dropout); None: torch's global state goes on.

        It depends on (seed, epoch, step, rank), so that nothing of it has to be saved.
        """
        return None

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
        self.alone = self.size == 1
        self._streams: dict[str, torch.Generator] = {}
        self._through: torch.device | None = None
        """The device of all messages, where the group has none between CPUs."""
        if dist.get_backend(group) == "nccl":
            self._through = torch.device("cuda", torch.cuda.current_device())

    def _sent(self, tensor: Tensor) -> Tensor:
        return tensor if self._through is None else tensor.to(self._through)

    def sum(self, tensor: Tensor) -> Tensor:
        if self.alone:
            return tensor
        total = self._sent(tensor.detach().clone())
        dist.all_reduce(total, group=self._group)
        return total.to(tensor.device)

    def any(self, flag: bool) -> bool:
        return bool(self.sum(torch.tensor(int(flag))))

    def share(self, tensors: Sequence[Tensor]) -> None:
        if self.alone:
            return
        kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for tensor in tensors:
            kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
        for alike in kinds.values():  # one message for all tensors of a kind
            flat = self._sent(torch.cat([tensor.detach().reshape(-1) for tensor in alike]))
            dist.broadcast(flat, group=self._group, group_src=0)
            for tensor, part in zip(alike, torch.split(flat, [tensor.numel() for tensor in alike]), strict=True):
                tensor.detach().copy_(part.view(tensor.shape))

    def decide(self, function: Callable[[], Value]) -> Value:
        if self.alone:
            return function()
        if self.rank > 0:
            return _opened(self._told(None))  # type: ignore[no-any-return]
        self.alone = True
        try:
            found = function()
            packed = _packed(found)
        except Exception as error:  # the other processes wait for an answer
            self._told((isinstance(error, UserError), str(error) or type(error).__name__))
            raise
        finally:
            self.alone = False
        self._told(packed)
        return found

    def _told(self, message: Any) -> Any:
        """Return the message of rank 0."""
        box = [message]
        dist.broadcast_object_list(box, group=self._group, group_src=0)
        return box[0]

    def stream(self, name: str, device: torch.device = _CPU) -> torch.Generator:
        key = name if device.type == "cpu" else f"{name} on {device.type}"
        if key not in self._streams:
            self._streams[key] = torch.Generator(device).manual_seed(_seed(self._seed, name))
        return self._streams[key]

    def seed_of_step(self, epoch: int, step: int) -> int | None:
        return _seed(self._seed, epoch, step, self.rank)

    def state_dict(self) -> dict[str, Tensor]:
        return {name: stream.get_state() for name, stream in self._streams.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, stream in self._streams.items():
            stream.manual_seed(_seed(self._seed, name.removesuffix(f" on {stream.device.type}")))
        for name, bits in state.items():
            kind = name.rpartition(" on ")[2] if " on " in name else "cpu"
            if kind == "cpu" or torch.cuda.is_available():
                self.stream(name.removesuffix(f" on {kind}"), torch.device(kind)).set_state(bits)


def _packed(value: Any) -> bytes:
    """Return a value as bytes, with its tensors."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _opened(message: bytes | tuple[bool, str]) -> Any:
    """Return the value, its tensors on devices of this process. Raises the error that rank 0 has met in its place."""
    if isinstance(message, tuple):
        users, text = message
        raise UserError(text) if users else CompressError(text)

    def own(storage: Any, location: str) -> Any:
        return storage.cuda(torch.cuda.current_device()) if location.startswith("cuda") else storage

    return torch.load(io.BytesIO(message), map_location=own, weights_only=False)


def _seed(*parts: object) -> int:
    """Return a seed from numbers and names."""
    key = hashlib.sha256(" ".join(map(str, parts)).encode()).digest()
    return int.from_bytes(key[:7], "little")
