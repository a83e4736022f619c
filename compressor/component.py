"""What every named part of a YAML file is: one frozen, strict pydantic class whose fields are its arguments."""

import inspect
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict

Model = TypeVar("Model", bound=BaseModel)


class Settings(BaseModel):
    """A block of YAML: unknown keys, wrong types, NaN and infinity are refused; nothing changes after parsing."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, populate_by_name=True)


REGISTRY: dict[str, dict[str, type["Component"]]] = {}


class Component(Settings):
    """A `Settings` that a schedule names: `class Foo(Base, name="Foo")` enters it into its section's registry.

    `section` is the YAML section it belongs to; `example` is a working YAML of it, which the documentation shows and
    the contract tests run.
    """

    section: ClassVar[str] = ""
    name: ClassVar[str] = ""
    example: ClassVar[str] = ""

    def __init_subclass__(cls, name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)

    @classmethod
    def __pydantic_init_subclass__(cls, name: str | None = None, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if name is None:
            return
        cls.name = name
        known = REGISTRY.setdefault(cls.section, {})
        before = known.get(name, cls)
        if (before.__module__, before.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TypeError(f"two components of section {cls.section!r} are called {name!r}: {known[name]} and {cls}")
        known[name] = cls

    @classmethod
    def of_version_1(cls, arguments: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
        """What a schedule of version 1 means by these arguments, and a remark for the user where that is a surprise."""
        return arguments, None

    @classmethod
    def summary(cls) -> str:
        """The first line of the docstring."""
        return (inspect.getdoc(cls) or "").partition("\n")[0]


class CountsSteps:
    """Marks a field as a number of optimizer steps: a run of fewer steps scales it."""


def at_pace(settings: Model, pace: float) -> Model:
    """The same settings for a run each of whose steps stands for `pace` steps: what counts steps is divided by it."""
    changed: dict[str, Any] = {}
    for name, info in type(settings).model_fields.items():
        value = getattr(settings, name)
        if any(isinstance(mark, CountsSteps) for mark in info.metadata) and value:
            changed[name] = max(round(value / pace), 1)
        elif isinstance(value, Settings):
            own = getattr(value, "at_pace", None)
            changed[name] = own(pace) if own is not None else at_pace(value, pace)
    return settings.model_copy(update=changed) if changed else settings


class Selects:
    """Marks a field as a selector of weights: the binder replaces it by the plain names (and values) it matched.

    With `modules` it selects modules of these class names instead; with `values` a mapping's values select a weight
    each.
    """

    def __init__(self, modules: tuple[str, ...] = (), *, values: bool = False) -> None:
        self.modules, self.values = modules, values


Weights = Annotated[str | list[str], Selects()]
"""One selector or a list of them; bound to a list of weight names."""

Targets = Mapping[str, Any]
"""What a component's selector fields were bound to: field -> names, or field -> {name: value}."""
