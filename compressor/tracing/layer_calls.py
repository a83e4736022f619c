"""The calls of layers in a forward pass, the batch norms that follow them, and the tensors that are added to their
outputs.
"""

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
"""Functions that return their input in eval mode."""


@dataclass
class Layer:
    """The calls of a weight, the factors of the batch norm that follows it directly, and the addition that follows
    that.

    Of the two operands of the addition, `other` is the one that is not this layer's: the shortcut.
    """

    name: str
    calls: list[Call]
    shape: tuple[int, ...] = ()
    """Of the outputs of the first call."""
    scale: Tensor | None = None
    addition: Call | None = None
    other: int = 0


@dataclass
class _Scaled:
    """A result that is a layer's output times `scale`."""

    layer: Layer
    scale: Tensor | None


@torch.no_grad()
def layer_calls(trace: Trace, names: Container[str]) -> list[Layer]:
    """Return the layers of these weights in the order of their first calls.

    Weights that are no unchanged argument of a convolution or linear layer in the forward pass are left out. The
    factors are those of the network as it is now.
    """
    reading = _Reading(names)
    for operation in trace.operations:
        reading.add(operation)
    return list(reading.layers.values())


class _Reading:
    """Find for every operation the layer whose output its result is, and what its arguments were made by."""

    def __init__(self, names: Container[str]) -> None:
        self.layers: dict[str, Layer] = {}
        self._names = names
        self._makers: list[list[int]] = []
        self._scaled: list[_Scaled | None] = []
        self._first: dict[str, int] = {}
        """The operation that is the first call of each layer."""

    def add(self, operation: Operation) -> None:
        """Read the next operation of the trace."""
        scaled = self._output_of(operation)
        self._makers.append([read.maker for read in operation.reads if read.maker is not None])
        self._scaled.append(scaled)

    def _output_of(self, operation: Operation) -> _Scaled | None:
        """Return the layer whose output the result of an operation is, with its factors."""
        function, reads = operation.call.function, operation.reads
        weight = next((read.weight for read in reads if read.is_weight and read.weight in self._names), None)
        if weight is not None and function in _LAYERS:
            layer = self.layers.setdefault(weight, Layer(weight, [], operation.shapes[0]))
            layer.calls.append(operation.call)
            self._first.setdefault(weight, len(self._scaled))
            return _Scaled(layer, None)
        before = self._made_by(operation, 0) if reads else None
        if before is not None and function == "batch_norm" and before.scale is None:
            factors = _factors(operation)
            if factors is None:
                return None
            if before.layer.addition is None:
                before.layer.scale = factors
            return _Scaled(before.layer, factors)
        if function in _ADDITIONS and len(reads) == 2 and operation.kwargs.get("alpha", 1) == 1:
            self._add(operation)
        return before if function in _PASSES_ON else None

    def _add(self, operation: Operation) -> None:
        for mine, other in ((0, 1), (1, 0)):
            scaled = self._made_by(operation, mine)
            if scaled is None or scaled.layer.addition is not None:
                continue
            if operation.reads[0].shape != operation.reads[1].shape:
                continue
            maker = operation.reads[other].maker
            if maker is not None and self._depends(maker, scaled.layer):
                continue  # the layer's own output is the shortcut, as a stem's
            scaled.layer.addition, scaled.layer.other = operation.call, other
            scaled.layer.scale = scaled.scale

    def _depends(self, number: int, layer: Layer) -> bool:
        """Return whether the result of an operation depends on the output of a layer."""
        stack, seen = [number], set[int]()
        while stack:
            number = stack.pop()
            if number in seen or number < self._first[layer.name]:
                continue
            seen.add(number)
            scaled = self._scaled[number]
            if scaled is not None and scaled.layer is layer:
                return True
            stack += self._makers[number]
        return False

    def _made_by(self, operation: Operation, number: int) -> _Scaled | None:
        maker = operation.reads[number].maker
        return None if maker is None else self._scaled[maker]


def _factors(operation: Operation) -> Tensor | None:
    """Return gamma / sqrt(variance + eps) of a call of `batch_norm`; None where it uses the statistics of the batch."""
    names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    given: dict[str, Any] = {**dict(zip(names, operation.args, strict=False)), **operation.kwargs}
    variance, gamma = given.get("running_var"), given.get("weight")
    if variance is None or given.get("training"):
        return None
    factors: Tensor = torch.rsqrt(variance.double() + given.get("eps", 1e-5))
    return factors if gamma is None else factors * gamma.detach().double()
