"""Operations that move entries and change none."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from compressor.thinning.following.notes import COPIES, PARTS, TURNS, VIEWS, Notes, in_place, turned
from compressor.thinning.following.states import Fix, Reads, State
from compressor.thinning.graph import Node
from compressor.thinning.labels import (
    changing,
    compressed,
    distinct,
    only_along,
    small,
    vector,
)

aten = torch.ops.aten


class Movements(Notes):  # type: ignore[no-untyped-call]
    """Operations that move entries and change none."""

    def _moved(
        self, function: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any, fix: Fix | None
    ) -> bool:
        """Move the labels as the entries; return False where that cannot be done."""
        x = args[0]
        given = self._state(x)
        rest = args[1:]
        if name in ("index", "index_select"):
            rest = tree_map_only(Tensor, lambda one: self._values.get(id(one), one), rest)
            indexed = range(len(rest[0])) if name == "index" else [rest[0] % x.dim()]
            free = (
                all(rest[0][d] is None or all(d not in changing(one) for one in given.labels) for d in indexed)
                if (name == "index")
                else all(rest[0] % x.dim() not in changing(one) for one in given.labels)
            )
            if free:  # where labels do not change, any entry has the same
                rest = tree_map_only(Tensor, lambda one: torch.zeros(one.shape, dtype=torch.long), rest)
            if any(isinstance(one, Tensor) and (one.is_meta or one.dtype == torch.bool) for one in tree_leaves(rest)):
                return False
        results = list(result) if isinstance(result, (tuple, list)) else [result]
        made: list[list[Tensor]] = [[] for _ in results]
        for label in given.labels:
            try:
                moved = self._label_moved(function, name, label, rest, kwargs, results)
            except (RuntimeError, NotImplementedError, IndexError, TypeError):
                return False
            if [one.shape for one in moved] != [one.shape for one in results]:
                return False
            reads = positions_read(name, label, rest) if given.weight is None else None
            if reads is not None:
                reads = replace(reads, place=self._place(function))
                self.found.reads[self._now] = reads
                self.found.hard_coded += [reads] if fix == "positions" else []
            for parts, like, dim in self._equal_parts(name, label, moved, fix, rest):
                self.found.equal[self._now] = dim
                if isinstance(fix, int):
                    self._join(parts, like, given.sites)
                    self._tie(parts, f"{self._place(function)} has equal parts, which lose the same channels")
            for own, one in zip(made, moved, strict=True):
                own.append(compressed(one))
        for own in made if given.weight is None else ():
            for one, other in combinations(own, 2):
                if set(changing(one)) & set(changing(other)):  # an entry belongs to two channels
                    by = given.pairs or self.found.places.get(max(given.sites, default=0), "a product")
                    for label in (one, other):
                        self._keep_labels(label, f"{by} makes pairs of them, which {name.strip('_')} puts into one dim")
        if given.weight is not None and len(given.labels) == x.dim() and name in ("t", "transpose", "permute"):
            made[0] = turned(made[0], name, rest)
        if id(x) in self._values and name in TURNS and len(results) == 1:
            self._values[id(results[0])] = function(self._values[id(x)], *rest, **kwargs)
        sites = given.sites
        spread = name == "expand" and results[0].shape != x.shape
        trivial = (name in TURNS and not spread) or (name in VIEWS and results[0].shape == x.shape)
        trivial = trivial or (name not in VIEWS and not spread and in_place(given.labels, made))
        if not trivial and given.labels and given.weight is None:
            sites = sites | {self._now}
            self.found.places.setdefault(self._now, self._place(function))
            self.found.results[self._now] = tuple(small(one) for own in made for one in own if one.numel())
            self.found.lineage[self._now] = sites
        aliases = any(one.alias_info is not None for one in function._schema.returns)
        for one, own in zip(results, made, strict=True):
            keep_zero = given.zero and name not in ("constant_pad_nd",)
            self._states[id(one)] = State(tuple(own), given.sources, given.weight, sites, keep_zero, given.pairs)
            if aliases and one is not x:
                self._roots[id(one)] = self._roots.get(id(x), id(x))
        if name == "constant_pad_nd" and len(args) > 2 and args[2] != 0 and given.sources:
            number = self._add(Node(name, "operation", given.sources, distinct(tuple(made[0])), zero="never"))
            self._states[id(results[0])].sources = (number,)
        return True

    def _label_moved(
        self, function: Any, name: str, label: Tensor, rest: Any, kwargs: Mapping[str, Any], results: list[Tensor]
    ) -> list[Tensor]:
        if name in COPIES:
            return [label]
        if name in VIEWS:
            return [label.reshape(results[0].shape)]
        if name == "expand":
            return [label.expand(results[0].shape)]
        if name == "constant_pad_nd":
            own = small(label)
            pads = [
                (rest[0][2 * i], rest[0][2 * i + 1]) if i < len(rest[0]) // 2 else (0, 0) for i in range(label.dim())
            ][::-1]
            moving = changing(label)
            mine = [side for d in reversed(range(label.dim())) for side in (pads[d] if d in moving else (0, 0))]
            return [torch.constant_pad_nd(own, mine, -1).expand(results[0].shape)]
        if name == "view_as_complex":  # two numbers, one entry
            return [label.select(-1, 0)]
        if name == "view_as_real":
            return [label.unsqueeze(-1).expand(results[0].shape)]
        if name in ("transpose", "squeeze", "unsqueeze", "t"):  # also the forms that work in place
            return [getattr(label, name)(*rest)]
        if name == "im2col":
            line = vector(label, label.dim() - 3) if label.dim() == 4 else vector(label, 0)
            wide = line.repeat_interleave(results[0].shape[-2] // len(line)).reshape(-1, 1)
            return [wide.expand(results[0].shape)] if only_along(label, label.dim() - 3) else []
        plain = getattr(getattr(aten, name), function._overloadname)
        if name.startswith(("pixel", "channel", "native_channel", "reflection", "replication", "unfold")):
            return [plain(label.double().contiguous(), *rest, **kwargs).long()]
        moved = plain(label, *rest, **kwargs)
        return list(moved) if isinstance(moved, (tuple, list)) else [moved]

    def _equal_parts(
        self, name: str, label: Tensor, moved: list[Tensor], fix: Fix | None, rest: Any
    ) -> list[tuple[Tensor, Tensor, int]]:
        """Return the labels of equal parts, the labels with which they can be joined, so that they lose the same
        channels, and the dim of a part's channels.
        """
        own = [compressed(one) for one in moved]
        found: list[tuple[Tensor, Tensor, int]] = []
        if name.endswith("channel_shuffle") and only_along(label, 1):
            parts = vector(label, 1).reshape(rest[0], -1)
            return [(parts, parts[:1].expand_as(parts), 0)]
        if name in PARTS:
            flat = own[0].dim() < label.dim()
            dims = [dim for dim in changing(label) if flat or own[0].shape[dim] != label.shape[dim]]
            if len(dims) != 1 or not only_along(label, dims[0]) or len({one.shape for one in own}) > 1:
                return found
            part, line = own[0].shape[dims[0]] if not flat else 0, vector(label, dims[0])
            if 1 < part < len(line) and len(line) % part == 0:
                parts = line.reshape(-1, part)
                found.append((parts, parts[:1].expand_as(parts), 0))
            return found
        for one in own:
            moving = changing(one)
            if len(moving) > 1 and len(changing(label)) < len(moving):
                sizes = [one.shape[dim] for dim in moving]
                open_ = [dim for dim in moving if name in VIEWS and rest[0][dim] == -1]
                largest = max(zip(sizes, moving, strict=True))[1]  # of equal ones the last, as in (heads, width of one)
                main = open_[0] if open_ else moving[0] if len(moving) > 2 else largest
                main = fix if isinstance(fix, int) and fix in moving else main
                line = small(one)
                for dim in moving:
                    if dim != main:
                        line = line.narrow(dim, 0, 1)
                found.append((small(one), line.expand(small(one).shape), main))
        return found


def positions_read(name: str, label: Tensor, rest: Sequence[Any]) -> Reads | None:
    """Return how an operation reads channels at positions; None where it has no positions among them."""
    takes: dict[str, tuple[int, Callable[..., Any]]] = {  # the place of the dim among the arguments
        "slice": (0, lambda line, *numbers: [aten.slice.Tensor(line, 0, *numbers)]),
        "select": (0, lambda line, *numbers: [aten.select.int(line, 0, *numbers)]),
        "split": (1, lambda line, size: aten.split.Tensor(line, size)),
        "unsafe_split": (1, lambda line, size: aten.split.Tensor(line, size)),
        "roll": (1, lambda line, numbers: [torch.roll(line, tuple(numbers), (0,) * len(numbers))]),
    }
    if name not in takes or not changing(label) or not label.numel():
        return None
    place, take = takes[name]
    dim = rest[place] if len(rest) > place else 0
    numbers = tuple(one for number, one in enumerate(rest) if number != place)
    if name == "roll":
        moving = changing(label)
        shifts = tuple(
            shift for shift, one in zip(rest[0], rest[1:] and rest[1], strict=False) if (one % label.dim(),) == moving
        )
        if not shifts:
            return None
        dim, numbers = moving[0], (shifts,)
    if changing(label) != (dim % label.dim(),):
        return None
    return Reads(vector(label, dim), numbers, lambda line: take(line, *numbers))
