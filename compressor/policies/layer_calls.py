"""Where in a forward pass layers are called, and what is added to that they give: a residual block's shortcut."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from compressor.evaluating import evaluating

_LAYERS = frozenset(("conv2d", "linear"))
_ADDITIONS = frozenset(("add", "add_", "__add__", "__iadd__", "__radd__"))
_PASSES_ON = frozenset(("dropout", "dropout2d", "contiguous", "clone"))
"""What gives, in eval mode, what it is given."""


@dataclass(frozen=True)
class Call:
    """The `number`-th call of a function of this name."""

    function: str
    number: int


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
    """A tensor that is a layer's output but for factors, and those factors."""

    layer: Layer
    scale: Tensor | None


class _Following(TorchFunctionMode):
    """Notes of every tensor which layers it depends on, and of which one it is the output."""

    def __init__(self, weights: Mapping[int, str]) -> None:
        super().__init__()
        self.layers: dict[str, Layer] = {}
        self._weights, self._counts = weights, Counter[str]()
        self._depends: dict[int, frozenset[str]] = {}
        self._carried: dict[int, _Carried] = {}
        self._alive: list[Any] = []  # so that no address is used twice

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        call, kwargs = _counted(func, self._counts), kwargs or {}
        given = tensors((*args, *kwargs.values()))
        carried = self._carried_by(call, given, args, kwargs)
        depends = frozenset[str]().union(*(self._depends.get(id(tensor), frozenset()) for tensor in given))
        result = func(*args, **kwargs)
        for tensor in tensors((result,)):
            self._depends[id(tensor)] = depends | ({carried.layer.name} if carried else frozenset())
            self._carried.pop(id(tensor), None)  # in place it is something else now
            if carried is not None:
                self._carried[id(tensor)] = carried
        self._alive.append((given, result))
        return result

    def _carried_by(self, call: Call, given: list[Tensor], args: Any, kwargs: Any) -> _Carried | None:
        """What the result of a call will be the output of."""
        weight = next((self._weights[id(tensor)] for tensor in given if id(tensor) in self._weights), None)
        if weight is not None and call.function in _LAYERS:
            layer = self.layers.setdefault(weight, Layer(weight, []))
            layer.calls.append(call)
            return _Carried(layer, None)
        before = self._carried.get(id(given[0])) if given else None
        if before is not None and call.function == "batch_norm" and before.scale is None:
            factors = _factors(args, kwargs)
            if factors is None:
                return None
            if before.layer.addition is None:
                before.layer.scale = factors
            return _Carried(before.layer, factors)
        if call.function in _ADDITIONS and len(given) == 2 and kwargs.get("alpha", 1) == 1:
            self._add(call, given)
        return before if call.function in _PASSES_ON else None

    def _add(self, call: Call, given: list[Tensor]) -> None:
        for mine, other in ((0, 1), (1, 0)):
            carried = self._carried.get(id(given[mine]))
            if carried is None or carried.layer.addition is not None or given[0].shape != given[1].shape:
                continue
            if carried.layer.name in self._depends.get(id(given[other]), frozenset()):
                continue  # the layer's own output is the shortcut, as a stem's
            carried.layer.addition, carried.layer.other = call, other
            carried.layer.scale = carried.scale


def _factors(args: Any, kwargs: Any) -> Tensor | None:
    """gamma / sqrt(variance + eps) of a call of `batch_norm`; None where it goes by the batch."""
    names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    variance, gamma = given.get("running_var"), given.get("weight")
    if variance is None or given.get("training"):
        return None
    factors: Tensor = torch.rsqrt(variance.double() + given.get("eps", 1e-5))
    return factors if gamma is None else factors * gamma.detach().double()


@torch.no_grad()
def follow(model: nn.Module, images: Tensor, weights: Mapping[str, Tensor]) -> list[Layer]:
    """The layers of these weights in the order of their first calls; those that no convolution or linear layer of the
    forward pass is given as they are, are not among them."""
    following = _Following({id(weight): name for name, weight in weights.items()})
    with evaluating(model), following:
        model(images)
    return list(following.layers.values())


Look = Callable[[Sequence[Any], Mapping[str, Any], Any], None]
"""Sees a call's arguments and its result: None before it is made."""


class Looking(TorchFunctionMode):
    """Shows some calls of a forward pass: `before` they are made, with no result yet, or `after`."""

    def __init__(self, before: Sequence[tuple[Call, Look]], after: Sequence[tuple[Call, Look]]) -> None:
        super().__init__()
        self._looks: tuple[dict[Call, list[Look]], dict[Call, list[Look]]] = ({}, {})
        for looks, given in zip(self._looks, (before, after), strict=True):
            for call, look in given:
                looks.setdefault(call, []).append(look)
        self._counts = Counter[str]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        call, kwargs = _counted(func, self._counts), kwargs or {}
        for look in self._looks[0].get(call, ()):
            look(args, kwargs, None)  # now: an operand may be overwritten in place
        result = func(*args, **kwargs)
        for look in self._looks[1].get(call, ()):
            look(args, kwargs, result)
        return result


def _counted(func: Any, counts: Counter[str]) -> Call:
    name = getattr(func, "__name__", str(func))
    counts[name] += 1
    return Call(name, counts[name] - 1)


def tensors(values: Any) -> list[Tensor]:
    """The tensors among some arguments, also in lists of them."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found.extend(one for one in value if isinstance(one, Tensor))
    return found
