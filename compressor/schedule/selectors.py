"""From the names in a schedule to the weights of a model.

An item of a list that begins with `!` excludes what the rest of it matches. One of weights that other items
leave out anyway says that this is known.
"""

import fnmatch
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Protocol

from torch import nn

from compressor.component import Component, Selects, Targets
from compressor.errors import did_you_mean
from compressor.schedule.document import Document, KeyPath, describe
from compressor.schedule.faults import Faults, Place
from compressor.schedule.left_out import Other, others, said
from compressor.schedule.patterns import matching as found_in
from compressor.sparsity import Computed, computed, prunable

LONGEST = 500
"""The number of characters that a selector may have."""


def plain(name: str) -> str:
    """Return a parameter's name without the `module` parts that DataParallel and Distiller's models add."""
    return ".".join(part for part in name.split(".") if part != "module")


class NameFault(ValueError):
    """Raised for a selector that matches nothing in this model; the text says what exists."""


class Selectable(Protocol):
    """The names that selectors may match."""

    def select(self, item: str) -> list[str]:
        """Return what one selector matches. Raises `NameFault` where it matches nothing."""

    def left_out(self, item: str) -> list[Other]:
        """Return what one selector would match if all weights were prunable."""


class Names:
    """Names of modules: exact, or by glob."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = dict(names)

    def select(self, item: str) -> list[str]:
        """Return the modules that one selector matches. Raises `NameFault` where there is none."""
        _refuse_long(item)
        found = [name for key, name in self._names.items() if fnmatch.fnmatchcase(key, plain(item))]
        if not found:
            raise NameFault(f"{item!r} matches no module: {did_you_mean(item, self._names)}")
        return found

    def left_out(self, item: str) -> list[Other]:
        """Return nothing: a selector matches all modules there are."""
        return []


class WeightNames:
    """The names of weights.

    Globs, re: and '*' match prunable weights; exact names any parameter; type: weights of a class.

    type: matches the weights of modules of that class, whatever it is. Two names of one tied parameter are one weight,
    known by its first name. A tensor that a layer computes (weight_norm, ...), and what it is computed from, cannot be
    selected.
    """

    def __init__(self, model: nn.Module) -> None:
        first = {id(p): name for name, p in model.named_parameters()}
        every = model.named_parameters(remove_duplicate=False)
        self._parameters = {plain(name): first[id(p)] for name, p in every}
        weights = {id(weight) for weight in prunable(model).values()}
        self._weights = {
            plain(name): first[id(p)] for name, p in model.named_parameters(remove_duplicate=False) if id(p) in weights
        }
        modules = dict(model.named_modules())
        self._modules = {path: type(module).__name__ for path, module in modules.items()}
        self._types = {name: type(modules[name.rpartition(".")[0]]).__name__ for name in first.values()}
        found = computed(model)
        self._computed: dict[str, Computed] = {plain(name): one for one in found for name in (one.name, *one.sources)}
        self._others = {plain(one.name): one for one in others(model, set(self._weights.values()))}
        self.parameters = sum(p.numel() for p in model.parameters())

    def of_modules(self, kinds: tuple[str, ...]) -> "Names":
        """Return the names of the modules of these classes, for selectors."""
        return Names({plain(path): path for path, kind in self._modules.items() if kind in kinds})

    def plain_name(self, item: str) -> str:
        """Return the first weight that a selector matches; the selector itself where it matches none."""
        try:
            return self.select(item)[0]
        except NameFault:
            return item

    def select(self, item: str) -> list[str]:
        """Return the weights that one selector matches, in the model's order.

        Raises `NameFault` where there is none.
        """
        _refuse_long(item)
        if item == "*":
            found = list(self._weights.values())
        elif item.startswith("type:"):
            wanted = item.removeprefix("type:")
            found = [name for name, kind in self._types.items() if kind == wanted and name.endswith("weight")]
        elif item.startswith("re:"):
            found = self._by_regex(item.removeprefix("re:"), self._weights)
        elif any(character in item for character in "*?["):
            found = [name for key, name in self._weights.items() if fnmatch.fnmatchcase(key, plain(item))]
        else:
            if plain(item) in self._computed:
                raise NameFault(f"{item!r} cannot be selected: {self._computed[plain(item)].reason}")
            found = [self._parameters[plain(item)]] if plain(item) in self._parameters else []
        found = list(dict.fromkeys(found))
        if not found:
            left = self.left_out(item)
            hint = "; ".join(said(item, left, self.parameters)) if left else self._hint(item)
            raise NameFault(f"{item!r} matches no weight: {hint}")
        return found

    def left_out(self, item: str) -> list[Other]:
        """Return the weights that a selector would match if they were prunable ones that no layer computes."""
        every = self._others
        if item == "*":
            return list(every.values())
        if item.startswith("type:"):
            return [one for one in every.values() if one.layer == item.removeprefix("type:")]
        if item.startswith("re:"):
            return [every[name] for name in self._by_regex(item.removeprefix("re:"), {name: name for name in every})]
        if any(character in item for character in "*?["):
            return [one for name, one in every.items() if fnmatch.fnmatchcase(name, plain(item))]
        first = self._parameters.get(plain(item), plain(item))
        return [one for one in every.values() if one.name == first]

    def _by_regex(self, pattern: str, among: Mapping[str, str]) -> list[str]:
        try:
            return [among[key] for key in found_in(pattern, among)]
        except ValueError as error:
            raise NameFault(str(error)) from None

    def _hint(self, item: str) -> str:
        if item == "*":
            return "the model has no convolution and no linear layer"
        if item.startswith("type:"):
            return did_you_mean(item.removeprefix("type:"), self._types.values())
        if item.startswith("re:") or any(character in item for character in "*?["):
            return did_you_mean(item, self._weights)
        inside = [name for name in self._weights if name.startswith(f"{plain(item)}.")]
        return did_you_mean(plain(item), inside or self._parameters, cutoff=0.3 if inside else 0.6)


def _refuse_long(item: str) -> None:
    if len(item) > LONGEST:
        raise NameFault(f"a selector of {len(item)} characters: at most {LONGEST} are allowed")


def left_out(
    component: Component, document: Document, path: KeyPath, names: WeightNames, targets: Targets
) -> dict[str, list[Place]]:
    """Return what the selectors of `component` (at `path`) leave out, in words, with the places of the selectors."""
    found: dict[str, list[Place]] = {}
    for field, mark, value, at in _selecting(component, path):
        if mark.modules:
            continue
        items: dict[KeyPath, str] = {at: value} if isinstance(value, str) else {}
        if isinstance(value, list):
            items = {(*at, index): item for index, item in enumerate(value)}
        elif isinstance(value, dict):
            items = {(*at, key): key for key in value}
        try:
            known = {name for item in items.values() if item.startswith("!") for name in _others(names, item)}
        except NameFault:  # `bind` has added the fault
            continue
        for place, item in items.items():
            if item.startswith("!") or _exactness(item) == _EXACT:
                continue
            try:
                left = [one for one in names.left_out(item) if one.name not in known.union(targets[field])]
            except NameFault:
                continue
            for line in said(item, left, names.parameters):
                found.setdefault(line, []).append(document.place(place, key=isinstance(value, dict)))
    return found


def _others(names: Selectable, item: str) -> set[str]:
    """Return the names of the weights that a selector leaves out, or an exclusion would."""
    return {one.name for one in names.left_out(_pattern(item))}


_EXACT = 3


def _exactness(key: str) -> int:
    if key == "*":
        return 0
    if key.startswith("type:"):
        return 1
    return 2 if key.startswith("re:") or any(character in key for character in "*?[") else _EXACT


def _selecting(component: Component, path: KeyPath) -> Iterator[tuple[str, Selects, Any, KeyPath]]:
    """Yield the selector fields of a component: name, mark, value, place."""
    for field, info in type(component).model_fields.items():
        mark = next((mark for mark in info.metadata if isinstance(mark, Selects)), None)
        if mark is not None:
            yield field, mark, getattr(component, field), (*path, info.alias or field)


def check_exclusions(component: Component, version: int, document: Document, path: KeyPath, faults: Faults) -> None:
    """Add a fault for each exclusion (`!fc*`) in a file of version 1, in a mapping, or without anything to exclude
    from.
    """
    for _, _, value, at in _selecting(component, path):
        if isinstance(value, str):
            places = {value: document.place(at)}
        elif isinstance(value, list):
            places = {item: document.place((*at, index)) for index, item in enumerate(value)}
        elif isinstance(value, dict):
            places = {key: document.place((*at, key), key=True) for key in value}
        else:
            continue
        excluding = [item for item in places if item.startswith("!")]
        if not excluding:
            continue
        item, place = excluding[0], places[excluding[0]]
        if version == 1:
            faults.add(place, f"{item!r} excludes weights: this needs `version: 2`")
        elif isinstance(value, dict):
            faults.add(place, f"{item!r} excludes weights: lists can do that, mappings cannot: name the other weights")
        elif len(excluding) == len(places):
            faults.add(place, f"{item!r} only excludes: begin with what it is taken from, as in ['*', {item!r}]")


def bind(component: Component, document: Document, path: KeyPath, names: WeightNames, faults: Faults) -> Targets:
    """Return what each selector field of `component` (at `path`) matches in the model."""
    targets: dict[str, Any] = {}
    for field, mark, value, at in _selecting(component, path):
        ranged: Selectable = names.of_modules(mark.modules) if mark.modules else names
        if isinstance(value, str):
            targets[field] = _list({at: value}, document, ranged, faults)
        elif isinstance(value, list):
            if not value:
                faults.add(document.place(at), "an empty list selects no weight")
            targets[field] = _list({(*at, index): item for index, item in enumerate(value)}, document, ranged, faults)
        elif isinstance(value, dict):
            targets[field] = _mapping(value, at, document, ranged, faults)
            if mark.values:
                for key, item in value.items():
                    found = _list({(*at, key): item}, document, names, faults)
                    if len(found) > 1:
                        faults.add(document.place((*at, key)), f"{item!r} matches {len(found)} weights: name one")
                targets[field] = {key: names.plain_name(item) for key, item in targets[field].items()}
    return targets


def _list(items: Mapping[KeyPath, str], document: Document, names: Selectable, faults: Faults) -> list[str]:
    """Return what a list selects.

    Of the items that match a weight the most exact one decides whether it is selected; of equally exact ones the last.
    """
    matching: dict[str, list[str]] = {}
    known, silent = True, _without_effect(items.values(), names)
    for at, item in items.items():
        try:
            for name in names.select(_pattern(item)):
                matching.setdefault(name, []).append(item)
        except NameFault as fault:
            if item in silent:
                continue
            known = False
            faults.add(
                document.place(at), f"{item!r} excludes nothing: {fault}" if item.startswith("!") else str(fault)
            )
    found = [name for name, own in matching.items() if _selected(own)]
    for at, item in items.items() if known else ():
        if not item.startswith("!") or item in silent:
            continue
        if not any(item in own and _excluded(own) for own in matching.values()):
            faults.add(document.place(at), f"{item!r} excludes nothing: no other item selects what it matches")
            known = False
    if known and items and not found:
        first = next(iter(items))
        faults.add(document.place(first), "nothing is selected: all that it matches is excluded")
    return found


def _without_effect(items: Collection[str], names: Selectable) -> set[str]:
    """Return the exclusions of weights that another item leaves out anyway: they say that this is known."""
    try:
        left = {name for item in items if not item.startswith("!") for name in _others(names, item)}
        return {item for item in items if item.startswith("!") and left & _others(names, item)}
    except NameFault:  # `select` says it at its place
        return set()


def _pattern(item: str) -> str:
    return item.removeprefix("!")


def _selected(matching: list[str]) -> bool:
    """Return whether the most exact of some items that match a weight, the last of equals, selects it."""
    most = max(_exactness(_pattern(item)) for item in matching)
    return not [item for item in matching if _exactness(_pattern(item)) == most][-1].startswith("!")


def _excluded(matching: list[str]) -> bool:
    """Return whether a weight that an item selects is excluded by another one."""
    return not _selected(matching) and not all(item.startswith("!") for item in matching)


def _mapping(
    values: Mapping[str, Any], path: KeyPath, document: Document, names: Selectable, faults: Faults
) -> dict[str, Any]:
    """Return the value of each weight. The most exact key wins: name, then glob or re:, then type:, then '*'."""
    matching: dict[str, list[str]] = {}
    for key in values:
        try:
            for name in names.select(key):
                matching.setdefault(name, []).append(key)
        except NameFault as fault:
            faults.add(document.place((*path, key), key=True), str(fault))
    chosen: dict[str, Any] = {}
    for name, keys in matching.items():
        most = max(map(_exactness, keys))
        first, *others = [key for key in keys if _exactness(key) == most]
        chosen[name] = values[first]
        for key in others:
            if values[key] != values[first]:
                faults.add(
                    document.place((*path, key), key=True),
                    f"{key!r} and {first!r} both match {name!r}, with different values"
                    f" ({describe(values[first])} and {describe(values[key])}): name the weight exactly",
                )
    return chosen
