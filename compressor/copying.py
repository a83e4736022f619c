"""Copies of networks, also of those that `copy.deepcopy` refuses."""

import copy
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from compressor.errors import UserError

__all__ = ["blank", "copied", "without_storage", "without_weights"]


def copied(network: nn.Module) -> nn.Module:
    """Return a copy that shares no parameter, buffer or module with the network.

    Values that cannot be copied and hold no tensors or modules (locks, open files, generators) are shared. Raises
    `UserError` that names the layer where the network cannot be copied.
    """
    return _copied(network, {}, torch.device("cpu"))


def without_storage(network: nn.Module) -> nn.Module:
    """Return a copy on the meta device, with trainable parameters in float32.

    Raises `UserError` as `copied` does.
    """
    memo: dict[int, Any] = {}
    for parameter in network.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta", dtype=torch.float32))
    for buffer in network.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return _copied(network, memo, torch.device("meta"))


def without_weights(network: nn.Module) -> nn.Module:
    """Return a copy in which all that a state dict holds is without storage, and the rest has its values.

    `blank` makes a network of it. Raises `UserError` as `copied` does.
    """
    return _copied(network, _of_state(network, torch.device("meta")), torch.device("cpu"))


def blank(network: nn.Module) -> nn.Module:
    """Return a copy on the CPU with zeros in all that a state dict holds: a network into which weights are loaded."""
    return _copied(network, _of_state(network, torch.device("cpu")), torch.device("cpu"))


def _of_state(network: nn.Module, device: torch.device) -> dict[int, Any]:
    """Return new tensors for the parameters and buffers of a state dict, by the address of the old one."""
    held = {id(value) for value in network.state_dict(keep_vars=True).values()}
    found: dict[int, Any] = {}
    for old in (*network.parameters(), *network.buffers()):
        if id(old) in held:
            new = torch.zeros_like(old, device=device, requires_grad=False)
            found[id(old)] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
    return found


def _copied(network: nn.Module, memo: dict[int, Any], device: torch.device) -> nn.Module:
    shared: dict[int, Any] = {}
    while True:
        try:
            with _ValuesOfComputed(device):
                return copy.deepcopy(network, {**memo, **shared})
        except (MemoryError, RecursionError):
            raise
        except Exception as error:  # whatever a class raises that cannot be copied
            path = _values(error.__traceback__)
            refused = path[-1]
            if id(refused) in shared or isinstance(refused, Tensor | nn.Module) or _holds(refused):
                raise UserError(_said(network, path, error)) from error
            shared[id(refused)] = refused


class _ValuesOfComputed(TorchFunctionMode):
    """Let tensors that were computed from others be copied as values: `copy.deepcopy` takes leaves only.

    The old `weight_norm` and torch's own pruning keep such tensors; they compute them again at each forward pass.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            with torch.no_grad():
                made = torch.empty_like(tensor, device="meta") if self._device.type == "meta" else tensor.clone()
            return memo.setdefault(id(tensor), made)
        return func(*args, **(kwargs or {}))


def _values(trace: TracebackType | None) -> list[Any]:
    """Return the values that were being copied when an error was raised, each one inside the one before it."""
    found = []
    while trace is not None:
        if trace.tb_frame.f_code is copy.deepcopy.__code__:
            found.append(trace.tb_frame.f_locals["x"])
        trace = trace.tb_next
    return found


def _holds(value: Any) -> bool:
    """Return whether a value has tensors or modules among its attributes or items: a copy must have its own."""
    return any(isinstance(one, Tensor | nn.Module) for one in _parts(value))


def _parts(value: Any) -> Iterator[Any]:
    yield from getattr(value, "__dict__", {}).values()
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list | tuple | set):
        yield from value


def _said(network: nn.Module, values: list[Any], error: Exception) -> str:
    paths = {id(module): path for path, module in network.named_modules()}
    layer = next(value for value in reversed(values) if isinstance(value, nn.Module))
    path = paths.get(id(layer)) or "the network itself"
    reason = (str(error).splitlines() or [""])[0]
    what = "" if values[-1] is layer else f"a value of type {type(values[-1]).__name__} in "
    return (
        f"the network cannot be copied: {what}{path} ({type(layer).__name__}): {type(error).__name__}: {reason}: change"
        " the layer so that copy.deepcopy works"
    )
