"""The base class of all named parts of a YAML file: a frozen, strict pydantic class whose fields are its arguments."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, SerializationInfo, TypeAdapter
from pydantic_core import CoreSchema, core_schema

from compressor.errors import did_you_mean

Model = TypeVar("Model", bound=BaseModel)


class Settings(BaseModel):
    """A block of YAML. Unknown keys, wrong types, NaN and infinity are refused; nothing changes after parsing."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, populate_by_name=True)


REGISTRY: dict[str, dict[str, type["Component"]]] = {}


class Component(Settings):
    """A `Settings` that a schedule names: `class Foo(Base, name="Foo")` adds it to the registry of its section.

    `section` is the YAML section that it belongs to. `example` is a complete YAML text with it, which the documentation
    shows and the contract tests run. `also` are other names for it. `main` is the argument that `{name: value}` sets
    where a field names the component (see `Named`).
    """

    section: ClassVar[str] = ""
    name: ClassVar[str] = ""
    main: ClassVar[str] = ""
    example: ClassVar[str] = ""
    meant: ClassVar[Sequence[str]] = ()
    """What others call it: no names of it, but hints where one is given."""

    def __init_subclass__(cls, name: str | None = None, also: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)

    @classmethod
    def __pydantic_init_subclass__(cls, name: str | None = None, also: Sequence[str] = (), **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if name is None:
            return
        cls.name = name
        known = REGISTRY.setdefault(cls.section, {})
        for each in (name, *also):
            before = known.get(each, cls)
            if (before.__module__, before.__qualname__) != (cls.__module__, cls.__qualname__):
                raise TypeError(f"two components of section {cls.section!r} are called {each!r}: {before} and {cls}")
            known[each] = cls

    @classmethod
    def of_version_1(cls, arguments: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
        """Return what a version 1 schedule means by these arguments, and a remark for the user where that may be a
        surprise.
        """
        return arguments, None

    @property
    def reads_order(self) -> bool:
        """Return whether the order in which it selects weights has a meaning."""
        return False

    @classmethod
    def summary(cls) -> str:
        """Return the first paragraph of the docstring, in one line."""
        return " ".join((inspect.getdoc(cls) or "").partition("\n\n")[0].split())


class CountsSteps:
    """Mark a field as a number of optimizer steps: a run of fewer steps scales it."""


def of_version_2(cls: type[BaseModel]) -> list[str]:
    """Return the fields of a class that are marked as unknown to version 1."""
    return [name for name, info in cls.model_fields.items() if any(isinstance(m, Version2) for m in info.metadata)]


class Version2:
    """Mark a field that needs `version: 2` of the schedule's grammar."""


def at_pace(settings: Model, pace: float) -> Model:
    """Return the settings for a run in which one step stands for `pace` steps: numbers of steps are divided by it."""
    changed: dict[str, Any] = {}
    for name, info in type(settings).model_fields.items():
        value = getattr(settings, name)
        if any(isinstance(mark, CountsSteps) for mark in info.metadata) and value:
            changed[name] = max(round(value / pace), 1)
        elif isinstance(value, Settings):
            own = getattr(value, "at_pace", None)
            changed[name] = own(pace) if own is not None else at_pace(value, pace)
    return settings.model_copy(update=changed) if changed else settings


class Named:
    """Mark a field that holds a component: its name, `{name: {arguments}}`, or `{name: value}` of its main argument.

    The class is looked up when a value is validated, so that components of plugins can be named, too.
    """

    def __init__(self, kind: str, section: str) -> None:
        self.kind, self.section = kind, section

    @property
    def known(self) -> dict[str, type[Component]]:
        """Return the components that exist, by name."""
        return REGISTRY.get(self.section, {})

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        dump = core_schema.plain_serializer_function_ser_schema(_written, info_arg=True)
        return core_schema.no_info_plain_validator_function(self._read, serialization=dump)

    def _read(self, value: Any) -> Component:
        if isinstance(value, Component) and value.section == self.section:
            return value
        if isinstance(value, str):
            value = {value: {}}
        if not isinstance(value, Mapping):
            raise ValueError(f"should be the name of a {self.kind}, or {{name: {{arguments}}}}, got {value!r}")
        if len(value) != 1:
            raise ValueError(f"give exactly one of {', '.join(sorted(self.known))}")
        ((name, given),) = value.items()
        if name not in self.known:
            meant = [known for known, cls in self.known.items() if str(name).lower() in cls.meant]
            hint = f"did you mean {meant[0]!r}?" if meant else did_you_mean(str(name), self.known)
            raise ValueError(f"there is no {self.kind} {name!r}: {hint}")
        cls = self.known[name]
        if not isinstance(given, Mapping):
            if not cls.main:
                raise ValueError(f"{name} takes its arguments as a mapping, got {given!r}")
            given = {cls.main: given}
        # Through a mapping, so that an error inside says where it is.
        return TypeAdapter(dict[str, cls]).validate_python({name: given})[name]  # type: ignore[valid-type]

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        known = dict(sorted(self.known.items()))
        alone = [name for name, cls in known.items() if not any(f.is_required() for f in cls.model_fields.values())]
        one = {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": False}
        empty = {
            name: {"type": "object", "maxProperties": 0, "description": cls.summary()}
            for name, cls in known.items()
            if not cls.model_fields
        }
        options: list[dict[str, Any]] = [{"enum": alone}] if alone else []
        options += [{**one, "properties": empty}] if empty else []
        for name, cls in known.items():
            if cls.model_fields:
                forms = [handler(cls.__pydantic_core_schema__)]
                if cls.main:
                    arguments = handler.resolve_ref_schema(forms[0])["properties"]
                    forms.append(arguments[cls.model_fields[cls.main].alias or cls.main])
                options.append({**one, "properties": {name: {"description": cls.summary(), "anyOf": forms}}})
        return {"anyOf": options}


def _written(component: Component, info: SerializationInfo) -> Any:
    """Return a component as a schedule names it, with the arguments that were given."""
    given = component.model_dump(mode=info.mode, by_alias=info.by_alias, exclude_unset=True)
    if not given:
        return component.name
    if set(given) == {component.main} and not isinstance(given[component.main], Mapping):
        return {component.name: given[component.main]}
    return {component.name: given}


class Selects:
    """Mark a field as a selector of weights: binding replaces it by the plain names (and values) that it matched.

    With `modules` it selects modules of these class names instead; with `values` the values of a mapping select one
    weight each. In a list an item that begins with `!` excludes.
    """

    def __init__(self, modules: tuple[str, ...] = (), *, values: bool = False) -> None:
        self.modules, self.values = modules, values

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        found = handler(schema)
        for form in found.get("anyOf", [found]):
            if form.get("type") == "string":
                form["pattern"] = "^[^!]"
            elif form.get("type") == "array":  # an item that begins with ! excludes: one that selects is needed
                form["contains"] = {"pattern": "^[^!]"}
            elif form.get("type") == "object":
                form["propertyNames"] = {"pattern": "^[^!]"}
        return found


Weights = Annotated[str | list[str], Selects()]
"""One selector or a list of them; bound to a list of weight names."""

Targets = Mapping[str, Any]
"""What a component's selector fields were bound to: field -> names, or field -> {name: value}."""
