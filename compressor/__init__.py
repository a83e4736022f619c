"""Compress image classifiers from a schedule file.

The functions of this package are what the commands do, and `attach`, which brings a schedule into a loop of one's own.
They import torch when one of them is first used.

Each folder is a room. Its `__init__` says what belongs there and exports, in `__all__`, the names that other rooms may
import; they import them from the room, not from its modules. (Of `policies` only `policies.policy` is imported.)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compressor.api import (
        AttachedSession,
        CompressError,
        Exported,
        Message,
        Outcome,
        Plan,
        Report,
        ThinModel,
        Thinning,
        UserError,
        attach,
        export,
        load,
        load_packed,
        plan,
        report,
        thin,
        train,
        validate,
    )

    __version__: str

__all__ = [
    "AttachedSession",
    "CompressError",
    "Exported",
    "Message",
    "Outcome",
    "Plan",
    "Report",
    "ThinModel",
    "Thinning",
    "UserError",
    "__version__",
    "attach",
    "export",
    "load",
    "load_packed",
    "plan",
    "report",
    "thin",
    "train",
    "validate",
]


if not TYPE_CHECKING:  # else a type checker would take every name for one of the package

    def __getattr__(name: str) -> Any:
        """Return a public name when it is asked for: a command imports this first, and is not ready for signals yet."""
        if name == "__version__":
            from importlib.metadata import version

            found: Any = version("compressor")
        elif name in __all__:
            found = getattr(import_module("compressor.api"), name)
        else:
            raise AttributeError(f"module 'compressor' has no attribute {name!r}")
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
