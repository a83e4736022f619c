"""The calls of layers in a forward pass, the batch norms behind them, and what is added to their outputs."""

from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compressor.tracing.calls import Call
from compressor.tracing.trace import Operation, Trace

__all__ = ["Layer", "layer_calls"]

_LAYERS = frozenset(("conv2d", "linear"))
_ADDITIONS = frozenset(("add", "add_", "__add__", "__iadd__", "__radd__"))
_PASSES_ON = frozenset(("dropout", "dropout2d", "contiguous", "clone"))
"""What gives, in eval mode, what it is given."""


@dataclass
class Layer:
    """A weight's calls, what the batch norm right behind it multiplies its outputs by, and the addition behind that.

    Of the addition's two operands `other` is the one that is not this layer's: the shortcut.
    """

    name: str
    calls: list[Call]
    scale: Tensor | None = None
    addition: Call | None = None
    other: int = 0


@dataclass
class _Carried:
    """A result that is a layer's output but for factors, and those factors."""

    layer: Layer
    scale: Tensor | None


@torch.no_grad()
def layer_calls(trace: Trace, names: Container[str]) -> list[Layer]:
    """Return the layers of these weights in the order of their first calls.

    Weights that no convolution or linear layer of the forward pass is given as they are, are not among them. The
    factors are those of the network as it is now.
    """
    reading = _Reading(names)
    for operation in trace.operations:
        reading.add(operation)
    return list(reading.layers.values())


class _Reading:
    """Find for every operation which layers its result depends on, and of which one it is the output."""

    def __init__(self, names: Container[str]) -> None:
        self.layers: dict[str, Layer] = {}
        self._names = names
        self._depends: list[frozenset[str]] = []
        self._carried: list[_Carried | None] = []

    def add(self, operation: Operation) -> None:
        """Take the next operation of the trace."""
        carried = self._carries(operation)
        makers = [read.maker for read in operation.reads if read.maker is not None]
        depends = frozenset[str]().union(*(self._depends[maker] for maker in makers))
        self._depends.append(depends | ({carried.layer.name} if carried else frozenset()))
        self._carried.append(carried)

    def _carries(self, operation: Operation) -> _Carried | None:
        """What the result of an operation is the output of."""
        function, reads = operation.call.function, operation.reads
        weight = next((read.weight for read in reads if read.is_weight and read.weight in self._names), None)
        if weight is not None and function in _LAYERS:
            layer = self.layers.setdefault(weight, Layer(weight, []))
            layer.calls.append(operation.call)
            return _Carried(layer, None)
        before = self._carried_by(operation, 0) if reads else None
        if before is not None and function == "batch_norm" and before.scale is None:
            factors = _factors(operation)
            if factors is None:
                return None
            if before.layer.addition is None:
                before.layer.scale = factors
            return _Carried(before.layer, factors)
        if function in _ADDITIONS and len(reads) == 2 and operation.kwargs.get("alpha", 1) == 1:
            self._add(operation)
        return before if function in _PASSES_ON else None

    def _add(self, operation: Operation) -> None:
        for mine, other in ((0, 1), (1, 0)):
            carried = self._carried_by(operation, mine)
            if carried is None or carried.layer.addition is not None:
                continue
            if operation.reads[0].shape != operation.reads[1].shape:
                continue
            maker = operation.reads[other].maker
            if maker is not None and carried.layer.name in self._depends[maker]:
                continue  # the layer's own output is the shortcut, as a stem's
            carried.layer.addition, carried.layer.other = operation.call, other
            carried.layer.scale = carried.scale

    def _carried_by(self, operation: Operation, number: int) -> _Carried | None:
        maker = operation.reads[number].maker
        return None if maker is None else self._carried[maker]


def _factors(operation: Operation) -> Tensor | None:
    """Return gamma / sqrt(variance + eps) of a call of `batch_norm`; None where it goes by the batch."""
    names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    given: dict[str, Any] = {**dict(zip(names, operation.args, strict=False)), **operation.kwargs}
    variance, gamma = given.get("running_var"), given.get("weight")
    if variance is None or given.get("training"):
        return None
    factors: Tensor = torch.rsqrt(variance.double() + given.get("eps", 1e-5))
    return factors if gamma is None else factors * gamma.detach().double()
