"""Safe YAML that stores the place of every key and value."""

import math
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from compressor.errors import UserError, did_you_mean
from compressor.schedule.faults import Faults, Message, Place

MAX_BYTES = 256 * 1024
MAX_NODES = 50_000
MAX_DEPTH = 40

KeyPath = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """Load YAML safely, and also read 1e-4 as a number, which is text in YAML 1.1."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9_]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)

_PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "timestamp")}
_MERGE = "tag:yaml.org,2002:merge"


class Document:
    """A parsed file: `data` (plain Python), and the place of every key and value by path."""

    def __init__(self, source: str, text: str) -> None:
        self.source = source
        self.text = text
        self.data: Any = None
        self.overridden = False
        self.repeats: list[tuple[Place, str]] = []
        """The keys that are given twice with the same value: what a version 1 schedule may have."""
        self.broken: set[KeyPath] = set()
        """The places of scalars that could not be read: each is a fault already."""
        self._keys: dict[KeyPath, Place] = {}
        self._values: dict[KeyPath, Place] = {}

    def place(self, path: KeyPath, *, key: bool = False) -> Place:
        """Return the place of the value (or the key) at `path`; the nearest enclosing one where the path does not
        exist.
        """
        if key and path in self._keys:
            return self._keys[path]
        while path not in self._values and path:
            path = path[:-1]
        return self._values.get(path, Place(self.source, 1, 1))

    def has(self, path: KeyPath) -> bool:
        """Return whether there is something at `path`."""
        return path in self._values

    def set(self, dotted: str, value: Any, source: str) -> None:
        """Override one value, as `--set` does; missing blocks are added. Raises `UserError` for an impossible path."""
        here: Any = self.data
        path: KeyPath = ()
        rest = dotted
        while True:
            if isinstance(here, dict):
                key: str | int = _longest_key(here, rest)
            elif isinstance(here, list):
                key = _index(rest.partition(".")[0], here, source)
            else:
                raise UserError(
                    f"{source}: {'.'.join(map(str, path))!r} is {here!r}: a value inside of it cannot be set"
                )
            path = (*path, key)
            rest = rest[len(str(key)) + 1 :]
            if not rest:
                break
            if isinstance(here, dict) and not isinstance(here.get(str(key)), (dict, list)):
                here[str(key)] = {}
                self._keys[path] = self._values[path] = Place(source)
            here = here[key]
        here[key] = value
        self.overridden = True
        self._forget_below(path)
        self._note(path, value, Place(source))

    def over(self, base: "Document") -> "Document":
        """Return this document merged over `base`, as JSON Merge Patch (RFC 7396) does; its text is YAML of the result.

        Mappings are merged at every depth; a list or a value replaces what stands in `base`; null removes a key of
        `base`. Every key and value keeps the place in the file that it comes from.
        """
        merged = Document(self.source, "")
        merged.repeats = [*base.repeats, *self.repeats]
        merged.data = merged._merge(self, self.data, base, base.data, ())
        merged.text = yaml.safe_dump(merged.data, sort_keys=False, allow_unicode=True)
        return merged

    def _merge(self, own: "Document", ours: Any, base: "Document", theirs: Any, path: KeyPath) -> Any:
        """Return `ours` merged over `theirs`; the places of what is taken are noted here."""
        if not (isinstance(ours, dict) and isinstance(theirs, dict)):
            return self._take(own, ours, path)
        self._values[path] = own.place(path)
        data: dict[str, Any] = {}
        for key in [*theirs, *(key for key in ours if key not in theirs)]:
            here = (*path, key)
            if key not in ours:
                data[key] = self._take(base, theirs[key], here)
            elif key not in theirs:
                data[key] = self._take(own, ours[key], here)
            elif ours[key] is not None or here in own.broken:
                self._keys[here] = own.place(here, key=True)
                data[key] = self._merge(own, ours[key], base, theirs[key], here)
        return data

    def _take(self, source: "Document", value: Any, path: KeyPath) -> Any:
        """Return a value of another document, and note its places and those of all inside."""
        self._keys[path], self._values[path] = source.place(path, key=True), source.place(path)
        if path in source.broken:
            self.broken.add(path)
        for key, item in _inside(value):
            self._take(source, item, (*path, key))
        return value

    def _forget_below(self, path: KeyPath) -> None:
        for known in [p for p in self._values if p[: len(path)] == path]:
            del self._values[known]
            self._keys.pop(known, None)

    def _note(self, path: KeyPath, value: Any, place: Place) -> None:
        self._keys[path] = self._values[path] = place
        for key, item in _inside(value):
            self._note((*path, key), item, place)


def _inside(value: Any) -> Iterable[tuple[str | int, Any]]:
    """Return the keys and values of a mapping, or the places and values of a list; nothing of a scalar."""
    return value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()


def _longest_key(mapping: dict[str, Any], rest: str) -> str:
    """Return the key with which `rest` begins; weight names contain dots, so the longest existing one is taken."""
    known = [key for key in mapping if rest == key or rest.startswith(f"{key}.")]
    return max(known, key=len) if known else rest.partition(".")[0]


def _index(text: str, items: list[Any], source: str) -> int:
    if not text.isdecimal() or int(text) >= len(items):
        raise UserError(f"{source}: should be a number from 0 to {len(items) - 1} here, got {text!r}")
    return int(text)


def read(path: Path) -> str:
    """Return the text of a YAML file. Raises `UserError` where it cannot be read or is not text."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(Message(Place(str(path)), f"cannot be read: {error.strerror}")) from None
    if len(raw) > MAX_BYTES:
        said = f"the file has {len(raw)} bytes, at most {MAX_BYTES} are allowed"
        raise UserError(Message(Place(str(path)), said))
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        column = len(raw[raw.rfind(b"\n", 0, error.start) + 1 : error.start].decode("utf-8")) + 1
        raise UserError(Message(Place(str(path), line, column), "this byte is not UTF-8 text")) from None


