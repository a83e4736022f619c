"""compress report"""

from pathlib import Path

import click

from compressor.cli import options


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@options.config_of_weights
@options.sets_of_config
@options.data
@options.allow_plugins
@options.no_latency
@options.wide
@options.as_json
def report(
    run: Path,
    config: str | None,
    sets: list[tuple[str, str]],
    data: Path | None,
    no_latency: bool,
    wide: bool,
    as_json: bool,
) -> None:
    """Print the sparsity report of a run's folder, a checkpoint, or weights of another tool."""
    from compressor.experiment import inspection
    from compressor.reports import formats

    measured = inspection.report(run, measures=not no_latency, config=config, sets=sets, root=data, say=options.say)
    click.echo(formats.as_json(measured) if as_json else formats.as_table(measured, options.width(wide)), nl=False)
