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
@options.html("report.html in the run's folder")
def report(
    run: Path,
    config: str | None,
    sets: list[tuple[str, str]],
    data: Path | None,
    no_latency: bool,
    wide: bool,
    as_json: bool,
    html: str | None,
) -> None:
    """Print the sparsity report of a run's folder, a checkpoint, or weights of another tool."""
    if html is not None:
        if as_json or config is not None or sets:
            other = "--json" if as_json else "--config" if config is not None else "--set"
            raise click.UsageError(f"--html and {other}: a page is drawn of a run's folder, leave one of the two out")
        from compressor.experiment.drawing import draw_run

        click.echo(draw_run(run, Path(html) if html else None, measures=not no_latency))
        return
    from compressor.experiment import inspection
    from compressor.reports import formats

    measured = inspection.report(run, measures=not no_latency, config=config, sets=sets, root=data, say=options.say)
    click.echo(formats.as_json(measured) if as_json else formats.as_table(measured, options.width(wide)), nl=False)
