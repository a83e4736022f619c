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
    """Remove all unused channels of a checkpoint, a run, or weights of another tool. The outputs stay equal.

    Where no filter and no channel is all zero, the file has the network as it is (exit 0). Where some are and none can
    be removed, the reasons are listed by layer and nothing is written (exit 1).
    """
    from compressor.experiment.channel_removal import thin_checkpoint
    from compressor.reports import formats

    found = thin_checkpoint(
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
    if as_json:
        click.echo(formats.as_json(found.report), nl=False)
    elif not found.nothing:
        click.echo(formats.as_table(found.report, options.width(wide)), nl=False)
        click.echo(f"written: {found.path}")
    if found.nothing:
        click.echo(found.nothing, err=as_json)
