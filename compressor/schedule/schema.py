"""The JSON Schema of the YAML files, made from the components, for editors that complete and check."""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from compressor.component import Component, of_version_2
from compressor.config import Config
from compressor.policies.policy import Policy
from compressor.schedule import claim, extending
from compressor.schedule.grammar import VERSION_2, VERSION_2_WINDOW
from compressor.schedule.registry import SECTIONS, components
from compressor.timing import Window

Schema = dict[str, Any]

_DRAFT = "http://json-schema.org/draft-07/schema#"
_EXTENDS: Schema = {"required": [extending.KEY], "properties": {extending.KEY: {"type": "string"}}}
"""A file that extends another one: its mappings are parts of what they are merged into."""
_PARTS: Schema = {"type": ["object", "null"], "additionalProperties": {"type": ["object", "null"]}}

_SECTIONS = {
    "pruners": "which weights are pruned",
    "regularizers": "penalties on weights",
    "quantizers": "number formats of weights and activations",
    "lr_schedulers": "learning-rate schedules",
    "extensions": "what removes channels",
    "gates": "weights that are random, shared or masked in training",
}
_NAMES = "by names of your own: {NAME: {class: CLASS, arguments}}; default: none"
_LEVELS = "sparsity of each weight, in place of the pruner's own levels; default: its own"
_PLUGINS = "modules with components of your own, imported where --allow-plugins permits it; default: none"


def config() -> Schema:
    """Return the schema of a configuration. One that extends another needs no key itself."""
    whole = Config.model_json_schema(by_alias=True)
    blocks: Schema = {}
    for key, one in whole["properties"].items():
        needed = [name for block in _blocks(one) for name in whole["$defs"][block].pop("required", [])]
        if needed:
            blocks[key] = {"required": needed}
    alone = {"required": whole.pop("required"), "properties": blocks}
    return {"$schema": _DRAFT, **whole, "if": _EXTENDS, "else": alone}


def _blocks(schema: Schema) -> list[str]:
    """Return the names of the definitions that a key's mapping may have."""
    options = [schema, *schema.get("anyOf", []), *schema.get("oneOf", [])]
    return [option["$ref"].rpartition("/")[2] for option in options if "$ref" in option]


def schedule() -> Schema:
    """Return the schema of a schedule: every registered component in its section, every policy with its arguments."""
    definitions: Schema = {}
    sections: Schema = {}
    for section in (*SECTIONS, "gates"):
        known = components(section)
        if not known:
            continue
        blocks = [_component(cls, name, definitions) for name, cls in sorted(known.items())]
        definitions[section] = {"anyOf": blocks}
        sections[section] = {"type": "object", "additionalProperties": {"$ref": f"#/$defs/{section}"}}
    policies = [
        _policy(cls, definitions) for _, cls in sorted(components("policies").items()) if issubclass(cls, Policy)
    ]
    return {
        "$schema": _DRAFT,
        "title": "Schedule",
        "type": "object",
        "properties": {
            "version": {
                "enum": [1, 2],
                "default": 1,
                "description": "grammar; 1: Distiller's; 2: also gates, windows in steps, exclusions, claims",
            },
            "config": {
                "type": ["string", "null"],
                "description": "configuration that the schedule was made for: a path or a bare name; default: none",
            },
            claim.KEY: _claim(definitions),
            extending.KEY: {
                "type": ["string", "null"],
                "description": "a schedule that this one is merged over: a path or a bare name; default: none",
            },
            "plugins": {"type": "array", "items": {"type": "string"}, "description": _PLUGINS},
            **{section: {**_PARTS, "description": f"{_SECTIONS[section]}, {_NAMES}"} for section in sections},
            "policies": {
                "type": "array",
                "minItems": 1,
                "items": {"anyOf": policies},
                "description": "what acts when: they act in this order, learning rates last",
            },
        },
        "additionalProperties": False,
        "allOf": [
            {"if": _EXTENDS, "else": {"properties": sections, "required": ["policies"]}},
            {
                "if": {"properties": {"version": {"const": 2}}, "required": ["version"]},
                "else": {
                    "properties": {
                        **dict.fromkeys(sorted(VERSION_2), False),
                        "policies": {"items": {**_without(sorted(VERSION_2_WINDOW)), "properties": _of_version_1()}},
                    }
                },
            },
        ],
        "$defs": definitions,
    }


