"""Compress image classifiers from a schedule file.

Each folder is a room. Its `__init__` says what belongs there and exports, in `__all__`, the names that other rooms may
import; they import them from the room, not from its modules. (Of `policies` only `policies.policy` is imported.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    from torch import nn


def __getattr__(name: str) -> str:
    """Return `__version__`, when it is asked for: a command imports this first, and is not ready for signals yet."""
    if name != "__version__":
        raise AttributeError(f"module 'compressor' has no attribute {name!r}")
    from importlib.metadata import version

    found = globals()["__version__"] = version("compressor")
    return found


def load(
    path: str | os.PathLike[str], *, config: str | os.PathLike[str] | None = None, allow_plugins: bool = False
) -> nn.Module:
    """Return the network of a checkpoint or a run's folder with its weights, in eval mode; a thinned one has its thin
    shapes.

    `config`: the configuration (a path or a bare name) that has the model of weights of another tool. `allow_plugins`:
    import and run the code that the file names (`package.module:factory`); else that is an error, unless
    COMPRESS_ALLOW_PLUGINS=1. Raises `compressor.errors.UserError` where the file has no weights, or none that fit.
    """
    import os
    from pathlib import Path

    from compressor.experiment import loading  # imports torch
    from compressor.importing import plugins_allowed

    with plugins_allowed(allow_plugins):
        return loading.network(Path(path), None if config is None else os.fspath(config))
