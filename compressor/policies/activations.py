"""The activations behind weights: found by following one forward pass, looked at in later ones."""

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from compressor.evaluating import evaluating
from compressor.sparsity.weights import prunable

_CUTTING = "relu relu6 hardtanh hardswish hardsigmoid hardshrink softshrink threshold _threshold clamp clamp_min"
_SMOOTH = "leaky_relu elu selu celu rrelu prelu gelu silu mish sigmoid tanh softplus log_sigmoid softsign"
MAKE_ZEROS = frozenset(f"{name}{end}" for name in _CUTTING.split() for end in ("", "_"))
"""Activations whose output is exactly 0 over a whole range of inputs (or can be, by their bounds)."""
ACTIVATIONS = MAKE_ZEROS | {f"{name}{end}" for name in _SMOOTH.split() for end in ("", "_")}
"""By the names that torch calls them by inside: `_threshold` is `nn.Threshold`'s, `log_sigmoid` `F.logsigmoid`'s."""


@dataclass(frozen=True)
class Place:
    """An operation of the forward pass: the `number`-th call of a function of this name.

    What goes in and what comes out have the channels of some weight's outputs. Where no activation follows a weight,
    it is the batch norm behind it, or the layer itself, and what comes out stands for both. `channels`: whether the
    weight's outputs are the channels there (dim 1); those of a linear layer over (images, tokens, features) are not.
    """

    function: str
    number: int
    activation: bool
    channels: bool = True


class Looks(Protocol):
    """What is done with the tensors at a place, by the weight they belong to."""

    def before(self, name: str, value: Tensor) -> None:
        """The activation's input."""

    def after(self, name: str, value: Tensor) -> None:
        """The activation's output."""


@dataclass
class _Operation:
    place: Place
    reads: frozenset[int]
    weight: str | None
    channels: int | None
    first: bool
    """Whether dim 1 of what it makes are the weight's outputs: a layer's result has as many dims as its weight."""


class _Following(TorchFunctionMode):
    """Notes every operation, who made what it reads, and whose weight it applies to what was made of the images.

    What is made of a weight alone stands for it: a layer may normalize or share its weight first.
    """

    def __init__(self, weights: Mapping[int, str], images: Tensor) -> None:
        super().__init__()
        self.operations: list[_Operation] = []
        self._weights, self._calls = dict(weights), Counter[str]()
        self._seen = {id(images)}
        self._writer: dict[int, int] = {}
        self._alive: list[Any] = []  # so that no address is used twice

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = _tensors((*args, *(kwargs or {}).values()))
        made = _tensors((result,))
        reads = frozenset(self._writer[id(tensor)] for tensor in given if id(tensor) in self._writer)
        used = next((tensor for tensor in given if id(tensor) in self._weights), None)
        weight = None if used is None else self._weights[id(used)]
        if any(id(tensor) in self._seen for tensor in given):
            self._seen.update(map(id, made))
        elif weight is not None:
            self._weights.update(dict.fromkeys(map(id, made), weight))
            weight = None
        place = _count(func, self._calls)
        channels = made[0].shape[1] if len(made) == 1 and made[0].dim() > 1 else None
        first = len(made) == 1 and used is not None and made[0].dim() == used.dim()
        for tensor in made:
            self._writer[id(tensor)] = len(self.operations)
        self._alive.append((given, made))
        self.operations.append(_Operation(place, reads, weight, channels, first))
        return result


class Looking(TorchFunctionMode):
    """Shows the tensors at some places while the network computes."""

    def __init__(self, places: Mapping[str, Place], looks: Looks) -> None:
        super().__init__()
        self._places: dict[tuple[str, int], list[tuple[str, Place]]] = {}
        for name, place in places.items():
            self._places.setdefault((place.function, place.number), []).append((name, place))
        self._looks, self._calls = looks, Counter[str]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        place = _count(func, self._calls)
        found = self._places.get((place.function, place.number), [])
        given = _tensors((*args, *(kwargs or {}).values())) if found else []
        for name, where in found:
            if where.activation:
                self._looks.before(name, given[0])  # now: it may be overwritten in place
        result = func(*args, **(kwargs or {}))
        for name, where in found:
            if not where.activation:
                self._looks.before(name, result)
            self._looks.after(name, result)
        return result


def _count(func: Any, calls: Counter[str]) -> Place:
    name = getattr(func, "__name__", str(func))
    calls[name] += 1
    return Place(name, calls[name] - 1, name in ACTIVATIONS)


def _tensors(values: Any) -> list[Tensor]:
    """The tensors among some arguments, also in lists of them."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found.extend(one for one in value if isinstance(one, Tensor))
    return found


@torch.no_grad()
def places(model: nn.Module, images: Tensor) -> dict[str, Place]:
    """For each weight the first activation that its outputs reach with their channels as they are, sums included.

    Weights that the forward pass does not use are left out.
    """
    weights = {id(weight): name for name, weight in prunable(model).items()}
    with evaluating(model), _Following(weights, images) as following:
        model(images)
    found: dict[str, Place] = {}
    for start, operation in enumerate(following.operations):
        if operation.weight is not None and operation.weight not in found:
            found[operation.weight] = replace(_behind(following.operations, start), channels=operation.first)
    return found


def _behind(operations: list[_Operation], start: int) -> Place:
    own = operations[start]
    reached, last = {start}, Place(own.place.function, own.place.number, activation=False)
    for number in range(start + 1, len(operations)):
        one = operations[number]
        if not one.reads & reached or one.weight is not None or one.channels != own.channels:
            continue
        if one.place.activation:
            return one.place
        reached.add(number)
        if one.place.function == "batch_norm" and not last.function.endswith("norm"):
            last = one.place
    return last


def watch(model: nn.Module, armed: Callable[[], Looking | None]) -> None:
    """In every forward pass for which `armed` gives one, look."""
    entered = ExitStack()

    def begin(module: nn.Module, given: Any) -> None:
        looking = armed()
        if looking is not None:
            entered.enter_context(looking)

    def end(module: nn.Module, given: Any, result: Any) -> None:
        entered.close()

    model.register_forward_pre_hook(begin)
    model.register_forward_hook(end, always_call=True)
