"""Every key of a schedule and a configuration is described: in both JSON Schemas, and in the classes behind them."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from compressor.component import REGISTRY, Settings
from compressor.schedule import AXES, SECTIONS, components, schema

COMBINED = ("anyOf", "allOf", "oneOf", "if", "then", "else", "not")
"""The keys under which a schema says more of the same value: a property that is described there is described."""
EMPTY = re.compile(r"(the |a )?(value|number|list|name|flag|option|argument|setting|parameter)s?( of \w+)?\.?")


def properties(node: Any, place: str = "", described: frozenset[str] = frozenset()) -> Iterator[tuple[str, Any]]:
    """Yield the place and the schema of each property; one that is forbidden or described further up is left out."""
    if not isinstance(node, dict):
        return
    own = node.get("properties", {})
    for name, one in own.items():
        if one is not False and name not in described:
            yield f"{place}/{name}", one
            yield from properties(one, f"{place}/{name}")
    for key in COMBINED:
        for one in node[key] if isinstance(node.get(key), list) else [node.get(key)]:
            yield from properties(one, place, described | frozenset(own))
    for key in ("items", "additionalProperties", "contains"):
        yield from properties(node.get(key), f"{place}[]")
    for name, one in node.get("$defs", {}).items():
        yield from properties(one, f"#{name}")


def poor(name: str, text: str) -> bool:
    """Return whether a description has fewer than three words, or only words of its key."""
    words = re.findall(r"\w+", text.lower())
    return len(words) < 3 or EMPTY.fullmatch(text.lower()) is not None or set(words) <= set(name.lower().split("_"))


def without(made: dict[str, Any]) -> list[str]:
    """Return the places of a schema's properties that are not described."""
    found = [(place, one.get("description", "")) for place, one in properties(made)]
    return [place for place, text in found if poor(place.rpartition("/")[2], text)]


@pytest.mark.parametrize("made", [schema.schedule(), schema.config()], ids=["schedule", "configuration"])
def test_every_key_has_a_description_in_the_schema(made: dict[str, Any]) -> None:
    assert len(list(properties(made))) > 40
    assert without(made) == []


def test_a_missing_and_an_empty_description_are_found() -> None:
    made = schema.config()
    del made["$defs"]["DataConfig"]["properties"]["batch"]["description"]
    made["properties"]["seed"]["description"] = "The value"
    made["properties"]["epochs"]["description"] = "Number of epochs"
    assert without(made) == ["/epochs", "/seed", "#DataConfig/batch"]


def settings(cls: type[Settings] = Settings) -> Iterator[type[Settings]]:
    """Yield all classes of the package whose fields are keys of a file; those of a network's arguments have no text."""
    for each in cls.__subclasses__():
        if each.__module__.startswith("compressor.") and each.__name__ != "Arguments":
            yield each
        yield from settings(each)


def test_the_fields_of_every_class_say_what_absence_and_truth_mean() -> None:
    for section in (*SECTIONS, "gates", "policies", *AXES):
        components(section)
    silent = []
    for cls in set(settings()):
        for name, field in cls.model_fields.items():
            text = field.description or ""
            open_ended = field.default is None and field.annotation is not type(None)
            if poor(name, text) or (open_ended and "default" not in text):
                silent.append(f"{cls.__module__}.{cls.__qualname__}.{name}: {text!r}")
            elif isinstance(field.default, bool) and not re.search(r"\b(true|false):", text):
                silent.append(f"{cls.__module__}.{cls.__qualname__}.{name} does not say what true is: {text!r}")
    assert sorted(silent) == []


def test_every_component_is_described_in_one_sentence() -> None:
    for section in (*SECTIONS, "gates", "policies", *AXES):
        components(section)
    for known in REGISTRY.values():
        for name, cls in known.items():
            if cls.__module__.startswith("compressor."):
                assert re.match(r"[A-Z].*[.)]$", cls.summary()), name
                assert not poor(name, cls.summary()), name
