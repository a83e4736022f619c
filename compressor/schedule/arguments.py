"""The arguments of a component in words, for people and for the reference: name, type, default, description."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from compressor.component import Component, Named, Selects, Version2
from compressor.schedule import parsing
from compressor.schedule.registry import SECTIONS, components

_KEYS = {"criteria": "criterion", "structures": "structure", "allocations": "allocation", "rates": "rate"}
"""The keys that name a component of an axis."""
_LIMITS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}


@dataclass(frozen=True)
class Argument:
    """One argument: its key in YAML, the values that it takes, its default as YAML has it, and what it means."""

    name: str
    type: str
    default: str | None
    """None: it must be given."""
    description: str
    version_2: bool = False
    """Whether it needs `version: 2`."""


def arguments(cls: type[BaseModel]) -> list[Argument]:
    """Return the arguments of a component, or the keys of a block, in the order of its class; of a policy without its
    window and component.
    """
    schema = cls.model_json_schema(by_alias=True)
    properties, definitions = schema.get("properties", {}), schema.get("$defs", {})
    left_out = {"window", cls.name} if issubclass(cls, Component) and cls.section == "policies" else set()
    found = []
    for name, field in cls.model_fields.items():
        if name in left_out:
            continue
        key = field.alias or name
        marks = field.metadata
        found.append(
            Argument(
                key,
                _of_field(field, properties[key], definitions),
                None if field.is_required() else _default(field),
                " ".join((field.description or "").split()),
                version_2=any(isinstance(mark, Version2) for mark in marks),
            )
        )
    return found


def example(cls: type[Component]) -> str:
    """Return YAML with the component: its own example; else one of a component that it applies or that names it; else
    the key that names it.
    """
    key = _KEYS.get(cls.section)
    if cls.example:
        return f"{key}: {cls.example}" if key and cls.example.startswith("{") else cls.example
    applied = getattr(cls, "component", None)
    if applied:
        return next((each.example for _, each in sorted(components(applied).items()) if each.example), "")
    for section in SECTIONS:
        for each in components(section).values():
            if any(_gives(line, cls.name) for line in each.example.splitlines()):
                return each.example
    return f"{key}: {cls.name}" if key else ""


def _gives(line: str, name: str) -> bool:
    """Return whether a line of YAML gives a component to a key: `criterion: l1`, `rate: {agp: ...}`."""
    value = line.partition(": ")[2].strip()
    return value == name or value.startswith(f"{{{name}:")


def _of_field(field: FieldInfo, schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    named = parsing.inside(field)
    if isinstance(named, Named):
        return f"{named.kind}: NAME or {{NAME: arguments}} (`compress list {named.section}`)"
    selects = next((mark for mark in field.metadata if isinstance(mark, Selects)), None)
    said = _type(schema, definitions)
    if selects is None:
        return said
    what = "modules" if selects.modules else "weights"
    return f"selector of {what}: {said.replace('a text', 'a name or pattern').replace('texts', 'them')}"


def _type(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Return the type of a JSON schema in words."""
    if "$ref" in schema:
        return _type(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    options = schema.get("anyOf", schema.get("oneOf"))
    if options and "properties" not in schema:
        said = [_type(option, definitions) for option in options if option.get("type") != "null"]
        return " or ".join(dict.fromkeys(said))
    if "const" in schema:
        return _shown(schema["const"])
    if "enum" in schema:
        shown = [_shown(value) for value in schema["enum"]]
        return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}"
    kind = schema.get("type")
    if kind in ("integer", "number"):
        return _number("whole number" if kind == "integer" else "number", schema)
    if kind == "boolean":
        return "true or false"
    if kind == "array":
        return _list(schema, definitions)
    if kind == "object" or "properties" in schema:
        return _mapping(schema, definitions)
    return {"string": "a text", "null": "null"}.get(str(kind), "any value")


def _number(kind: str, schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"a {kind} from {low:g} to {high:g}"
    limits = [f"{said} {schema[key]:g}" for key, said in _LIMITS.items() if key in schema]
    return f"a {kind} {' and '.join(limits)}".rstrip()


def _list(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    each = schema.get("prefixItems", schema.get("items", {}))
    if isinstance(each, list):
        return f"a list [{', '.join(_type(item, definitions) for item in each)}]"
    low, high = schema.get("minItems"), schema.get("maxItems")
    count = f" of {low}" if low is not None and low == high else ""
    inner = _type(each, definitions)
    item = {"a text": "texts", "any value": "values"}.get(inner, f"[{inner}]")
    return f"a list{count} of {item}" if not count else f"a list{count}: each {inner}"


def _mapping(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    if schema.get("properties"):
        needed = schema.get("required", ())
        parts = [
            f"{key}{'' if key in needed else '?'}: {_type(value, definitions)}"
            for key, value in schema["properties"].items()
        ]
        return f"a mapping {{{'; '.join(parts)}}}"
    inner = schema.get("additionalProperties")
    return f"a mapping of names to {_type(inner, definitions)}" if isinstance(inner, Mapping) else "a mapping"


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Component):
        given = value.model_dump(by_alias=True, exclude_unset=True)
        return _shown({value.name: given}) if given else value.name
    if hasattr(value, "model_dump"):
        value = value.model_dump(by_alias=True, exclude_unset=True) or value.model_dump(by_alias=True)
    return _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) and value else json.dumps(value)
