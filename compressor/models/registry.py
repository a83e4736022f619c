"""The registry of the builders of this package."""

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import ParamSpec, TypeVar

from torch import nn

Builder = Callable[..., nn.Module]
P = ParamSpec("P")
M = TypeVar("M", bound=nn.Module)

_BUILDERS: dict[str, Builder] = {}


def model(builder: Callable[P, M]) -> Callable[P, M]:
    """Register a builder under its own name; its annotated parameters are the model's arguments in YAML."""
    known = _BUILDERS.setdefault(builder.__name__, builder)
    if known.__module__ != builder.__module__:
        raise TypeError(f"two models are called {builder.__name__!r}: {known.__module__}, {builder.__module__}")
    return builder


@cache
def _discover() -> None:
    for found in pkgutil.iter_modules([str(Path(__file__).parent)]):
        importlib.import_module(f"{__package__}.{found.name}")


def builders() -> dict[str, Builder]:
    """Return our own builders by name; the first call imports every file of the package."""
    _discover()
    return _BUILDERS
