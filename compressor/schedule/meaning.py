"""What a schedule means, apart from how it is written, and how the meanings of two differ."""

import difflib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from compressor.component import Component, Selects
from compressor.policies.policy import BoundPolicy
from compressor.schedule.document import Choice, Document, KeyPath, differing
from compressor.schedule.faults import Place
from compressor.schedule.schedule import Entry, Schedule
from compressor.schedule.selectors import plain
from compressor.schedule.stated import Stated
from compressor.timing import Window

Side = Literal["a", "b"]
RUNS_END = "the run's end"


class Difference(BaseModel):
    """One difference of meaning: what differs, and its value in either file.

    `part`: `policies`, `order`, `config`, `expect` of a schedule; `configuration`. `only`: the one file that has it.
    `names`: whether it is a selection of weights that was compared by its text.
    """

    model_config = ConfigDict(frozen=True)

    part: str
    what: str
    a: Stated
    b: Stated
    only: Side | None = None
    names: bool = False


@dataclass(frozen=True)
class Meaning:
    """A policy as plain values: its `window`, `class`, `component` and `args`, and the place of each in its file."""

    kind: str
    name: str
    values: dict[str, Any]
    paths: Mapping[str, KeyPath]
    text_only: frozenset[KeyPath]
    """The selections that are compared by their text."""

    @property
    def title(self) -> str:
        """Return how a message names it."""
        return self.kind if self.name == self.kind else f"{self.kind} {self.name}"

    @property
    def key(self) -> str:
        """Return a text that is the same for policies of the same meaning."""
        return json.dumps([self.kind, self.values], sort_keys=True, default=str)


def differences(
    a: Schedule,
    b: Schedule,
    bound: tuple[Sequence[BoundPolicy] | None, Sequence[BoundPolicy] | None] = (None, None),
) -> list[Difference]:
    """Return how the policies of two schedules differ, in the order of the first file.

    `bound`: the policies bound to a model: then selections are compared by the weights that they match, and an open end
    of a window is that of the run. Names of instances, what no policy uses, and the order of keys mean nothing. The
    order of policies does; those of learning rates run after all others.
    """
    ours, theirs = meanings(a, bound[0]), meanings(b, bound[1])
    pairs = _pairs(ours, theirs)
    found: list[Difference] = []
    for number, mine in enumerate(ours):
        if number in pairs:
            found += _between(mine, theirs[pairs[number]], a.document, b.document)
        else:
            found.append(_alone(mine, a.document, b.document, "a"))
    found += [_alone(one, b.document, a.document, "b") for n, one in enumerate(theirs) if n not in pairs.values()]
    return found + _of_order(ours, theirs, pairs, a.document, b.document)


def stated(document: Document, path: KeyPath, value: Any, *, given: bool | None = None) -> Stated:
    """Return a value with its place in a document: that of the nearest key around it where it is not written."""
    has = document.has(path)
    place: Place = document.place(path, key=has)
    return Stated(
        value=_as_json(value),
        file=place.file,
        line=place.line or None,
        column=place.column or None,
        given=has if given is None else given,
    )


def meanings(schedule: Schedule, bound: Sequence[BoundPolicy] | None = None) -> list[Meaning]:
    """Return the policies of a schedule in the order in which they act: those of learning rates last."""
    entries = schedule.entries
    users = [entry.component_path for entry in entries if entry.component_path[0] != "policies"]
    shared = {path: [users.index(path), users.count(path)] for path in users}
    found = []
    for number, entry in enumerate(entries):
        own = bound[number] if bound is not None else None
        found.append((entry.policy.runs_last, _meaning(entry, own, shared, schedule.removals)))
    return [one for last in (False, True) for runs_last, one in found if runs_last is last]


def _meaning(
    entry: Entry, bound: BoundPolicy | None, shared: Mapping[KeyPath, list[int]], removals: Sequence[Window]
) -> Meaning:
    own = entry.policy if bound is None else entry.policy.model_copy(update={"window": bound.policy.window})
    policy = own.normal(removals)
    kind, applied = policy.name, policy.applied
    targets = None if bound is None else bound.targets
    text_only: set[KeyPath] = set()
    values: dict[str, Any] = {"window": _window(policy.window)}
    paths: dict[str, KeyPath] = {"window": entry.path}
    if applied is policy:
        paths["args"] = (*entry.path, kind)
        values["args"] = _fields(policy, targets, text_only, "args", leave_out={"window"})
    else:
        paths |= {"args": (*entry.path, kind, "args"), "class": (*entry.component_path, "class")}
        paths["component"] = entry.component_path
        values["class"] = applied.name
        values["component"] = _fields(applied, targets, text_only, "component")
        values["args"] = _fields(policy, None, text_only, "args", leave_out={"window", kind})
        first, uses = shared.get(entry.component_path, [0, 1])
        if uses > 1:  # what a component takes once, such as a deviation, is the same in all of its policies
            values["shared"] = first
            paths["shared"] = (*entry.path, kind)
    name = entry.key.partition(".")[2]
    return Meaning(kind, name, values, paths, frozenset(text_only))


def _window(window: Window) -> dict[str, Any]:
    """Return the times at which a policy acts; a list without gaps is a range."""
    unit = window.unit
    if window.epochs is not None:
        times = sorted(set(window.epochs))
        if times != list(range(times[0], times[-1] + 1)):
            return {"epochs": times}
    end = RUNS_END if window.open else window.end
    return {f"starting_{unit}": window.first, f"ending_{unit}": end, "frequency": window.step}