def _of_version_1() -> Schema:
    """Return what version 1 forbids among the arguments of policies, by policy."""
    found = {}
    for name, cls in sorted(components("policies").items()):
        if issubclass(cls, Policy) and (keys := of_version_2(cls)):
            forbidden: Schema = {"properties": dict.fromkeys(keys, False)}
            found[name] = forbidden if cls.component is None else {"properties": {"args": forbidden}}
    return found


def _claim(definitions: Schema) -> Schema:
    whole = claim.Claim.model_json_schema(by_alias=True)
    definitions.update(whole.pop("$defs", {}))
    claims = [{"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in claim.FIGURES]
    return {**whole, "anyOf": claims}


def _without(keys: Iterable[str]) -> Schema:
    """Return what forbids keys."""
    return {"not": {"anyOf": [{"required": [key]} for key in keys]}}


def _of_windows() -> Schema:
    """Return the keys that a window's other keys need or exclude."""
    keys = list(Window.model_fields)
    steps = [key for key in keys if "step" in key]
    return {
        **{key: ["ending_step"] for key in steps if key != "ending_step"},
        "ending_step": _without(key for key in keys if key not in steps),
        "epochs": _without(key for key in keys if key != "epochs"),
    }


def _properties(cls: type[BaseModel], definitions: Schema, leave_out: set[str]) -> tuple[Schema, list[str]]:
    """Return the fields of `cls` as properties, and the required ones; what they refer to is added to `definitions`."""
    whole = cls.model_json_schema(by_alias=True)
    definitions.update({k: v for k, v in whole.pop("$defs", {}).items() if k not in ("Window", "PrunerBase")})
    properties = {name: value for name, value in whole["properties"].items() if name not in leave_out}
    return properties, [name for name in whole.get("required", []) if name in properties]


def _component(cls: type[Component], name: str, definitions: Schema) -> Schema:
    properties, required = _properties(cls, definitions, set())
    whole = cls.model_json_schema(by_alias=True)
    return {
        "type": "object",
        "description": cls.summary(),
        "properties": {"class": {"const": name, "description": cls.summary()}, **properties},
        "required": ["class", *required],
        **({"oneOf": whole["oneOf"]} if "oneOf" in whole else {}),  # one of two names of a key
        "additionalProperties": False,
    }


def _policy(cls: type[Policy], definitions: Schema) -> Schema:
    times, _ = _properties(Window, definitions, set())
    arguments, required = _properties(cls, definitions, {"window", cls.name})
    said = (
        f"the policy's own arguments: {', '.join(arguments)}" if arguments else "the policy has no arguments of its own"
    )
    block: Schema = {
        "type": "object",
        "properties": arguments,
        "required": [name for name in required if name in arguments],
        "additionalProperties": False,
    }
    if cls.component is not None:
        needed = ["args"] if block["required"] else []
        block["type"] = "object" if needed else ["object", "null"]
        if cls.component == "pruners":
            arguments["levels"] = {
                "type": "object",
                "description": "sparsity of each weight, in place of the pruner's own levels",
            }
        block["description"] = said
        reference: Schema = {
            "type": "object",
            "properties": {
                "instance_name": {"type": "string", "description": f"name of a component under `{cls.component}`"},
                "args": block,
            },
            "required": ["instance_name", *needed],
            "additionalProperties": False,
        }
        inline = [
            {**each, "properties": {**each["properties"], "args": block}, "required": [*each["required"], *needed]}
            for each in definitions.get(cls.component, {"anyOf": []})["anyOf"]
        ]
        block = {"anyOf": [reference, *inline]}
    block["description"] = cls.summary()
    return {
        "type": "object",
        "description": cls.summary(),
        "properties": {cls.name: block, **times},
        "required": [cls.name],
        "dependencies": _of_windows(),
        "additionalProperties": False,
    }
