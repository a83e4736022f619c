"""compress convert"""

from pathlib import Path

import click

from compressor.cli import completion, options


@click.command()
@click.argument("old", shell_complete=completion.schedules)
@click.option("--out", type=click.Path(path_type=Path), help="The file to write. Default: standard output.")
@click.option(
    "-c",
    "--config",
    shell_complete=completion.configs,
    help="The configuration of its run: the plan is compared, and what version 2 refuses of the network is an error.",
)
@options.allow_plugins
def convert(old: str, out: Path | None, config: str | None) -> None:
    """Write a schedule of version 1 (Distiller's format) as version 2, which means the same.

    The text stays as it is, with its comments; a comment stands at each change. Keys that have no meaning become
    comments; a claim beside the file becomes `expect:`. What version 2 cannot have is an error with its line (exit 2).
    """
    from compressor.experiment.conversion import convert as run

    found = run(old, config, out)
    for note in found.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(found.text if found.path is None else f"written: {found.path}\n", nl=False)