def parse(source: str, text: str, faults: Faults, *, repeats: bool = False) -> Document:
    """Parse `text`; syntax errors, tags, duplicate keys and documents that grow without limit become faults.

    With `repeats` keys that are given twice with the same value are no faults: the document lists them.
    """
    document = Document(source, text)
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(source, mark.line + 1, mark.column + 1) if mark else Place(source, 1, 1)
        faults.add(place, f"not YAML: {error.problem or error.context}")
        return document
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = Place(source, before.count("\n") + 1, len(before) - before.rfind("\n"))
        faults.add(place, f"not YAML: {str(error).splitlines()[0]}")
        return document
    except RecursionError:
        faults.add(Place(source, 1, 1), f"nested deeper than {MAX_DEPTH} levels")
        return document
    if node is None:
        faults.add(Place(source, 1, 1), "the file is empty")
        return document
    document.data = _Builder(document, faults).build(node, ())
    for place, said in document.repeats if not repeats else ():
        faults.add(place, said)
    return document


def of_data(data: Mapping[str, Any], source: str, faults: Faults) -> Document:
    """Return plain data as a document; the place of a value is its path, as `the schedule: policies.0.pruner`.

    Raises `UserError` where there are other values than mappings, lists, text, numbers, booleans and None.
    """
    try:
        text = yaml.safe_dump(_plain(data), sort_keys=False, allow_unicode=True)
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{source}: should have plain values only: {str(error).splitlines()[0]}") from None
    document = parse(source, text, faults)
    for path in [*document._values]:
        place = Place(f"{source}: {'.'.join(map(str, path))}" if path else source)
        document._values[path] = document._keys[path] = place
    return document


