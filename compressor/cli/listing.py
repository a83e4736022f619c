"""compress list"""

import click

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
def listing(kind: str | None) -> None:
    """List components, models, data sets, schedules and configurations, with one line for each."""
    from compressor.experiment.catalogue import catalogue

    for name in [kind] if kind else KINDS:
        if kind is None:
            click.echo(f"{name}:")
        entries = catalogue(name)
        if not entries:
            click.echo("  (none yet)" if kind is None else "(none yet)")
        width = max(map(len, entries), default=0)
        for entry, line in entries.items():
            click.echo(f"{'' if kind else '  '}{entry.ljust(width)}  {line}".rstrip())