def _fields(
    component: Component,
    targets: Mapping[str, Any] | None,
    text_only: set[KeyPath],
    group: str,
    leave_out: set[str] = frozenset(),  # type: ignore[assignment]
) -> dict[str, Any]:
    """Return the arguments of a component by their YAML keys, the defaults, too; selections as what they match."""
    found = {}
    for name, info in type(component).model_fields.items():
        if name in leave_out:
            continue
        key, value = info.alias or name, getattr(component, name)
        if any(isinstance(mark, Selects) for mark in info.metadata) and value is not None:
            if targets is not None and name in targets:
                value = targets[name]
            else:
                text_only.add((group, key))
            found[key] = _selection(value, ordered=component.reads_order)
        else:
            found[key] = _plain(value)
    return found


def _selection(value: Any, *, ordered: bool) -> Any:
    """Return a selection of weights or modules without what only its text has: `module.`, and the order of its items
    where that means nothing.
    """
    if isinstance(value, Mapping):
        return {_name(key): _plain(item) for key, item in value.items()}
    if not isinstance(value, str | list | tuple):
        return _plain(value)
    items = [_name(item) for item in ([value] if isinstance(value, str) else value)]
    if ordered or any(item.startswith("!") for item in items):
        return list(dict.fromkeys(items))
    return sorted(set(items))


def _name(item: str) -> str:
    return item if item.startswith(("re:", "type:")) else plain(item)


def _plain(value: Any) -> Any:
    """Return a value of a component as YAML has it, with all defaults."""
    if isinstance(value, Component):
        return Choice({value.name: _fields(value, None, set(), "")})
    if isinstance(value, BaseModel):
        return {info.alias or name: _plain(getattr(value, name)) for name, info in type(value).model_fields.items()}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value.value if isinstance(value, Enum) else value


def _pairs(ours: Sequence[Meaning], theirs: Sequence[Meaning]) -> dict[int, int]:
    """Return which policy of the second schedule stands for which of the first: one of the same meaning, else one of
    the same name, class or kind.
    """
    pairs: dict[int, int] = {}
    blocks = difflib.SequenceMatcher(
        None, [one.key for one in ours], [one.key for one in theirs], autojunk=False
    ).get_matching_blocks()
    for block in blocks:
        pairs |= {block.a + offset: block.b + offset for offset in range(block.size)}
    tests: list[Callable[[Meaning], Any]] = [
        lambda one: one.key,
        lambda one: (one.kind, one.name, one.values["window"]),
        lambda one: (one.kind, one.name, one.values.get("class")),
        lambda one: (one.kind, one.values.get("class")),
    ]
    for test in tests:
        for number, mine in enumerate(ours):
            free = [n for n in range(len(theirs)) if n not in pairs.values()]
            if number not in pairs:
                other = next((n for n in free if test(theirs[n]) == test(mine)), None)
                pairs |= {} if other is None else {number: other}
    return pairs


def _between(mine: Meaning, other: Meaning, a: Document, b: Document) -> Iterator[Difference]:
    """Yield the differences of two policies."""
    same_class = mine.values.get("class") == other.values.get("class")
    for group in ("window", "class", "component", "args", "shared"):
        ours, theirs = mine.values.get(group), other.values.get(group)
        if ours == theirs:
            continue
        if group == "component" and not same_class:  # of what both have
            assert ours is not None
            assert theirs is not None
            both = [key for key in ours if key in theirs]
            ours, theirs = ({key: one[key] for key in both} for one in (ours, theirs))
        found = [((), ours, theirs)] if group in ("window", "class", "shared") else differing(ours, theirs)
        for path, here, there in found:
            yield Difference(
                part="policies",
                what=f"{mine.title}: {_said(group, path)}",
                a=_stated(mine, group, path, here, a),
                b=_stated(other, group, path, there, b),
                names=(group, *path[:1]) in mine.text_only | other.text_only,
            )


def _said(group: str, path: KeyPath) -> str:
    """Return the name of what differs: its keys."""
    if group == "shared":
        return "the policy whose component it shares"
    return ".".join(map(str, path)) or ("when it acts" if group == "window" else group)


def _stated(one: Meaning, group: str, path: KeyPath, value: Any, document: Document) -> Stated:
    base = one.paths.get(group, one.paths["window"])
    if group == "window":
        keys = [key for key in Window.model_fields if document.has((*base, key))]
        return stated(document, (*base, *keys[:1]), value, given=True)
    if group == "shared":
        return stated(document, base, "none" if value is None else f"the first of its policies is {value}", given=True)
    return stated(document, (*base, *path), value)


def _alone(one: Meaning, own: Document, other: Document, side: Side) -> Difference:
    """Return the difference that only one file has a policy."""
    here = stated(own, one.paths["window"], {"class": one.values.get("class", one.kind), **one.values["window"]})
    there = stated(other, ("policies",), None, given=False)
    a, b = (here, there) if side == "a" else (there, here)
    return Difference(part="policies", what=one.title, a=a, b=b, only=side)


def _of_order(
    ours: Sequence[Meaning], theirs: Sequence[Meaning], pairs: Mapping[int, int], a: Document, b: Document
) -> list[Difference]:
    """Return the difference that the policies act in another order, if they do."""
    places = [pairs[number] for number in sorted(pairs)]
    if places == sorted(places):
        return []
    return [
        Difference(
            part="order",
            what="the order in which policies act",
            a=stated(a, ("policies",), [ours[number].title for number in sorted(pairs)], given=True),
            b=stated(b, ("policies",), [theirs[number].title for number in sorted(places)], given=True),
        )
    ]


def _as_json(value: Any) -> Any:
    """Return a value that JSON can have; a name without arguments is the name."""
    if isinstance(value, Choice) and not any(value.values()):
        return next(iter(value), None)
    if isinstance(value, Mapping):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
