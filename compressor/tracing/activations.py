"""The activation that follows each weight, and its values in later forward passes."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from compressor.tracing.calls import Call, tensors
from compressor.tracing.trace import Operation, Trace
from compressor.tracing.watching import Look, Watching

__all__ = ["ACTIVATIONS", "MAKE_ZEROS", "Place", "Receiver", "at_places", "places"]

_CUTTING = "relu relu6 hardtanh hardswish hardsigmoid hardshrink softshrink threshold _threshold clamp clamp_min"
_SMOOTH = "leaky_relu elu selu celu rrelu prelu gelu silu mish sigmoid tanh softplus log_sigmoid softsign"
MAKE_ZEROS = frozenset(f"{name}{end}" for name in _CUTTING.split() for end in ("", "_"))
"""Activations whose output is exactly 0 for a range of inputs (or can be, depending on their bounds)."""
ACTIVATIONS = MAKE_ZEROS | {f"{name}{end}" for name in _SMOOTH.split() for end in ("", "_")}
"""By the names of torch's internal functions: `_threshold` is `nn.Threshold`'s, `log_sigmoid` `F.logsigmoid`'s."""


@dataclass(frozen=True)
class Place:
    """The call at which the outputs of a weight are read.

    Its input and its output have the channels of the weight's outputs. Where no activation follows a weight, it is the
    batch norm that follows it, or the layer itself, and its output is used for both. `channels`: whether the weight's
    outputs are channels there (dim 1); those of a linear layer over (images, tokens, features) are not.
    """

    call: Call
    activation: bool
    channels: bool = True


class Receiver(Protocol):
    """Receives the tensors at a place, with the name of the weight that they belong to."""

    def before(self, name: str, value: Tensor) -> None:
        """Receive the input of the activation."""

    def after(self, name: str, value: Tensor) -> None:
        """Receive the output of the activation."""


def places(trace: Trace) -> dict[str, Place]:
    """Return for each weight the first activation that its outputs reach with the same channels.

    Sums are passed through. A weight that is applied twice counts at its first use; weights that the forward pass does
    not use are left out.
    """
    found: dict[str, Place] = {}
    behind = _behind(trace.operations)
    for start, operation in enumerate(trace.operations):
        applied = operation.applied
        if applied is None or applied.weight is None or applied.weight in found:
            continue
        # A layer's result has as many dims as its weight where dim 1 are the weight's outputs.
        first = len(operation.shapes) == 1 and len(operation.shapes[0]) == len(applied.shape)
        activation, norm = behind[start]
        number = start if activation == norm == _NONE else norm if activation == _NONE else activation
        found[applied.weight] = Place(trace.operations[number].call, activation != _NONE, first)
    return found


_NONE = sys.maxsize


def _behind(operations: Sequence[Operation]) -> list[tuple[int, int]]:
    """Return for each operation the number of the first activation that its result reaches with the same channels, and
    that of the first batch norm; `_NONE`: there is none.
    """
    found = [(_NONE, _NONE)] * len(operations)
    for number in reversed(range(len(operations))):  # what follows it is known
        one = operations[number]
        if one.applied is not None:
            continue
        activation, norm = found[number]
        if one.call.function in ACTIVATIONS:
            activation = number
        elif one.call.function == "batch_norm":
            norm = number
        for read in one.reads:
            if read.maker is not None and _channels(operations[read.maker]) == _channels(one):
                other = found[read.maker]
                found[read.maker] = min(other[0], activation), min(other[1], norm)
    return found


def _channels(operation: Operation) -> int | None:
    shapes = operation.shapes
    return shapes[0][1] if len(shapes) == 1 and len(shapes[0]) > 1 else None


def at_places(places: Mapping[str, Place], receiver: Receiver) -> Watching:
    """Return a `Watching` that passes the tensors at some places to `receiver`, during one forward pass."""
    before = [(place.call, _input(name, receiver)) for name, place in places.items() if place.activation]
    return Watching(before, [(place.call, _output(name, place, receiver)) for name, place in places.items()])


def _input(name: str, receiver: Receiver) -> Look:
    def look(args: Sequence[Any], named: Mapping[str, Any], result: Any) -> None:
        receiver.before(name, tensors((*args, *named.values()))[0])

    return look


def _output(name: str, place: Place, receiver: Receiver) -> Look:
    def look(args: Sequence[Any], named: Mapping[str, Any], result: Any) -> None:
        if not place.activation:
            receiver.before(name, result)
        receiver.after(name, result)

    return look
