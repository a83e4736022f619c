"""compress list"""

import click

from compressor.cli import options

KINDS = (
    "policies",
    "pruners",
    "criteria",
    "structures",
    "allocations",
    "rates",
    "regularizers",
    "extensions",
    "gates",
    "lr-schedulers",
    "models",
    "datasets",
    "schedules",
    "configs",
)


@click.command(name="list")
@click.argument("kind", type=click.Choice(KINDS), required=False)
@options.wide
def listing(kind: str | None, wide: bool) -> None:
    """List components, models, data sets, schedules and configurations, with one line for each."""
    from compressor.experiment.catalogue import catalogue
    from compressor.tables import Column, table

    columns = [Column("", left=True), Column("", left=True, shortened="end")]
    width, indent = options.width(wide), "" if kind else "  "
    for name in [kind] if kind else KINDS:
        if kind is None:
            click.echo(f"{name}:")
        entries = catalogue(name)
        if not entries:
            click.echo(f"{indent}(none yet)")
        made = table(columns, list(entries.items()), None if width is None else width - len(indent))
        for line in made.rows:
            click.echo(indent + line)
