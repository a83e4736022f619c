"""Which selection of weights can be thinned, where the channels of some selected weights cannot be removed."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compressor.component import Targets
from compressor.pruners import PrunerBase
from compressor.sparsity.structures import Structure
from compressor.thinning import ChannelGraph, couplings

_LONGEST = 1_000
"""The number of characters of a selection that is still shown."""


@dataclass(frozen=True)
class Remedy:
    """What to change in a selection: the weights to add to it, or those to leave out.

    `why`: the reason why the channels cannot be removed, also with all weights that share them; empty where they can.
    """

    add: tuple[str, ...] = ()
    leave: tuple[str, ...] = ()
    why: str = ""


def remedies(
    graph: ChannelGraph, names: Sequence[str], structure: Structure, barred: frozenset[str] = frozenset()
) -> dict[str, Remedy]:
    """Return what to change for each weight among `names` whose channels cannot be removed.

    Weights are added where the channels can be removed with all weights that share them, else the weight is left out,
    with those that share channels with it. `barred`: weights that cannot be added.
    """
    dim = structure.dim or 0

    joined = graph.channels.joined([one for one in graph.channels.cells if one[1] == dim])
    sharing = {name: [one for one, _ in members] for members in joined for name, _ in members}

    def broken(selected: Sequence[str]) -> dict[str, str]:
        return dict(couplings(graph, selected, structure).broken)

    def without(name: str, reasons: Mapping[str, str]) -> Remedy:
        mine = sharing[name]
        return Remedy(leave=tuple(one for one in names if one in mine), why=reasons.get(name, ""))

    found: dict[str, Remedy] = {}
    every = graph.channels.with_coupled(names, dim)
    kept = broken(every)
    for name in broken(names):
        mine = sharing[name]
        if kept.keys().isdisjoint(mine) and barred.isdisjoint(mine):
            found[name] = Remedy(add=tuple(one for one in mine if one not in names))
        else:
            found[name] = without(name, kept)
    # What could be removed only together with a weight that is left out now is left out, too.
    added = {name for one in found.values() for name in one.add}
    out = {name for one in found.values() for name in one.leave}
    while more := broken([name for name in every if name in added.union(names) and name not in out]):
        for name in more:
            found[name] = without(name, more)
            out.update(sharing[name])
    return found


def selection(pruner: PrunerBase, targets: Targets, changes: Mapping[str, Remedy]) -> str:
    """Return a pruner's selectors after these changes, as YAML; empty where they are a mapping, or too long."""
    add, leave = together(changes)
    fields = [field for field, chosen in targets.items() if any(name in chosen for name in {*changes, *leave})]
    if len(fields) != 1 or isinstance(targets[fields[0]], Mapping):
        return ""
    field, chosen = fields[0], targets[fields[0]]
    given: Any = getattr(pruner, field)
    items = [given] if isinstance(given, str) else list(given)
    out = [name for name in leave if name in chosen]
    if all(_EXACT.fullmatch(item) for item in items) and set(map(_plain, out)) <= set(map(_plain, items)):
        items = [item for item in items if _plain(item) not in set(map(_plain, out))]
    else:
        items += [f"!{name}" for name in out]
    left = [name for name in chosen if name not in leave]
    for every in ([*items, *add], [*left, *add]) if left or add else ():
        shown = ", ".join(map(_quoted, every))
        if len(shown) <= _LONGEST:
            return f"{field}: [{shown}]"
    return ""


def together(changes: Mapping[str, Remedy]) -> tuple[list[str], list[str]]:
    """Return all weights to add, and all to leave out, each once."""
    leave = dict.fromkeys(name for one in changes.values() for name in one.leave)
    add = dict.fromkeys(name for one in changes.values() for name in one.add if name not in leave)
    return list(add), list(leave)


_EXACT = re.compile(r"[\w.-]+")
"""A selector that is a name, and needs no quotes in YAML."""


def _plain(name: str) -> str:
    """Return a name without the `module` parts, which selectors may have and names need not."""
    return ".".join(part for part in name.split(".") if part != "module")


def _quoted(item: str) -> str:
    return item if _EXACT.fullmatch(item) else "'" + item.replace("'", "''") + "'"
