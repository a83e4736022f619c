"""What each weight is multiplied with: the inputs of convolutions and matrix products, by the weight's name."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.rnn import PackedSequence

from compressor.tracing.nan_mode import NaNMode
from compressor.tracing.nan_rules import CONTRACTIONS

__all__ = ["LayerInputs", "WeightInputs", "inputs_along"]

_ROUNDING = 4
"""The difference, in units of rounding, that one constant may have between positions."""


@dataclass(frozen=True)
class LayerInputs:
    """The inputs of a layer, by channel: whether it is 0 everywhere; the constant that it is everywhere, or NaN."""

    zero: Tensor
    constant: Tensor

    def also(self, other: "LayerInputs") -> "LayerInputs":
        """Return what is true in both of two calls of a layer."""
        same = self.constant == other.constant
        return LayerInputs(self.zero & other.zero, torch.where(same, self.constant, torch.nan))

    def unknown(self) -> "LayerInputs":
        """Return inputs of which nothing is known."""
        return LayerInputs(torch.zeros_like(self.zero), torch.full_like(self.constant, torch.nan))


def inputs_along(given: Tensor, dim: int) -> LayerInputs:
    """Return the inputs of a layer along `dim` of what it is given."""
    flat = given.movedim(dim, 0).reshape(given.shape[dim], -1)
    low, high = flat.amin(1), flat.amax(1)
    # A vectorized function may round otherwise at the end of a tensor.
    equal = high - low <= _ROUNDING * torch.finfo(low.dtype).eps * low.abs()
    constant = torch.where(equal & torch.isfinite(low), low, torch.nan)
    return LayerInputs((flat == 0).all(1).cpu(), constant.double().cpu())


@dataclass(frozen=True)
class _Weight:
    """A place in memory that holds a weight: by dim of what lies there its stride, its size and the weight's dim."""

    name: str
    storage: Any
    first: int
    last: int
    dims: tuple[tuple[int, int, int], ...]

    def dim_of(self, tensor: Tensor, at: int) -> tuple[int, int] | None:
        """Return the weight's dim that the dim `at` of a view of it is, and the size of the dims after it that are one
        with it there; None where it is a part of a dim, or another order of them.
        """
        stride, size = tensor.stride(at), tensor.shape[at]
        own = [(stride, size) for stride, size, _ in self.dims]
        if own == list(zip(tensor.stride(), tensor.shape, strict=True)):
            return self.dims[at][2], 1
        for this, wide, dim in self.dims:
            if (this, wide) == (stride, size):
                return dim, 1
        for number, (_, _, dim) in enumerate(self.dims):
            tail = self.dims[number:]
            whole = all(one[0] == after[0] * after[1] for one, after in pairwise(tail))
            if whole and stride == tail[-1][0] and size == prod(each[1] for each in tail):
                return dim, prod(each[1] for each in tail[1:])
        return None


class WeightInputs:
    """The inputs of the weights of one network, of all calls in all its forward passes: `found`, by name."""

    def __init__(self, found: dict[str, LayerInputs]) -> None:
        self._found = found
        self._dims: dict[str, int] = {}
        self._unclear: set[str] = set()
        self._weights: dict[int, list[_Weight]] = {}
        self._running: list[str | None] = []

    def read(self, name: str, args: tuple[Any, ...], out: Tensor) -> None:
        """Take the inputs of an operation, where it is a sum of products with a weight."""
        if name in CONTRACTIONS:
            left, right, _ = CONTRACTIONS[name]
            if name == "convolution":
                self._read(args[right], 0 if args[6] else 1, args[left], 1)
            else:
                into = max(args[right].dim() - 2, 0)
                self._read(args[right], into, args[left], args[left].dim() - 1)
                self._read(args[left], args[left].dim() - 1, args[right], into, is_left=True)
        elif (weight := self._weight(args[0])) is not None:
            found = [weight.dim_of(args[0], at) for at in range(args[0].dim())]
            if all(each is not None and each[1] == 1 for each in found):
                dims = [each[0] for each in found if each is not None]
                self._know(weight.name, out, dims)

    def add(self, name: str, seen: LayerInputs) -> None:
        """Take the inputs of one call."""
        before = self._found.get(name)
        if before is not None and len(before.zero) != len(seen.zero):
            self._unclear.add(name)
        else:
            self._found[name] = seen if before is None else before.also(seen)

    @contextmanager
    def watching(self, model: nn.Module, mode: NaNMode) -> Iterator[None]:
        """Know the weights of `model` inside the block."""
        self._weights.clear()
        for name, value in _values(model):
            if value.layout == torch.strided:
                self._know(name, value, range(value.dim()))
        handles = []
        for path, module in model.named_modules():
            if isinstance(module, _ConvNd | nn.Linear | ParametrizationList):
                label = None if isinstance(module, ParametrizationList) else f"{path}.weight"
                handles.append(module.register_forward_pre_hook(lambda *_, label=label: self._running.append(label)))
                handles.append(module.register_forward_hook(lambda *_: _pop(self._running)))
            if isinstance(module, nn.RNNBase):
                handles.append(module.register_forward_pre_hook(self._recurrent(path, mode), with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._weights.clear()
            self._running.clear()
            for name in self._unclear & self._found.keys():
                self._found[name] = self._found[name].unknown()

    def _recurrent(self, path: str, mode: NaNMode) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            given = args[0] if args else named["input"]
            values = given.data if isinstance(given, PackedSequence) else given
            mode.paused = True
            for end in ("", "_reverse") if module.bidirectional else ("",):
                self.add(f"{path}.weight_ih_l0{end}".lstrip("."), inputs_along(values, values.dim() - 1))
            mode.paused = False

        return hook

    def _read(self, weight: Tensor, into: int, given: Tensor, dim: int, *, is_left: bool = False) -> None:
        known = self._weight(weight)
        if known is None:
            running = self._running[-1] if self._running and not is_left else None
            if running is not None and not bool(torch.isnan(weight).any()):
                self.add(running.lstrip("."), inputs_along(given, dim))
            return
        place = known.dim_of(weight, into)
        if place is None or self._dims.setdefault(known.name, place[0]) != place[0]:
            self._unclear.add(known.name)
            return
        seen = inputs_along(given, dim)
        if place[1] > 1:  # as a product with the patches of an image
            constant = seen.constant.reshape(-1, place[1])
            same = (constant == constant[:, :1]).all(1)
            seen = LayerInputs(seen.zero.reshape(-1, place[1]).all(1), torch.where(same, constant[:, 0], torch.nan))
        self.add(known.name, seen)

    def _weight(self, tensor: Tensor) -> _Weight | None:
        at = tensor.storage_offset()
        places = self._weights.get(tensor.untyped_storage().data_ptr(), ())
        return next((one for one in places if one.first <= at < one.last), None)

    def _know(self, name: str, tensor: Tensor, dims: Iterable[int]) -> None:
        if tensor.numel() == 0:
            return
        first, storage = int(tensor.storage_offset()), tensor.untyped_storage()
        last = (
            int(first)
            + 1
            + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        )
        each = tuple(zip(tensor.stride(), tensor.shape, dims, strict=True))
        self._weights.setdefault(storage.data_ptr(), []).append(_Weight(name, storage, first, last, each))


def _values(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _pop(running: list[str | None]) -> None:
    running.pop()
