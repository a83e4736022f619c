"""compress thin"""

from pathlib import Path

import click

from compressor.cli import options


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--round-to",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Numbers of channels stay multiples of this.",
)
@click.option("--out", type=click.Path(path_type=Path), help="The thin checkpoint. Default: thin.pt beside CHECKPOINT.")
@options.config_of_weights
@options.sets_of_config
@options.data
@options.other_data
@options.device
@options.allow_plugins
@options.no_latency
@options.wide
@options.as_json
def thin(
    checkpoint: Path,
    round_to: int,
    out: Path | None,
    config: str | None,
    sets: list[tuple[str, str]],
    data: Path | None,
    other_data: bool,
    device: str,
    no_latency: bool,
    wide: bool,
    as_json: bool,
) -> None:
    """Remove all unused channels of a checkpoint, a run, or weights of another tool. The outputs stay equal."""
    from compressor.experiment.channel_removal import thin_checkpoint
    from compressor.reports import formats

    target, report = thin_checkpoint(
        checkpoint,
        out,
        data,
        device,
        round_to,
        options.say,
        other_data=other_data,
        measures=not no_latency,
        config=config,
        sets=sets,
    )
    click.echo(formats.as_json(report) if as_json else formats.as_table(report, options.width(wide)), nl=False)
    if not as_json:
        click.echo(f"written: {target}")
