"""Options that several commands share."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from compressor.cli import completion
from compressor.importing import ALLOWED, plugins_allowed

data = click.option("--data", type=click.Path(path_type=Path), help="Folder of the data sets [env COMPRESS_DATA].")
device = click.option(
    "--device",
    metavar="auto|cpu|cuda|cuda:N",
    default="auto",
    show_default=True,
    shell_complete=completion.devices,
    help="auto: CUDA where there is one.",
)
schedule = click.argument("schedule", shell_complete=completion.schedules)
config = click.option(
    "-c",
    "--config",
    shell_complete=completion.configs,
    help="Configuration: a path or a bare name. Default: the schedule's `config:`.",
)
config_of_weights = click.option(
    "-c",
    "--config",
    shell_complete=completion.configs,
    help="For weights of another tool: the configuration with their model and data, a path or a bare name.",
)
other_data = click.option(
    "--other-data", is_flag=True, help="Accept other images or classes than those of the checkpoint, with a message."
)
no_latency = click.option("--no-latency", is_flag=True, help="Do not measure the time of a forward pass.")


def _page(ctx: click.Context, parameter: click.Parameter, file: str | None) -> str | None:
    """Return the path of a page, empty for the default. Raises a usage error where no page can be there."""
    if file:
        _check_place(Path(file))
    return file


def _check_place(path: Path) -> None:
    if path.is_dir() or not path.parent.is_dir():
        raise click.BadParameter(f"{path} is a folder" if path.is_dir() else f"there is no folder {path.parent}")


def html(default: str) -> Callable[[Any], Any]:
    """Return the option of a command that can write a page; `default` says where, without a file."""
    return click.option(
        "--html",
        is_flag=False,
        flag_value="",
        metavar="[FILE]",
        callback=_page,
        help=f"Write a page with drawings, one HTML file, instead of a table. Default FILE: {default}.",
    )


wide = click.option("--wide", is_flag=True, help="Show all columns of a table, however narrow the terminal is.")
as_json = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


def width(wide: bool) -> int | None:
    """Return how many columns a table may have: of the terminal, else of COLUMNS where that is set; None for all.

    What goes to a file or a pipe has all columns unless COLUMNS says otherwise.
    """
    if wide:
        return None
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80  # 0: a terminal that does not know its width
    except (OSError, ValueError):  # no terminal
        return None


def say(text: str) -> None:
    """Show a message beside the output, on stderr."""
    click.echo(text, err=True)


def _allow(ctx: click.Context, parameter: click.Parameter, allowed: bool) -> None:
    """Allow plugins until the command ends."""
    ctx.with_resource(plugins_allowed(allowed))


allow_plugins = click.option(
    "--allow-plugins",
    is_flag=True,
    expose_value=False,
    callback=_allow,
    help="Import and run the code that the files name: `plugins:`, and models and data sets `package.module:factory`"
    f" [env {ALLOWED}=1].",
)


def svg(ctx: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Return the path of a picture. Raises a usage error where no picture can be there."""
    if path is None:
        return None
    if path.suffix.lower() != ".svg":
        raise click.BadParameter(f"the name of an SVG file ends in .svg: {path}")
    _check_place(path)
    return path


def overrides(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return `--set a.b=c` as pairs. Raises a usage error where there is no `=`."""
    pairs = []
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not all(part.strip() for part in key.split(".")):
            raise click.BadParameter(f"{value!r} should look like optimizer.lr=0.01 or schedule.pruners.fine.levels=…")
        pairs.append((key.strip(), text))
    return pairs


sets_of_config = click.option(
    "--set", "sets", multiple=True, callback=overrides, metavar="A.B=C", help="Override that configuration."
)
sets = click.option(
    "--set", "sets", multiple=True, callback=overrides, metavar="A.B=C", help="Override the config, or `schedule.…`."
)
