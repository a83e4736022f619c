"""Late imports: large libraries when they are first needed, and a user's own modules by name."""

import importlib
import os
import pkgutil
import random
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from compressor.errors import UserError, did_you_mean


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Restore the states of the global random generators at the end of the block.

    Some libraries draw random numbers while they are imported: without this a run would depend on earlier imports.
    """
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    python = random.getstate()
    state = None if numpy is None else numpy.random.get_state()
    bits = None if torch is None else torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        if numpy is not None:
            numpy.random.set_state(state)
        if torch is not None:
            torch.set_rng_state(bits)


def late(name: str) -> Any:
    """Import the library `name` when it is first needed, and leave the global random states as they are."""
    found = sys.modules.get(name)
    if found is not None:
        return found
    with random_state_kept():
        return importlib.import_module(name)


def import_all(package: str) -> None:
    """Import every module of one of our packages, so that its components are registered."""
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{module.name}")


def import_module(name: str, what: str) -> ModuleType:
    """Import the module `name`, also from the working directory, without a change of the global random states.

    Raises `UserError` that begins with `what`, whatever goes wrong in the module.
    """
    if os.getcwd() not in sys.path:
        # An installed script does not see the folder it is started in. Last, so that nothing is shadowed.
        sys.path.append(os.getcwd())
    try:
        with random_state_kept():
            return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise UserError(
            f"{what}: cannot import {name!r} (looked in {os.getcwd()} and PYTHONPATH, too): {blame(error)}"
        ) from error


def blame(error: BaseException) -> str:
    """Return type, message and source line of an error in the user's code, for a message without a traceback."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]} ({place.filename}:{place.lineno})"


def import_callable(name: str, what: str) -> Any:
    """Return the callable that `package.module:factory` names. Raises `UserError`."""
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
