"""Operations over whole dims, and those on the positions of each channel."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from compressor.thinning.behaviour import rule_at_zero
from compressor.thinning.following.notes import SUMS, WORDS, Notes, as_rule
from compressor.thinning.following.states import State
from compressor.thinning.graph import Node
from compressor.thinning.labels import (
    changing,
    distinct,
)

aten = torch.ops.aten


class Reductions(Notes):  # type: ignore[no-untyped-call]
    """Operations over whole dims, and those on the positions of each channel."""

    def _reduced(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> None:
        x = args[0]
        given = self._state(x)
        dims = kwargs.get("dim", args[1] if len(args) > 1 and not isinstance(args[1], (bool, float)) else None)
        if name in ("norm", "linalg_vector_norm"):
            dims = args[2] if len(args) > 2 else kwargs.get("dim")
        gone = range(x.dim()) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
        over = {dim % x.dim() for dim in gone} if x.dim() else set()
        results = [one for one in tree_leaves(result) if isinstance(one, Tensor)]
        labels: list[Tensor] = []
        sites = given.sites
        for label in given.labels:
            moving = set(changing(label))
            if over & moving and moving <= over:
                if name in SUMS:  # a channel of zeros adds nothing
                    self._add(Node(self._layer_label(name), "reader", given.sources, distinct((label,))))
                    sites |= {self._now}  # a number that it is combined with may change with the width
                    self.found.places.setdefault(self._now, self._place_of(name))
                else:
                    self._keep_labels(label, f"{self._layer_name(name)} takes the {WORDS.get(name, name)} over them")
                continue
            if over & moving:
                self._join_along(label, over, given, f"{self._layer_name(name)} takes the {WORDS.get(name, name)}")
            for dim in sorted(over):
                label = label.narrow(dim, 0, 1)
            if results and results[0].dim() < x.dim():
                for dim in sorted(over, reverse=True):
                    label = label.squeeze(dim)
            labels.append(label)
        zero = rule_at_zero(name, args, kwargs)
        number = self._add(Node(name, "operation", given.sources, distinct(tuple(labels)), zero=as_rule(zero)))
        for one in results:
            own = tuple(label for label in labels if label.shape == one.shape)
            self._states[id(one)] = State(own, (number,) if own else (), given.weight, sites)

    def _spatial(self, name: str, args: tuple[Any, ...], result: Any) -> None:
        x = args[0]
        given = self._state(x)
        count = next((int(char) for char in name if char in "123"), 2)
        positions = set(range(x.dim() - count, x.dim()))
        if "_fft_" in name:  # its dims are written
            positions = {dim % x.dim() for dim in args[1]}
        for other in args[1:]:
            if isinstance(other, Tensor):
                state = self._state(other)
                if "unpool" in name:  # each channel has places of its own
                    self._entrywise([x, other], [given, state], x.shape, name, given.sites | state.sites)
                else:
                    self._keep(state, f"{self._layer_name(name)} reads places from them")
        labels: list[Tensor] = []
        results = [one for one in tree_leaves(result) if isinstance(one, Tensor) and one.dim() == x.dim()]
        for label in given.labels:
            if positions & set(changing(label)):
                self._keep_labels(label, f"{self._layer_name(name)} mixes them")
                continue
            for dim in positions:
                label = label.narrow(dim, 0, 1)
            labels.append(label)
        number = self._add(Node(name, "operation", given.sources, distinct(tuple(labels))))
        for one in results:
            own = tuple(label.expand(one.shape) for label in labels)
            self._states[id(one)] = State(own, (number,), None, given.sites)
