"""A session on the `meta` device, as a stand-in for an accelerator: tensors there have shapes and no values.

What an accelerator does slowly, or not at all, raises `HostSync` inside `no_host_sync`: a value that the host reads, a
shape that depends on values, a tensor of the CPU among those of the device, and a copy that the host waits for.
"""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from rig import EPOCHS, RARELY, SGD, Feed, Rig, network, read
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from compressor.config import Config
from compressor.schedule.faults import Faults
from compressor.session.start import start
from compressor.training import optimizers
from compressor.training.trainer import Trainer
from compressor.training.weights import load_weights

META = torch.device("meta")

_TO, _COPY, _READ = (
    torch.ops.aten._to_copy.default,
    torch.ops.aten.copy_.default,
    torch.ops.aten._local_scalar_dense.default,
)
_BY_INDEX = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default, torch.ops.aten.index_put.default)
_OF_NUMBERS = (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor)
_TO_HOST = (Tensor.numpy, Tensor.__array__)


class HostSync(BaseException):
    """Raised where the host would wait for the device. Not an `Exception`: code that catches those must let it pass."""


class _Operations(TorchDispatchMode):
    """Refuse operations that `meta` lets pass, and that an accelerator refuses or waits for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = list(_tensors((args, kwargs)))
        here = [tensor for tensor in tensors if tensor.device.type == "cpu"]
        there = len(here) < len(tensors)
        if func is _TO or func is _COPY:
            into = kwargs.get("device") if func is _TO else args[0].device
            if there and into is not None and into.type == "cpu":
                raise HostSync(f"{func} copies {tuple(tensors[-1].shape)} from the device to the CPU")
            # From pinned memory a copy does not wait; only then may it be asked not to.
            if here and into == META and not (kwargs.get("non_blocking") or (func is _COPY and args[2:] == (True,))):
                raise HostSync(f"{func} copies {tuple(here[-1].shape)} from the CPU to the device")
        elif there and any(tensor.dim() for tensor in here):
            raise HostSync(f"{func} has a tensor of the CPU among those of the device")
        if there and func in _BY_INDEX and any(one.dtype in (torch.bool, torch.uint8) for one in _tensors(args[1])):
            raise HostSync(f"{func} by a mask: its entries have to be counted first")
        try:
            return func(*args, **kwargs)
        except (NotImplementedError, RuntimeError) as error:  # a number is read, or a shape depends on values
            if isinstance(error, NotImplementedError) or "on meta tensors" in str(error):
                raise HostSync(f"{func} cannot be done without values: {error}") from error
            raise


class _Functions(TorchFunctionMode):
    """Refuse tensors that are made of numbers on the CPU and copied: no mode of operations sees that."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _TO_HOST and args[0].device == META:
            raise HostSync(f"{func.__name__} copies {tuple(args[0].shape)} from the device to the CPU")
        made = func(*args, **(kwargs or {}))
        if func in _OF_NUMBERS and made.device == META and not isinstance(args[-1], Tensor):
            raise HostSync(f"{func.__name__} copies numbers from the CPU to the device")
        return made


class Answers(TorchDispatchMode):
    """Answer 1 wherever the host reads a value of the device: a session reads some when it starts."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return 1 if func is _READ and args[0].device == META else func(*args, **(kwargs or {}))


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
    """Raise `HostSync`, with the place, inside the block where an accelerator would make the host wait."""
    try:
        with _Functions(), _Operations():
            yield
    except HostSync as error:
        ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "/compressor/" in frame.filename]
        place = f"{ours[-1].filename.rpartition('/compressor/')[2]}: {ours[-1].line}" if ours else "the test"
        raise HostSync(f"{place}: {error}") from error


class MetaFeed(Feed):
    """The same batches on the device: how they come there is not what is looked at."""

    def __init__(self) -> None:
        super().__init__()
        [(images, labels)] = super()._batches(0, 1)
        self._batch = images.to(META), labels.to(META)

    def _batches(self, seed: int, count: int) -> list[tuple[Tensor, Tensor]]:
        return [self._batch] * count


class OnMeta:
    """A run with everything on `meta`: a fresh one, or from a snapshot of a run on the CPU."""

    def __init__(self, schedule: str | None, snapshot: dict[str, Any] | None = None, **config: Any) -> None:
        given = {"model": {"name": "rig"}, "data": {"name": "rig"}, "optimizer": SGD, "epochs": EPOCHS, **config}
        settings, model, faults = Config.model_validate(given), network(), Faults()
        if snapshot is not None:
            load_weights(model, snapshot, "snapshot")
        model.to(META)
        policies = [] if schedule is None else read(schedule).bind(model, EPOCHS, faults).policies
        faults.raise_any()
        dense = None if snapshot is None else snapshot["state"]["dense"]
        optimizer = optimizers.build(model, settings.optimizer)
        self.said: list[str] = []
        with Answers():
            self.session = start(settings, model, optimizer, policies, MetaFeed(), self.said.append, dense)
            self.trainer = Trainer(self.session, MetaFeed(), settings, META, [], lambda kind: None, lambda: None)
        traced = self.session.network.graph

        def graph() -> Any:  # traced on `meta` on every device
            with torch._C.DisableTorchFunction(), _disable_current_modes():
                return traced()

        self.session.network.graph = graph  # type: ignore[method-assign]
        model.train()
        if snapshot is not None:
            self.load(snapshot["state"])

    def load(self, state: dict[str, Any]) -> None:
        """Continue from the state of a run."""
        self.session.abandon()
        with Answers():
            self.session.load_state_dict(state)
            self.session.check_logits()  # a resumed session looks once at its masks

    def at(self, epoch: int, step: int) -> "OnMeta":
        """Go to another time, without what happens between."""
        self.session.clock.epoch, self.session.clock.step, self.session._begun = epoch, step, step > 0
        return self

    def begin(self) -> None:
        """Begin the epoch, and take its first step."""
        with no_host_sync():
            self.session.begin_epoch(self.session.clock.epoch)
        self.event()

    def event(self) -> None:
        """Take a step with the events of policies, without the network's passes: their gradients are there."""
        with no_host_sync(), self.session.step():
            self.session.before_backward(torch.zeros((), device=META))
            for weight in self.session.network.parameters.values():
                weight.grad = torch.zeros_like(weight)

    def end(self) -> None:
        """Take the epoch's last step, and end it."""
        self.event()
        self.session.data.validation = {"loss": 1.0, "top1": 50.0}
        with no_host_sync():
            self.session.end_epoch()

    def step(self) -> None:
        """Take a whole step of the trainer."""
        with no_host_sync():
            self.trainer.step(*self.trainer._feed._batch)


def after_first_step(schedule: str, **config: Any) -> OnMeta:
    """Return a run that begins on the CPU, and goes on on `meta` after its first step."""
    return OnMeta(schedule, Rig(schedule, until=(0, 1), checkpoint=RARELY, **config).run(), **config)