def _plain(value: Any) -> Any:
    """Return nested mappings and sequences as dicts and lists, which YAML knows."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def node_of(text: str) -> Any:
    """Return the root of the nodes, with their marks, of a text that `parse` takes without a fault."""
    return yaml.compose(text, Loader=_Loader)


def parse_value(text: str, source: str) -> Any:
    """Return the value of a `--set key=value` flag, read as YAML."""
    faults = Faults()
    if not text.strip():
        return None
    document = parse(source, text, faults)
    if document.broken:
        raise UserError("\n".join(line.replace(f"{source}:1:1: ", f"{source}: ") for line in faults.lines))
    if faults or document.repeats:
        raise UserError(f"{source}: the value is not YAML: put it in quotes if it is text")
    return document.data


class _Builder:
    """Convert the node graph to plain data, and count the values, so that aliases cannot multiply without limit."""

    def __init__(self, document: Document, faults: Faults) -> None:
        self._document = document
        self._faults = faults
        self._nodes = 0
        self._depth = 0
        self._scalars = yaml.constructor.SafeConstructor()

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        """Return the plain value of the node at `path`; faults become None."""
        self._depth += 1
        try:
            return self._build(node, path)
        finally:
            self._depth -= 1

    def _build(self, node: yaml.Node, path: KeyPath) -> Any:
        place = self._place(node)
        self._document._values[path] = place
        self._nodes += 1
        if self._nodes > MAX_NODES:
            if self._nodes == MAX_NODES + 1:
                self._faults.add(place, f"more than {MAX_NODES} values: do aliases repeat each other?")
            return None
        if self._depth > MAX_DEPTH:
            self._faults.add(place, f"nested deeper than {MAX_DEPTH} levels, or an alias that contains itself")
            return None
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and node.tag in _PLAIN:
            return self._scalar(node, place, path)
        said = f"the tag {_short(node.tag)} is not allowed here: plain values, lists and mappings only"
        if node.tag.startswith("!") and node.value == "":
            said += f"; a name that excludes weights needs quotes: '{node.tag}'"
        self._faults.add(place, said)
        return None

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        data: dict[str, Any] = {}
        own: dict[str, Place] = {}
        merged = self._merged([pair for pair in node.value if pair[0].tag == _MERGE], path)
        for key_node, value_node in node.value:
            place = self._place(key_node)
            if key_node.tag == _MERGE:
                continue
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != "tag:yaml.org,2002:str":
                self._faults.add(place, f"a key should be text, got {_text(key_node)}: put it in quotes")
                continue
            key = str(key_node.value)
            if key in own:
                said = f"the key {key!r} is given twice: remove one; the first is at line {own[key].line}"
                again = self.build(value_node, (*path, key))
                if type(again) is type(data[key]) and again == data[key]:
                    self._document.repeats.append((place, said))
                else:
                    self._faults.add(place, said)
                continue
            own[key] = place
            data[key] = self.build(value_node, (*path, key))
            self._document._keys[(*path, key)] = place
        self._document._values[path] = self._place(node)
        return {**merged, **data}

    def _merged(self, pairs: list[tuple[yaml.Node, yaml.Node]], path: KeyPath) -> dict[str, Any]:
        """Return what `<<` adds.

        Of several mappings the earlier ones win, and a mapping's own keys win over all of them.
        """
        merged: dict[str, Any] = {}
        for key_node, value_node in pairs:
            parts = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
            for part in reversed(parts):
                if self._nodes > MAX_NODES:
                    break
                value = self.build(part, path)
                if isinstance(value, dict):
                    merged = {**merged, **value}
                else:
                    self._faults.add(self._place(key_node), "'<<' should merge a mapping")
        return merged

    def _scalar(self, node: yaml.ScalarNode, place: Place, path: KeyPath) -> Any:
        kind = node.tag.rpartition(":")[2]
        text = str(node.value)
        if kind in ("str", "timestamp") or (kind in ("int", "float") and ":" in text):
            return text  # 1:30 is no number to a person
        try:
            value = getattr(self._scalars, f"construct_yaml_{kind}")(node)
        except (ValueError, KeyError, IndexError, OverflowError):
            self._faults.add(place, f"{text[:40]!r} is not a {kind}")
            self._document.broken.add(path)
            return None
        if unfit := _unfit(value):
            key = next((f"{part!r}: " for part in reversed(path) if isinstance(part, str)), "")
            self._faults.add(place, f"{key}{text[:40]!r} {unfit}")
            self._document.broken.add(path)
            return None
        return value

    def _place(self, node: yaml.Node) -> Place:
        return Place(self._document.source, node.start_mark.line + 1, node.start_mark.column + 1)


def _unfit(value: Any) -> str | None:
    """Return why a number is none that a run can use: weights, rates and factors are 32-bit floating-point numbers."""
    if isinstance(value, int):
        return "does not fit into 64 bits" if abs(value) >= 2**63 else None
    if not isinstance(value, float):
        return None
    if not math.isfinite(value):
        return "is not a finite number"
    try:
        single = struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return "does not fit into a 32-bit floating-point number: at most 3.4e38 is allowed"
    return "is 0 as a 32-bit floating-point number: at least 1.4e-45 is allowed" if value and not single else None


def _short(tag: str) -> str:
    return "!!" + tag.removeprefix("tag:yaml.org,2002:") if tag.startswith("tag:yaml.org,2002:") else tag


def _text(node: yaml.Node) -> str:
    return repr(node.value) if isinstance(node, yaml.ScalarNode) else "a list or mapping"


def check_keys(document: Document, path: KeyPath, data: Any, known: set[str], faults: Faults, what: str) -> bool:
    """Return whether `data` is a mapping; every key outside `known` becomes a fault with the nearest known one."""
    if not isinstance(data, dict):
        faults.add(document.place(path), f"{what} should be a mapping, got {describe(data)}")
        return False
    for key in data:
        if key not in known:
            faults.add(
                document.place((*path, key), key=True),
                f"unknown key {key!r} in {what}: {did_you_mean(key, known)}",
            )
    return True


def describe(value: Any) -> str:
    """Return a value in the form for an error message."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    try:
        text = repr(value)
    except ValueError:  # Python does not print whole numbers of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."


def difference(ours: Any, theirs: Any, path: str = "") -> str | None:
    """Return the first place where two plain values differ, in words; None where they are equal."""
    return next(other_values(ours, theirs, path), None)


def other_values(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """Yield, in words, every place where two plain values differ."""
    for keys, here, there in differing(ours, theirs):
        yield f"{'.'.join([*([path] if path else []), *map(str, keys)])} is {_shown(here)} now, {_shown(there)} there"


class Choice(dict[str, Any]):
    """A mapping of one name to its arguments: with another name it differs as a whole."""


def differing(ours: Any, theirs: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any, Any]]:
    """Yield every place where two plain values differ, with both values; a key that is missing is None."""
    mappings = isinstance(ours, dict) and isinstance(theirs, dict)
    if mappings and (isinstance(ours, Choice) or isinstance(theirs, Choice)) and ours.keys() != theirs.keys():
        yield path, ours, theirs
    elif mappings:
        for key in [*ours, *(key for key in theirs if key not in ours)]:
            yield from differing(ours.get(key), theirs.get(key), (*path, key))
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (here, there) in enumerate(zip(ours, theirs, strict=True)):
            yield from differing(here, there, (*path, index))
    elif ours != theirs:
        yield path, ours, theirs


def _shown(value: Any, most: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."
