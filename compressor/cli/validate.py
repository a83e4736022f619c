"""compress validate"""

import click

from compressor.cli import options


@click.command()
@click.argument("schedule")
@options.config
@options.sets
@options.allow_plugins
def validate(schedule: str, config: str | None, sets: list[tuple[str, str]]) -> None:
    """Report all faults of a schedule, one line each."""
    from compressor.experiment import inspection
    from compressor.experiment.specification import open_files
    from compressor.schedule import Faults

    faults = Faults()
    spec = open_files(schedule, config, sets, faults)
    warnings = inspection.validate(spec, faults) if spec is not None else []
    for line in [*warnings, *faults.lines]:
        click.echo(line, err=True)
    if faults:
        raise click.exceptions.Exit(2)
    if spec is None:
        click.echo(
            f"{schedule}: the grammar is right; weight names are not checked: give a --config, the schedule has none"
        )
    else:
        click.echo(f"{schedule}: valid for {spec.config_name} ({spec.config.model.name})")
