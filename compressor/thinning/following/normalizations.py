"""Normalizations, and operations along some dims that leave every entry in its place."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compressor.thinning.behaviour import rule_at_zero
from compressor.thinning.following.notes import NORMS, Notes, as_rule, labels_of
from compressor.thinning.following.states import State
from compressor.thinning.graph import Node
from compressor.thinning.labels import (
    changing,
    distinct,
)

aten = torch.ops.aten


class Normalizations(Notes):  # type: ignore[no-untyped-call]
    """Normalizations, and operations along some dims that leave every entry in its place."""

    def _batch_norm(self, args: tuple[Any, ...], result: Any) -> None:
        x, values = args[0], result[0] if isinstance(result, (tuple, list)) else result
        given = self._state(x)
        dim = 1 if x.dim() > 1 else 0
        lines = []
        for label in given.labels:
            if dim in changing(label) or (x.shape[dim] == 1 and not changing(label)):
                lines.append(self._one_channel(label, dim, given))
            else:
                self._keep_labels(label, f"{self._layer_name('batch_norm')} normalizes over them")
        companions = []
        for one in args[1:5]:
            state = self._state(one) if isinstance(one, Tensor) else State()
            if state.weight is None:
                continue
            entries = labels_of(state, one, 0)
            if entries is not None and lines:
                self._join(lines[0], entries, given.sites)
            if isinstance(one, nn.Parameter) or one.requires_grad or state.labels:
                companions.append(state.weight)
        if given.weight is not None and not companions:  # the weight of a layer is normalized
            self._states[id(values)] = State(given.labels, (), given.weight, given.sites)
            return
        own = tuple(dict.fromkeys(name for name in companions[:2] if name in self._trained))
        out = lines[0] if lines else torch.full((x.shape[dim],), -1)
        path, module, _ = self._stack[-1]
        number = self._add(Node(path, "norm", given.sources, out, companions=own, owned=isinstance(module, NORMS)))
        self._states[id(values)] = State(given.labels, (number,), None, given.sites)

    def _group_norm(self, args: tuple[Any, ...], result: Any) -> None:
        x, scale, shift, groups = args[0], args[1], args[2], int(args[6])
        given = self._state(x)
        labels = [one for one in given.labels if 1 in changing(one)]
        for label in given.labels:
            if 1 not in changing(label):
                self._keep_labels(label, f"{self._layer_name('group_norm')} normalizes over them")
        line = self._one_channel(labels[0], 1, given) if labels else torch.full((x.shape[1],), -1)
        companions = []
        for one in (scale, shift):
            if isinstance(one, Tensor):
                state = self._state(one)
                entries = labels_of(state, one, 0)
                if entries is not None and labels:
                    self._join(line, entries, given.sites)
                companions += [state.weight] if state.weight is not None and state.weight in self._trained else []
        if labels and groups == 1:
            self._keep_labels(line, f"{self._layer_name('group_norm')} normalizes over them")
        elif labels and groups < x.shape[1]:  # a group is normalized as one: it stays or goes as a whole
            parts = line.reshape(groups, -1)
            self._join(parts, parts[:, :1].expand_as(parts), given.sites)
            self._tie(parts, f"{self._layer_name('group_norm')} normalizes them in groups, which go as a whole")
        self.found.numbers[self._now] = (x.shape[1] // groups,)  # the size of a group stays
        self.found.given[self._now] = State(given.labels, sites=given.sites)
        path, module, _ = self._stack[-1]
        node = Node(path, "norm", given.sources, line, companions=tuple(companions), owned=isinstance(module, NORMS))
        self._states[id(result[0])] = State(given.labels, (self._add(node),), None, given.sites)

    def _along(self, name: str, x: Tensor, dims: Sequence[int], *results: Tensor) -> None:
        """Follow an operation along some dims that leaves every entry in its place."""
        given = self._state(x)
        over = {dim % x.dim() for dim in dims}
        for label in given.labels:
            moving = set(changing(label))
            if over & moving and not moving <= over:
                self._join_along(label, over, given, f"{self._layer_name(name)} works")
            elif over & moving:
                doing = "normalizes" if "norm" in name or "softmax" in name else "works"
                self._keep_labels(label, f"{self._layer_name(name)} {doing} over them")
        zero = as_rule(rule_at_zero(name, (x,), {}))
        number = self._add(Node(self._layer_label(name), "operation", given.sources, distinct(given.labels), zero=zero))
        for one in results:
            if isinstance(one, Tensor) and one.shape == x.shape:
                self._states[id(one)] = State(given.labels, (number,), given.weight, given.sites)
