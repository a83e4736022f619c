"""Operations that bring tensors together: entry by entry, behind each other, or in a way that no rule covers."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from compressor.thinning import behaviour
from compressor.thinning.behaviour import rule_at_zero
from compressor.thinning.following.notes import Notes, as_rule, both, name_of, sized
from compressor.thinning.following.states import State
from compressor.thinning.graph import Node
from compressor.thinning.labels import (
    Labels,
    changing,
    compressed,
    distinct,
    is_empty,
    small,
)

aten = torch.ops.aten


class Joints(Notes):  # type: ignore[no-untyped-call]
    """Operations that bring tensors together."""

    def _concatenated(self, pieces: Sequence[Tensor], dim: int, result: Tensor) -> None:
        pieces = [piece for piece in pieces if piece.dim() == result.dim()]  # torch skips empty vectors
        self._together(pieces, [self._state(piece).labels for piece in pieces], dim % result.dim(), result, "cat")

    def _stacked(self, pieces: Sequence[Tensor], dim: int, result: Tensor) -> None:
        dim = dim % result.dim()
        labels = [tuple(one.unsqueeze(dim) for one in self._state(piece).labels) for piece in pieces]
        sizes = [piece.unsqueeze(dim) for piece in pieces]
        self._together(sizes, labels, dim, result, "stack", states=[self._state(piece) for piece in pieces])

    def _together(
        self,
        pieces: Sequence[Tensor],
        labels: Sequence[Labels],
        dim: int,
        result: Tensor,
        name: str,
        states: Sequence[State] | None = None,
    ) -> None:
        states = [self._state(piece) for piece in pieces] if states is None else states
        sites = frozenset[int]().union(*(state.sites for state in states))
        behind, beside = [], []
        for piece, own in zip(pieces, labels, strict=True):
            line = [one for one in own if dim in changing(one) or (piece.shape[dim] == 1 and not changing(one))]
            behind.append(small(line[0]) if line else torch.full([1] * result.dim(), -1))
            beside.append([one for one in own if all(one is not other for other in line[:1])])
        made: list[Tensor] = []
        if any(not is_empty(one) for one in behind):
            shape = [max(one.shape[d] for one in behind) if d != dim else 1 for d in range(result.dim())]
            parts = [one.expand(sized(shape, dim, piece.shape[dim])) for one, piece in zip(behind, pieces, strict=True)]
            made.append(compressed(torch.cat(parts, dim)).expand(result.shape))
        joined: list[Tensor] = []
        for group in beside:
            for label in group:
                mine = compressed(label.narrow(dim, 0, 1)) if label.shape[dim] else label
                other = next((one for one in joined if set(changing(one)) & set(changing(mine))), None)
                if other is not None:
                    self._join(*both(other, mine), sites)
                elif changing(mine):
                    joined.append(mine)
        for label in joined:
            for piece, group in zip(pieces, beside, strict=True):
                if piece.shape[dim] and not any(set(changing(one)) & set(changing(label)) for one in group):
                    self._keep_labels(label, f"{self._place_of(name)} puts them beside values that are no channels")
        made += [label.expand(sized(result.shape, dim, 1)).expand(result.shape) for label in joined]
        sources = tuple(dict.fromkeys(number for state in states for number in state.sources))
        number = self._add(Node(name, "operation", sources, distinct(tuple(made))))
        weights = {state.weight for state in states}
        weight = weights.pop() if len(weights) == 1 else None
        self._states[id(result)] = State(tuple(made), (number,), weight, sites)

    def _glu(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Tensor) -> None:
        x = args[0]
        dim = (args[1] if len(args) > 1 else kwargs.get("dim", -1)) % x.dim()
        given = self._state(x)
        half = x.shape[dim] // 2
        labels = []
        for label in given.labels:
            if dim in changing(label):
                first, second = small(label).narrow(dim, 0, half), small(label).narrow(dim, half, half)
                self._join(first, second, given.sites)
                label = first.expand(result.shape)
            else:
                label = label.narrow(dim, 0, half)
            labels.append(label)
        number = self._add(Node("glu", "operation", given.sources, distinct(tuple(labels))))
        self._states[id(result)] = State(tuple(labels), (number,), None, given.sites)

    def _like(self, name: str, x: Tensor, result: Tensor) -> None:
        given = self._state(x)
        labels: Labels = ()
        if x.dim() == result.dim() and not (name in behaviour.NEW and self._fixes.get(self._now) == "keep"):
            labels = tuple(
                small(one).expand(result.shape)
                for one in given.labels
                if all(result.shape[dim] == x.shape[dim] for dim in changing(one)) and changing(one)
            )
        zero = "zero" in name  # nothing that is not 0 comes from there
        sources = () if zero else (self._add(Node(name, "operation", (), distinct(labels), zero="never")),)
        sites = given.sites | ({self._now} if name in behaviour.NEW else set())
        if name in behaviour.NEW:
            self.found.places.setdefault(self._now, self._place_of(name))
        self._states[id(result)] = State(labels, sources, None, sites, zero)

    def _pointwise(
        self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], given: list[Tensor], result: Any
    ) -> None:
        out = result[0] if isinstance(result, (tuple, list)) else result
        if not isinstance(out, Tensor):
            return
        states = [self._state(one) for one in given]
        shape = out.shape
        sites = frozenset[int]().union(*(state.sites for state in states))
        labels = self._entrywise(given, states, shape, name, sites)
        weights = {state.weight for state, one in zip(states, given, strict=True) if one.dim() > 0 or state.labels}
        made_of_weights = None not in weights and bool(weights)
        rule = rule_at_zero(name, args, kwargs)
        if self.found.numbers.get(self._now):
            self.found.given[self._now] = State(labels, sites=sites)
        companions: list[str] = []
        sources: list[int] = []
        for number, (one, state) in enumerate(zip(given, states, strict=True)):
            if rule == "first" and number > 0:
                break
            sources += state.sources
            if rule != "all" or state.zero or len(given) == 1:
                continue
            if not state.labels and one.dtype == torch.bool:
                continue
            if state.weight is not None and not made_of_weights:
                moving = {dim for label in labels for dim in changing(label)}
                table = {dim + len(shape) - one.dim() for own in state.labels for dim in changing(own)} - moving
                if state.weight in self._trained and name in ("add", "sub") and not table:
                    companions.append(state.weight)
                else:
                    rule = "never"
            elif any(not self._brings(one, state, label) for label in labels):
                rule = "never"  # a sum with something else is not 0
        if made_of_weights:
            whole = [
                state.weight or "" for state, one in zip(states, given, strict=True) if one.shape == shape
            ] or sorted(map(str, weights))
            main = min(whole, key=lambda each: (each not in self._trained, ".weight" not in f".{each}", each))
            self._set(out, State(labels, (), main, sites))  # a scale or a mask is not the weight
            return
        bare = [state.weight for state in states if state.weight is not None]
        said = self._layer_label(name)
        said = f"{said} with {bare[0]}" if bare and said == name else said
        inputs = tuple(dict.fromkeys(sources))
        node = Node(
            said, "operation", inputs, distinct(labels), zero=as_rule(rule), companions=tuple(companions)
        )  # fmt: skip
        zero = rule in ("all", "first", "any") and bool(states) and all(state.zero for state in states)
        pairs = next((state.pairs for state in states if state.pairs), "")
        if len(labels) > max(len(state.labels) for state in states):
            pairs = self._place_of(name)
        self._set(out, State(labels, (self._add(node),), None, sites, zero, pairs))
        for other in result[1:] if isinstance(result, (tuple, list)) else ():
            if isinstance(other, Tensor) and other.shape == shape:
                self._states[id(other)] = State(labels, (len(self.found.nodes) - 1,), None, sites)

    def _unknown(self, function: Any, given: Sequence[Tensor], result: Any) -> None:
        for one in given:
            state = self._state(one)
            self._keep(state, f"{self._place(function)} cannot be followed")
        numbers = tuple(dict.fromkeys(number for one in given for number in self._state(one).sources))
        labels = torch.cat([distinct(self._state(one).labels) for one in given])
        number = self._add(
            Node(self._layer_label(name_of(function)), "mixing", numbers, distinct((labels,)), zero="never")
        )
        for one in tree_leaves(result):
            if isinstance(one, Tensor):
                same = next((self._state(x).labels for x in given if x.shape == one.shape), ())
                self._states[id(one)] = State(same, (number,))
