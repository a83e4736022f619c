"""compress plan"""

from pathlib import Path

import click

from compressor.cli import options


@click.command()
@options.schedule
@options.config
@options.sets
@options.data
@options.allow_plugins
@options.wide
@options.as_json
@options.html("SCHEDULE-CONFIG-plan.html in the working directory")
def plan(
    schedule: str,
    config: str | None,
    sets: list[tuple[str, str]],
    data: Path | None,
    wide: bool,
    as_json: bool,
    html: str | None,
) -> None:
    """Show what a schedule will do, epoch by epoch, without training."""
    if html is not None and as_json:
        raise click.UsageError("--html and --json: leave one of the two out")
    from compressor.experiment import inspection
    from compressor.experiment.specification import specification
    from compressor.schedule import as_table

    spec = specification(schedule, config, sets)
    made, warnings = inspection.plan(spec, data)
    for line in warnings:
        click.echo(line, err=True)
    if html is not None:
        from compressor.experiment.drawing import draw_plan

        click.echo(draw_plan(made, spec, warnings, Path(html or f"{spec.name}-plan.html")))
        return
    click.echo(made.model_dump_json(indent=2, by_alias=True) if as_json else as_table(made, options.width(wide)))
