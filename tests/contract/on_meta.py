"""A session on the `meta` device, as a stand-in for an accelerator: tensors there have shapes and no values.

What an accelerator does slowly, or not at all, raises `HostSync` inside `no_host_sync`: a value that the host reads, a
shape that depends on values, a tensor of the CPU among those of the device, and a copy from one to the other.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from rig import Feed, read
from rig import network as on_cpu
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from compressor.config import Config
from compressor.schedule.faults import Faults
from compressor.session.start import start
from compressor.training import optimizers
from compressor.training.trainer import Trainer
from compressor.training.weights import load_weights

META = torch.device("meta")

COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
INDEXING = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default, torch.ops.aten.index_put.default)
FROM_NUMBERS = (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor)
READS = ("on meta tensors", "out of meta tensor", "meta device type tensor to numpy", "Meta tensors", "register_meta")
"""Parts of the messages with which torch refuses to give values that there are not."""


class HostSync(Exception):
    """The host would wait for the device, or the device for a copy."""


class _Operations(TorchDispatchMode):
    """Refuse what `meta` itself lets pass."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = list(_tensors((args, kwargs)))
        here = [tensor for tensor in tensors if tensor.device.type == "cpu"]
        there = [tensor for tensor in tensors if tensor.device.type == "meta"]
        if func in COPIES:
            goes = func is COPIES[1] or kwargs.get("device", None) == META
            waits = not (kwargs.get("non_blocking") or (func is COPIES[1] and len(args) > 2 and args[2]))
            if here and goes and waits and (there or func is COPIES[0]):
                raise HostSync(f"{func} copies {tuple(here[0].shape)} from the CPU to the device")
        elif there and any(tensor.dim() for tensor in here):
            raise HostSync(f"{func} has a tensor of the CPU among those of the device")
        if func in INDEXING and any(index.dtype in (torch.bool, torch.uint8) for index in _tensors(args[1])):
            raise HostSync(f"{func} by a mask: the device has to count its entries first")
        return func(*args, **kwargs)


class _Functions(TorchFunctionMode):
    """Refuse tensors that are made of numbers on the CPU and copied, which no mode of operations sees."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func in FROM_NUMBERS and made.device.type == "meta" and not isinstance(args[0], Tensor):
            raise HostSync(f"{func.__name__} copies numbers from the CPU to the device")
        return made


class _Answers(TorchDispatchMode):
    """Answer 1 wherever the host reads a value: a session reads some when it starts."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].device == META:
            return 1
        return func(*args, **(kwargs or {}))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


@contextmanager
def no_host_sync() -> Iterator[None]:
    """Raise `HostSync` inside the block where an accelerator would make the host wait."""
    try:
        with _Functions(), _Operations():
            yield
    except (RuntimeError, TypeError) as error:
        if any(part in str(error) for part in READS):
            raise HostSync(str(error)) from error
        raise


class MetaFeed(Feed):
    """The same batches on the device."""

    def _batches(self, seed: int, count: int) -> list[tuple[Tensor, Tensor]]:
        return [(images.to(META), labels.to(META)) for images, labels in super()._batches(seed, count)]


class OnMeta:
    """A run that goes on, from a snapshot of one on the CPU, with everything on `meta`."""

    def __init__(self, schedule: str, snapshot: dict[str, Any], config: Config) -> None:
        self.model = on_cpu()
        load_weights(self.model, snapshot, "snapshot")
        self.model.to(META)
        faults = Faults()
        bound = read(schedule).bind(self.model, config.epochs, faults)
        faults.raise_any()
        optimizer = optimizers.build(self.model, config.optimizer)
        with _Answers():
            self.session = start(
                config, self.model, optimizer, bound.policies, MetaFeed(), lambda text: None, snapshot["state"]["dense"]
            )
            self.trainer = Trainer(self.session, MetaFeed(), config, META, [], lambda kind: None, lambda: None)
            self.trainer.load_state_dict(snapshot["state"])
        self.model.train()

    def steps(self, count: int = 1) -> None:
        """Take the next steps."""
        clock = self.session.clock
        for images, labels in list(MetaFeed().train(clock.epoch, clock.step))[:count]:
            with no_host_sync():
                self.trainer.step(images, labels)


def raised(blocks: Iterable[Any]) -> str | None:
    """Return the message of the first host sync; None where there is none."""
    try:
        for block in blocks:
            block()
    except HostSync as error:
        return str(error)
    return None
