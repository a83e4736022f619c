"""Late imports: large libraries when they are first needed, and a user's own modules by name.

Code that a file names (`model.name: package.module:factory`, `plugins: [package.module]`) is imported only where the
user allows it, and runs `isolated`.
"""

import importlib
import os
import pkgutil
import random
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from contextvars import ContextVar
from functools import partial
from types import ModuleType
from typing import Any

from compressor.errors import CompressError, UserError, did_you_mean

ALLOWED = "COMPRESS_ALLOW_PLUGINS"
"""The environment variable that allows plugins where it is 1."""

_allowed: ContextVar[bool] = ContextVar("plugins_allowed", default=False)


@contextmanager
def plugins_allowed(allowed: bool = True) -> Iterator[None]:
    """Let the modules that files name be imported inside the block, where `allowed`."""
    before = _allowed.set(allowed)
    try:
        yield
    finally:
        _allowed.reset(before)


def plugins_are_allowed() -> bool:
    """Return whether modules that files name may be imported."""
    return _allowed.get() or os.environ.get(ALLOWED) == "1"


def refusal(name: str) -> str | None:
    """Return why `name` of a file (`package.module` or `package.module:factory`) may not be imported; None where the
    user allows it.
    """
    if plugins_are_allowed():
        return None
    module, _, attribute = name.partition(":")
    what = f"import the module {module!r}" + (f" and call its {attribute!r}" if attribute else "")
    return (
        f"this would {what}. If you trust the file, allow it with --allow-plugins, {ALLOWED}=1 in the environment, or"
        " the argument allow_plugins=True of a function"
    )


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Restore the states of the global random generators at the end of the block.

    Some libraries draw random numbers while they are imported: without this a run would depend on earlier imports.
    """
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    python = random.getstate()
    state = None if numpy is None else numpy.random.get_state()
    bits = None if torch is None else torch.get_rng_state()
    on_devices = torch.cuda.get_rng_state_all() if torch is not None and torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        random.setstate(python)
        if numpy is not None:
            numpy.random.set_state(state)
        if torch is not None:
            torch.set_rng_state(bits)
        if torch is not None and on_devices is not None:
            torch.cuda.set_rng_state_all(on_devices)


@contextmanager
def global_state_kept() -> Iterator[None]:
    """Restore, at the end of the block, what a user's code may change for the whole process.

    These are the random states, torch's defaults (dtype, device, gradients, threads, deterministic and precision
    flags), the working directory, `sys.stdout` and `sys.stderr`. Inside the block prints go to stderr.
    """
    with ExitStack() as stack:
        stack.enter_context(random_state_kept())
        for get, put in _settings():
            stack.callback(_put_back, get, put, get())
        stack.enter_context(redirect_stderr(sys.stderr))
        stack.enter_context(redirect_stdout(sys.stderr))
        yield


Setting = tuple[Callable[[], Any], Callable[[Any], object]]


def _settings() -> list[Setting]:
    """Return the settings of the process, each as two functions that read and write it."""
    found: list[Setting] = [(os.getcwd, os.chdir)]
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return found

    def device() -> Any:
        try:
            return torch.get_default_device()
        except AttributeError:  # torch 2.8, where the default was set to None
            return torch.device("cpu")

    def deterministic() -> tuple[bool, bool]:
        return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()

    def precision() -> str:
        try:
            return str(torch.get_float32_matmul_precision())
        except RuntimeError:  # it was set by backend, of which torch has no one word
            return "mixed"

    cudnn = torch.backends.cudnn
    return [
        *found,
        (torch.get_default_dtype, torch.set_default_dtype),
        # None, not the CPU: a default device that is set makes every call slower.
        (device, lambda old: torch.set_default_device(None if old.type == "cpu" else old)),
        (torch.is_grad_enabled, torch.set_grad_enabled),
        (torch.get_num_threads, torch.set_num_threads),
        (torch.is_anomaly_enabled, torch.set_anomaly_enabled),
        (deterministic, lambda old: torch.use_deterministic_algorithms(old[0], warn_only=old[1])),
        (precision, lambda old: None if old == "mixed" else torch.set_float32_matmul_precision(old)),
        *((partial(getattr, cudnn, flag), partial(setattr, cudnn, flag)) for flag in ("benchmark", "deterministic")),
    ]


def _put_back(get: Callable[[], Any], put: Callable[[Any], object], old: Any) -> None:
    if get() != old:
        put(old)


@contextmanager
def isolated(failed: str) -> Iterator[None]:
    """Run a user's code inside the block so that it changes nothing else of the process (`global_state_kept`).

    Raises `UserError` that begins with `failed` where the code raises an exception or leaves Python (`sys.exit`).
    """
    try:
        with global_state_kept():
            yield
    except (CompressError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise UserError(f"{failed}: {blame(error)}") from error


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
    """Import the module `name` that a file names, also from the working directory, `isolated`.

    Raises `UserError` that begins with `what`, whatever goes wrong in the module, and where the user does not allow it.
    """
    refused = refusal(name)
    if refused:
        raise UserError(f"{what}: {refused}")
    if os.getcwd() not in sys.path:
        # An installed script does not see the folder it is started in. Last, so that nothing is shadowed.
        sys.path.append(os.getcwd())
    if name.endswith(".py") and os.path.exists(name):  # `name:factory` came here as a file
        module = os.path.normpath(name).removesuffix(".py").replace(os.sep, ".")
        raise UserError(f"{what}: {name!r} is a file: a module has its name without .py, as in {module}:FACTORY")
    with isolated(f"{what}: cannot import {name!r} (looked in {os.getcwd()} and PYTHONPATH, too)"):
        return importlib.import_module(name)


def import_installed(name: str, what: str) -> ModuleType:
    """Import the module `name` of an installed package, `isolated`. Raises `UserError` that begins with `what`."""
    with isolated(f"{what}: cannot import {name!r}"):
        return importlib.import_module(name)


def blame(error: BaseException) -> str:
    """Return type, message and source line of an error in the user's code, for a message without a traceback."""
    places = traceback.extract_tb(error.__traceback__)
    files = [place for place in places if not place.filename.startswith("<")] or places
    place = next((place for place in reversed(files) if not _is_torchs(place.filename)), files[-1])
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    said = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]  # torch lists faults below a heading
    return f"{type(error).__name__}: {said} ({place.filename}:{place.lineno})"


def _is_torchs(file: str) -> bool:
    """Return whether a file is one of torch's own, which the user did not write."""
    return f"{os.sep}site-packages{os.sep}torch{os.sep}" in file


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
