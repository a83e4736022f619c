"""compress new"""

from pathlib import Path

import click

from compressor.cli import completion, options
from compressor.errors import UserError


@click.command()
@click.option(
    "--model",
    required=True,
    shell_complete=completion.models,
    help="`compress list models`, or package.module:factory.",
)
@click.option(
    "--data",
    default="digits",
    show_default=True,
    help="Folder with train/<class>/* and test/<class>/*, or <class>/* alone; or a data set's name.",
)
@click.option(
    "--goal",
    default="filters:0.5",
    show_default=True,
    help="filters:S removes a fraction S of the filters; elements:S zeroes weights.",
)
@click.option("--init", type=str, metavar="CHECKPOINT", help="Start from trained weights.")
@click.option(
    "--set",
    "sets",
    multiple=True,
    callback=options.overrides,
    metavar="A.B=C",
    help="Argument of the model: `model.width=2`.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path(), help="Folder of the two files. Default: this one."
)
@options.allow_plugins
def new(model: str, data: str, goal: str, init: str | None, sets: list[tuple[str, str]], out: Path) -> None:
    """Write a configuration and a schedule for a model, with the reason for each value, and say what to type next."""
    from compressor.experiment import starting
    from compressor.schedule import parse_value

    arguments = {}
    for key, text in sets:
        if not key.startswith("model."):
            raise UserError(f"--set {key}: only arguments of the model are set here (model.NAME=VALUE): edit the files")
        arguments[key.removeprefix("model.")] = parse_value(text, f"--set {key}={text}")
    started = starting.start(model, arguments, data, goal, init, out)
    for line in started.warnings:
        click.echo(line, err=True)
    click.echo(str(started))
