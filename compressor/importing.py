"""A user's own module, by name: for models, data sets and plugins."""

import importlib
import os
import sys
import traceback
from types import ModuleType
from typing import Any

from compressor.errors import UserError, did_you_mean


def import_module(name: str, what: str) -> ModuleType:
    """The module `name`, also from the working directory; raises `UserError` for `what` whatever goes wrong in it."""
    if os.getcwd() not in sys.path:
        # An installed script does not see the folder it is started in. Last, so that nothing is shadowed.
        sys.path.append(os.getcwd())
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise UserError(
            f"{what}: cannot import {name!r} (looked in {os.getcwd()} and PYTHONPATH, too): {blame(error)}"
        ) from error


def blame(error: BaseException) -> str:
    """Type, message and the line of the user's code it came from: enough without a traceback."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]} ({place.filename}:{place.lineno})"


def import_callable(name: str, what: str) -> Any:
    """The callable that `package.module:factory` names; raises `UserError`."""
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise UserError(f"{what}: expected `package.module:factory`")
    module = import_module(module_name, what)
    factory = getattr(module, attribute, None)
    if attribute in vars(module) and not callable(factory):
        raise UserError(f"{what}: {attribute!r} should be callable, got {type(factory).__name__}")
    if factory is None:
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UserError(f"{what}: {module_name!r} has no callable {attribute!r}: {did_you_mean(attribute, public)}")
    return factory
