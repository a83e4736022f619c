"""A user's own module, by name: for models, data sets and plugins."""

import importlib
import os
import sys
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
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"{what}: cannot import {name!r} (looked in {os.getcwd()} and PYTHONPATH, too):"
            f" {type(error).__name__}: {reason}"
        ) from error


def import_callable(name: str, what: str) -> Any:
    """The callable that `package.module:factory` names; raises `UserError`."""
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise UserError(f"{what}: expected `package.module:factory`")
    module = import_module(module_name, what)
    factory = getattr(module, attribute, None)
    if not callable(factory):
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UserError(f"{what}: {module_name!r} has no callable {attribute!r}: {did_you_mean(attribute, public)}")
    return factory
