"""What the shell completes: names of files, devices and models. torch is never imported."""

import re
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from compressor import lookup

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

_KINDS = (
    "policies pruners criteria structures allocations rates regularizers extensions gates lr-schedulers"
    " models datasets schedules configs"
).split()

_REGISTERED = re.compile(r"^@(?:model|register_model\(\))\n(?:@.*\n)*def (\w+)", re.MULTILINE)
"""A builder below the decorator that registers it: ours, or torchvision's."""


def _beginning(names: Iterable[str], begun: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in sorted(set(names)) if name.startswith(begun)]


def _files(kind: str) -> Complete:
    def complete(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
        """Return the bare names that begin so; where there are none, let the shell complete a path."""
        try:
            names = lookup.names(kind)
        except OSError:  # a folder that cannot be read: a shell's line is no place for an error
            names = set()
        return _beginning(names, begun) or [CompletionItem(begun, type="file")]

    return complete


schedules, configs = _files("schedules"), _files("configs")


def files(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Let the shell complete a path."""
    return [CompletionItem(begun, type="file")]


def kinds(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Return the kinds of `compress list`; the names of components are known only after an import of seconds."""
    return _beginning(_KINDS, begun)


def devices(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Return the kinds of devices; which of them exist only torch knows."""
    return _beginning(("auto", "cpu", "cuda"), begun)


def models(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Return the names of the models, ours and torchvision's, that begin so."""
    return _beginning(model_names(), begun)


def model_names() -> set[str]:
    """Return the names of the models as their source files have them: importing these files takes seconds."""
    folders = [Path(__file__).parents[1] / "models"]
    torchvision = find_spec("torchvision")
    if torchvision is not None and torchvision.submodule_search_locations:
        folders.append(Path(torchvision.submodule_search_locations[0]) / "models")
    try:
        texts = [path.read_text(encoding="utf-8") for folder in folders for path in folder.glob("*.py")]
    except (OSError, UnicodeDecodeError):
        return set()
    return {name for text in texts for name in _REGISTERED.findall(text)}
