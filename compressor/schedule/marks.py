"""Edits of a YAML text at the marks of its nodes: all that is not edited stays as it is, with its comments."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from compressor.schedule.document import Document, KeyPath, node_of

_MERGE = "tag:yaml.org,2002:merge"


class CannotEdit(ValueError):
    """Raised where a text is written in a way that an edit would not keep."""


Pair = tuple[yaml.Node, yaml.Node]


@dataclass
class _Braces:
    """A mapping in braces, the numbers of the pairs that are removed, and the pairs that are added."""

    node: yaml.MappingNode
    removed: set[int] = field(default_factory=set)
    added: dict[str, None] = field(default_factory=dict)


class Marks:
    """The text of a document, and changes of it that are made together by `text`."""

    def __init__(self, document: Document) -> None:
        self._text = document.text
        self._newline = "\r\n" if "\r\n" in document.text else "\n"
        self._root = node_of(document.text)
        self._edits: dict[tuple[int, int], str] = {}
        self._comments: dict[int, dict[str, None]] = {}
        self._braces: dict[int, _Braces] = {}

    @property
    def in_braces(self) -> bool:
        """Return whether the whole file is one mapping in braces."""
        return bool(self._root.flow_style)

    def text(self) -> str:
        """Return the text with all changes, and with the end of its last line. Raises `CannotEdit` where two of them
        touch each other.
        """
        edits = [(begin, end, new) for (begin, end), new in self._edits.items()]
        for braces in self._braces.values():
            edits += self._of_braces(braces)
        for start, lines in self._comments.items():
            indent = _indent(self._text[start:])
            edits.append((start, start, "".join(f"{indent}# {line}{self._newline}" for line in lines)))
        found, place = [], 0
        for begin, end, new in sorted(edits, key=lambda edit: edit[:2]):
            if begin < place:
                raise CannotEdit("two changes are in one place")
            found += [self._text[place:begin], new]
            place = end
        text = "".join([*found, self._text[place:]])
        return text if text.endswith("\n") else text + self._newline

    def replace(self, path: KeyPath, value: Any, comment: str) -> None:
        """Write another value at `path`, in one line; its anchor stays."""
        node = self._at(path)[1][1]
        begin = node.start_mark.index
        anchor = re.match(r"&\S+\s+", self._text[begin:])
        self._edit(begin + (anchor.end() if anchor else 0), node.end_mark.index, flow(value), comment)

    def rename(self, path: KeyPath, name: str, comment: str) -> None:
        """Write another key."""
        key = self._at(path)[1][0]
        self._edit(key.start_mark.index, key.end_mark.index, flow(name), comment)

    def remove(self, path: KeyPath, why: str) -> None:
        """Remove a key and its value; a line of its own becomes a comment."""
        self._remove(*self._at(path), why)

    def remove_repeats(self, why: str) -> None:
        """Remove every key that is given twice in its mapping, where it stands again."""
        for node in _mappings(self._root, set()):
            seen: set[str] = set()
            for pair in node.value:
                if pair[0].tag != _MERGE and pair[0].value in seen:
                    self._remove(node, pair, why)
                seen.add(pair[0].value)

    def add(self, path: KeyPath, values: Mapping[str, Any], comment: str) -> None:
        """Add keys to the mapping at `path`, which is made where it is missing or empty."""
        if not path:
            self._insert(self._root, [f"{name}: {flow(value)}" for name, value in values.items()], comment)
            return
        try:
            key, node = self._at(path)[1]
        except KeyError:
            self.add(path[:-1], {str(path[-1]): dict(values)}, comment)
            return
        if isinstance(node, yaml.MappingNode) and node.value:
            self._insert(node, [f"{name}: {flow(value)}" for name, value in values.items()], comment)
        elif node.start_mark.index == node.end_mark.index:  # nothing behind the colon
            after = self._text.index(":", key.end_mark.index) + 1
            self._edit(after, after, f" {flow(dict(values))}", comment)
        else:
            self._edit(node.start_mark.index, node.end_mark.index, flow(dict(values)), comment)

    def begin(self, text: str) -> None:
        """Write lines before the first key."""
        self._lines(self._root.value[0][0].start_mark.index, text)

    def after(self, key: str, text: str) -> None:
        """Write lines after the line of a key of the whole file, whose value is a scalar."""
        end = self._line_end(self._end(self._at((key,))[1]))
        self._lines(min(end + len(self._newline), len(self._text)), text)

    def _lines(self, at: int, text: str) -> None:
        self._edits[at, at] = self._edits.get((at, at), "") + text.replace("\n", self._newline)

    def _edit(self, begin: int, end: int, new: str, comment: str) -> None:
        """Note an edit; the same one again, at an anchor that several places use, is one."""
        if self._edits.get((begin, end), new) != new:
            raise CannotEdit("an anchor is used where it means two things")
        self._edits[begin, end] = new
        self._comment(begin, comment)

    def _comment(self, at: int, text: str) -> None:
        """Write a comment above the line of a place; the same one is written once."""
        self._comments.setdefault(self._line_start(at), {}).update(dict.fromkeys(text.splitlines()))

    def _insert(self, node: yaml.MappingNode, pairs: Sequence[str], comment: str) -> None:
        """Write pairs into a mapping that has some, behind the last one."""
        if node.flow_style:
            braces = self._braces.setdefault(id(node), _Braces(node))
            braces.added.update(dict.fromkeys(pairs))
            self._comment(self._end(node.value[-1]), comment)
            return
        at, line = self._line_end(self._end(node.value[-1])), self._newline + " " * node.value[0][0].start_mark.column
        self._edits[at, at] = "".join(f"{line}{text}" for text in (f"# {comment}", *pairs))

    def _remove(self, node: yaml.MappingNode, pair: Pair, why: str) -> None:
        begin, end = pair[0].start_mark.index, self._end(pair)
        start = self._line_start(begin)
        if node.flow_style:
            self._braces.setdefault(id(node), _Braces(node)).removed.add(node.value.index(pair))
            self._comment(begin, f"{why}: {' '.join(self._text[begin:end].split())}")
            return
        if self._text[start:begin].strip():
            raise CannotEdit("a key that is removed is not the first of its line")
        end = self._line_end(end)
        indent = self._text[start:begin]
        first, *more = self._text[begin:end].splitlines()
        commented = [f"{indent}# {why}: {first}", *(f"{indent}# {line[len(indent) :]}" for line in more)]
        self._edits[start, end] = self._newline.join(commented)

    def _of_braces(self, braces: "_Braces") -> Iterator[tuple[int, int, str]]:
        """Yield the edits of a mapping in braces: neighbours are removed with a comma, what is added stands last."""
        pairs, number = braces.node.value, 0
        kept = [place for place in range(len(pairs)) if place not in braces.removed]
        if not kept:
            yield pairs[0][0].start_mark.index, self._end(pairs[-1]), ", ".join(braces.added)
            return
        last = self._end(pairs[kept[-1]])
        yield last, last, "".join(f", {pair}" for pair in braces.added)
        while number < kept[-1]:
            end = next(place for place in kept if place >= number)
            if end > number:
                yield pairs[number][0].start_mark.index, pairs[end][0].start_mark.index, ""
            number = end + 1
        if kept[-1] < len(pairs) - 1:
            yield last, self._end(pairs[-1]), ""

    def _at(self, path: KeyPath) -> tuple[yaml.MappingNode, Pair]:
        """Return the mapping, and the key with its value, at `path`, also where `<<` merges it. Raises `KeyError`."""
        node, found = self._root, None
        for part in path:
            if isinstance(part, int) and isinstance(node, yaml.SequenceNode):
                node = node.value[part]
                continue
            found = _of_key(node, str(part))
            if found is None:
                raise KeyError(path)
            node = found[1][1]
        if found is None:
            raise KeyError(path)
        return found

    def _end(self, pair: Pair) -> int:
        """Return where the text of a pair ends: with its last value, not before the next key; of an alias with it."""
        key, value = pair
        if value.start_mark.index < key.end_mark.index:
            alias = re.match(r"\s*:\s*\*[^\s,}\]]+", self._text[key.end_mark.index :])
            return key.end_mark.index + (alias.end() if alias else 0)
        if isinstance(value, yaml.MappingNode) and not value.flow_style and value.value:
            return self._end(value.value[-1])
        if isinstance(value, yaml.SequenceNode) and not value.flow_style and value.value:
            return max(self._end((key, value.value[-1])), value.start_mark.index)
        return max(value.end_mark.index, key.end_mark.index)

    def _line_start(self, at: int) -> int:
        return self._text.rfind("\n", 0, at) + 1

    def _line_end(self, at: int) -> int:
        end = self._text.find(self._newline, at)
        return len(self._text) if end < 0 else end


def flow(value: Any) -> str:
    """Return a value as YAML in one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _of_key(node: yaml.Node, key: str) -> tuple[yaml.MappingNode, Pair] | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    for pair in node.value:
        if pair[0].tag != _MERGE and pair[0].value == key:
            return node, pair
    for name, value in node.value:
        if name.tag == _MERGE:
            for part in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if found := _of_key(part, key):
                    return found
    return None


def _mappings(node: yaml.Node, seen: set[int]) -> Iterator[yaml.MappingNode]:
    """Yield every mapping once, wherever anchors repeat it."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        yield node
        for pair in node.value:
            for each in pair:
                yield from _mappings(each, seen)
    elif isinstance(node, yaml.SequenceNode):
        for each in node.value:
            yield from _mappings(each, seen)


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip(" "))]
