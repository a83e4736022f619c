"""What each operation makes of values that depend on the image.

Such values are unknown: NaN in floats, marks in bools and integers. The others stay numbers, and they are exact,
because the network's own operations computed them. A result is unknown where it may change with an unknown entry of
what the operation is given: behind a zero weight or a zero factor, and where both values of a condition choose equal
numbers, it is known.
"""

import itertools
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from compressor.tracing import nan_rules as rules
from compressor.tracing.draws import draw, is_draw
from compressor.tracing.unknown import Unknown, tensors_of

__all__ = ["NaNMode"]

aten = torch.ops.aten


class NaNMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Let NaN mean "depends on the image" in every operation."""

    def __init__(
        self,
        training: bool,
        *,
        by_class: bool = False,
        read: Callable[[str, tuple[Any, ...], Tensor], None] | None = None,
        high: bool | None = None,
    ) -> None:
        """`high`: single numbers that are drawn are the largest, or the least ones; None: they are unknown.
        `by_class`: an output of a softmax over [1, classes] depends on the image where its own input does, not where
        only their sum does. `read` is called with the name, the arguments and the result of each contraction and each
        copy.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self._training, self._by_class, self._read, self._high = training, by_class, read, high
        self._unknown = Unknown()
        self.paused = False
        self.lost = False
        """Whether Python read a value that depends on the image, or a size depends on it: then nothing is known."""
        self.drew = False
        """Whether a single number was drawn."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if self.paused:
            return function(*args, **kwargs)
        name = _name(function)
        if _is_view(function):
            out = function(*args, **kwargs)
            if function is aten.view.dtype:
                self.lost |= self._unknown.any_of(args) and not self._unknown.has_marks_of(out, args[0])
            return out
        marked = [at for at, value in enumerate(args) if any(map(self._unknown.marked, tensors_of(value)))]
        if any(map(self._unknown.marked, tensors_of(list(kwargs.values())))):
            return self._lose(function, args, kwargs)
        if not marked:
            out = self._plain(function, name, args, kwargs)
            if self._read is not None and (name in rules.CONTRACTIONS or name in ("clone", "_to_copy")):
                self._read(name, args, out)
            return out
        if torch.Tag.data_dependent_output in function.tags:
            return self._lose(function, args, kwargs)
        if name in rules.BY_CHANNEL:
            return self._by_channel(function, args, kwargs)
        indices = [at for at in marked if function._schema.arguments[at].name in ("index", "indices")]
        if indices:
            return self._at_unknown(function, name, args, kwargs)
        if torch.Tag.dynamic_output_shape in function.tags and name != "index":
            return self._lose(function, args, kwargs)
        bools = all(
            one.dtype == torch.bool for at in marked for one in tensors_of(args[at]) if self._unknown.marked(one)
        )
        if _is_pointwise(function, name):
            if bools and len(marked) <= 3:
                return self._alternatives(function, name, args, kwargs, marked)
            return (
                self._product(function, args, kwargs)
                if name == "mul"
                else self._entry_by_entry(function, name, args, kwargs)
            )
        if name in (rules.MOVES | rules.MONOTONE if bools else rules.MOVES | rules.SUMS):
            return self._alternatives(function, name, args, kwargs, marked)
        return self._all_unknown(function, args, kwargs)

    def _plain(self, function: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what an operation makes where all bools and integers that it is given are known."""
        if name in rules.CONTRACTIONS and all(one.is_floating_point() for one in tensors_of(args)):
            return rules.through(function, args, *rules.CONTRACTIONS[name], **kwargs)
        if name in rules.BATCH_NORMS:
            return self._normalized(function(*args, **kwargs), args)
        if name == "mul":
            return self._product(function, args, kwargs)
        if name == "div":
            return rules.quotient(function, args, kwargs)
        if name in rules.BY_CHANNEL:
            return self._by_channel(function, args, kwargs)
        if name == "glu":
            first, second = args[0].chunk(2, *args[1:])
            return self._product(aten.mul.Tensor, (first, second.sigmoid()), {})
        if name == "addcmul" and not function._schema.is_mutable:
            product = self._product(aten.mul.Tensor, args[1:3], {})
            return function(args[0], product, torch.ones_like(product), **kwargs)
        if self._by_class and name in rules.SOFTMAX and args[0].dim() == 2:
            return rules.of_classes(function, args)
        if torch.Tag.data_dependent_output in function.tags or torch.Tag.dynamic_output_shape in function.tags:
            known = name == "index" or not self._unknown.any_of(args)
            return function(*args, **kwargs) if known else self._lose(function, args, kwargs)
        if torch.Tag.nondeterministic_seeded in function.tags and not name.startswith("_"):
            if name == "rrelu_with_noise" and not any(args[4:5]):  # it draws in training alone
                return self._entry_by_entry(function, name, args, kwargs)
            return self._drawn(function, name, args, kwargs)
        if name.endswith("_like") or name.startswith("new_"):
            return function(*args, **kwargs)
        if _is_pointwise(function, name):
            return self._entry_by_entry(function, name, args, kwargs)
        if name in rules.ROWS:
            return self._by_rows(function, args, kwargs)
        counts = name in ("norm", "linalg_vector_norm") and 0 in args[1:2]  # a norm of order 0
        if name not in rules.CARRIES or function.namespace != "aten" or counts:
            return self._all_unknown(function, args, kwargs)
        out = function(*args, **kwargs)
        for one in tensors_of(out):
            if not one.is_floating_point() and not one.is_complex():
                if name in ("copy", "_to_copy"):  # to another type
                    self._unknown.put(one, self._unknown.of(args[name == "copy"]).expand_as(one))
                elif self._unknown.any_of(args):
                    self._unknown.put(one)
        if name in ("native_layer_norm", "native_group_norm", "_fused_rms_norm"):
            rules.shut(name, out, args)
        return out

    def _drawn(self, function: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        unknown = self._unknown.any_of(args) and name != "uniform"  # in place it overwrites what it is given
        out = function(*args, **kwargs)
        single = is_draw(function, out) and not unknown
        self.drew |= single
        if single and self._high is not None:
            draw(name, args, kwargs, out, high=self._high)
        else:
            self._unknown.put(out)
        return out

    def _entry_by_entry(self, function: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = [*tensors_of(args), *tensors_of(list(kwargs.values()))]
        if name in rules.POINTWISE:
            if name != "rrelu_with_noise" and self._unknown.any_of(given[1:]):  # the noise is not set
                return self._all_unknown(function, args, kwargs)
            given = given[:1]
        if name in rules.SAME and not any(map(self._unknown.marked, given)):
            return function(*args, **kwargs)
        # In place an operation overwrites what it is given.
        masks = [self._unknown.of(one) for one in given]
        out = function(*args, **kwargs)
        for one in tensors_of(out):
            unknown = torch.zeros_like(one, dtype=torch.bool)
            for mask in masks:
                unknown |= mask.expand_as(one)
            self._unknown.put(one, unknown)
        return out

    def _alternatives(
        self, function: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], marked: list[int]
    ) -> Any:
        """Return a result that is known where it is the same for each value that the marked entries may have.

        Operations that move entries, or never fall where one rises, are run with the least and the largest values.
        """
        given = [one for at in marked for one in tensors_of(args[at]) if self._unknown.marked(one)]
        masks = [self._unknown.of(one).clone() for one in given]
        for one, mask in zip(given, masks, strict=True):
            self._unknown.put(one, torch.zeros_like(mask))
        in_place = function._schema.is_mutable
        each = _is_pointwise(function, name) or name == "index_put"
        values = list(itertools.product((False, True), repeat=len(given)))[1:] if each else [(True,) * len(given)]
        others = []
        for high in values:
            swap = {
                id(one): one.masked_fill(mask, 1)
                for one, mask, is_high in zip(given, masks, high, strict=True)
                if is_high
            }
            if in_place:
                swap.setdefault(id(args[0]), args[0].clone())
            others.append(list(tensors_of(self._plain(function, name, _swapped(args, swap), kwargs))))
        out = self._plain(function, name, args, kwargs)
        for one, mask in zip(given, masks, strict=True):
            if not (in_place and one is args[0]):
                self._unknown.put(one, mask)
        for number, one in enumerate(tensors_of(out)):
            unknown = self._unknown.of(one).clone()
            for other in others:
                unknown |= self._unknown.of(other[number]) | (one != other[number])
            self._unknown.put(one, unknown)
        return out

    def _at_unknown(self, function: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what an operation makes at indices that are unknown: all of it is, unless a mask says what is not."""
        masks = [one for one in tensors_of(args[1]) if one.dtype == torch.bool] if name.startswith("index") else []
        if not masks and name in ("index", "index_select", "gather"):
            return self._from_anywhere(function, name, args, kwargs)
        if name not in ("index", "index_put") or len(masks) != len(list(tensors_of(args[1]))):
            return self._all_unknown(function, args, kwargs)
        if name == "index_put" and args[2].numel() == 1 and not any(args[3:]):
            marked = [at for at in range(3) if any(map(self._unknown.marked, tensors_of(args[at])))]
            return self._alternatives(function, name, args, kwargs, marked)
        # As many places as there may be: what is put there was read at the same places.
        most = {id(mask): mask | self._unknown.of(mask) for mask in masks}
        given = _swapped(args, most)
        out = function(*given, **kwargs)
        unknown = None
        if name == "index_put":
            there = torch.zeros_like(out, dtype=torch.bool)
            unknown = self._unknown.of(out) | there.index_put_(
                list(given[1]), torch.ones((), dtype=torch.bool, device=out.device)
            )
        self._unknown.put(out, unknown)
        return out

    def _from_anywhere(self, function: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what lies at indices that are unknown: it is known where the same lies at all of them."""
        x = args[0]
        dims = [at for at, one in enumerate(args[1]) if one is not None] if name == "index" else [args[1] % x.dim()]
        first = x
        for dim in dims:
            first = first.narrow(dim, 0, 1)
        varies = self._unknown.of(x) | (x != first)
        for dim in dims:
            varies = varies.any(dim, keepdim=True)
        out = function(*args, **kwargs)
        self._unknown.put(out, function(varies.expand_as(x), *args[1:], **kwargs))
        return out

    def _product(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Return a product in which 0 times what is unknown is 0."""
        given = [factor for factor in args if isinstance(factor, Tensor)]
        zeros = [factor == 0 for factor in given]  # in place the first factor is overwritten
        marks = [self._unknown.of(factor).clone() if self._unknown.marked(factor) else None for factor in given]
        out: Tensor = function(*args, **kwargs)
        if any(isinstance(factor, int | float) and factor == 0 for factor in args):
            zeros.append(torch.ones_like(out, dtype=torch.bool))
            marks.append(None)
        zeros = [zero if mark is None else zero & ~mark for zero, mark in zip(zeros, marks, strict=True)]
        for zero in zeros:
            out.masked_fill_(zero.expand_as(out), 0)
        if any(mark is not None for mark in marks):
            unknown = torch.zeros_like(out, dtype=torch.bool)
            for mark in marks:
                unknown |= False if mark is None else mark
            for zero in zeros:
                unknown &= ~zero
            self._unknown.put(out, unknown)
        return out

    def _by_channel(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what is unknown, but 0 in the channels in which all entries of the image are 0."""
        zero = (args[0] == 0).flatten(2).all(2)
        out = self._all_unknown(function, args, kwargs)
        out.masked_fill_(zero.reshape(*zero.shape, *[1] * (out.dim() - 2)), 0)
        return out

    def _by_rows(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        names = [argument.name for argument in function._schema.arguments]
        default = None if function._schema.name in ("aten::argmax", "aten::argmin", "aten::median") else -1
        dim = kwargs.get("dim", args[names.index("dim")] if "dim" in names[: len(args)] else default)
        unknown = self._unknown.of(args[0])
        out = function(*args, **kwargs)
        for one in tensors_of(out):
            row = unknown.any() if dim is None else unknown.any(dim, keepdim=one.dim() == unknown.dim())
            self._unknown.put(one, row.expand_as(one))
        return out

    def _all_unknown(
        self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, always: bool = False
    ) -> Any:
        """Return what an operation makes: nothing of it is known where an entry of what it is given is unknown."""
        unknown = always or self._unknown.any_of(args) or self._unknown.any_of(list(kwargs.values()))
        if function.namespace != "aten" and not function._schema.is_mutable:  # it may read places from what is NaN
            args, kwargs = tree_map_only(Tensor, _numbers, (args, kwargs))
        out = function(*args, **kwargs)
        if unknown:
            for argument, value in zip(function._schema.arguments, args, strict=False):
                if argument.alias_info is not None and argument.alias_info.is_write:
                    for one in tensors_of(value):
                        self._unknown.put(one)
            for one in tensors_of(out):
                self._unknown.put(one)
            self.lost |= isinstance(out, bool | int | float)
        return out

    def _lose(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.lost = True
        return self._all_unknown(function, args, kwargs)

    def _normalized(self, out: Any, args: tuple[Any, ...]) -> Any:
        image, gamma, beta = args[0], args[1], args[2]
        values = out[0]
        by_batch = self._training and not (args[3] is None and args[5] is True)
        if gamma is None:
            if by_batch:
                values.fill_(torch.nan)
            return out
        side = (1, -1) + (1,) * (image.dim() - 2)
        normalized = torch.full_like(values, torch.nan) if by_batch else values
        values.copy_(rules.where_shut(gamma.reshape(side), None if beta is None else beta.reshape(side), normalized))
        return out


@cache
def _name(function: Any) -> str:
    """Return the name of an operation, without that of an overload, and that of its form that writes in place."""
    name: str = function._schema.name.split("::")[1]
    return name.removesuffix("_")


@cache
def _is_view(function: Any) -> bool:
    infos = [value.alias_info for value in function._schema.returns]
    return bool(infos) and all(info is not None and not info.is_write for info in infos)


@cache
def _is_pointwise(function: Any, name: str) -> bool:
    """Return whether an operation works on each entry by itself: torch says so, perhaps of another form of it."""
    if name in rules.POINTWISE or name == "floor_divide":
        return True
    forms = getattr(aten, name, None) if function.namespace == "aten" and name not in ("max", "min") else None
    tags = [getattr(forms, form).tags for form in forms.overloads()] if forms is not None else []
    return any(torch.Tag.pointwise in each for each in (function.tags, *tags))


def _swapped(values: Any, swap: Mapping[int, Tensor]) -> Any:
    """Return the arguments with some of their tensors replaced."""
    if isinstance(values, list | tuple):
        return type(values)(_swapped(value, swap) for value in values)
    return swap.get(id(values), values)


def _numbers(tensor: Tensor) -> Tensor:
    """Return a tensor with 0 in place of NaN."""
    return tensor.nan_to_num() if tensor.is_floating_point() else tensor
