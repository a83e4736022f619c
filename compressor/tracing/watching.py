"""The values of a forward pass: chosen calls are passed to functions while the network computes."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

from compressor.tracing.calls import Call, Calls

__all__ = ["Look", "Watching", "watch"]

Look = Callable[[Sequence[Any], Mapping[str, Any], Any], None]
"""Receives a call's arguments, its keyword arguments, and its result; the result is None before the call."""


class Watching(TorchFunctionMode):
    """Pass chosen calls of one forward pass to functions, `before` or `after` the call; those of one call in their
    order.
    """

    def __init__(self, before: Sequence[tuple[Call, Look]], after: Sequence[tuple[Call, Look]]) -> None:
        super().__init__()
        self._before, self._after = _by_call(before), _by_call(after)
        self._calls = Calls()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        call, kwargs = self._calls.next(func), kwargs or {}
        for look in self._before.get(call, ()):
            look(args, kwargs, None)  # now: an argument may be overwritten in place
        result = func(*args, **kwargs)
        for look in self._after.get(call, ()):
            look(args, kwargs, result)
        return result


def _by_call(looks: Sequence[tuple[Call, Look]]) -> dict[Call, list[Look]]:
    found: dict[Call, list[Look]] = {}
    for call, look in looks:
        found.setdefault(call, []).append(look)
    return found


def watch(model: nn.Module, armed: Callable[[], Watching | None]) -> None:
    """Watch every forward pass of `model` for which `armed` returns a `Watching`."""
    entered = ExitStack()

    def begin(module: nn.Module, given: Any) -> None:
        watching = armed()
        if watching is not None:
            entered.enter_context(watching)

    def end(module: nn.Module, given: Any, result: Any) -> None:
        entered.close()

    model.register_forward_pre_hook(begin)
    model.register_forward_hook(end, always_call=True)
