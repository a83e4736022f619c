"""compress thin"""

from pathlib import Path

import click
from click.core import ParameterSource

from compressor.cli import options

_OF_REMOVAL = ("round_to", "out", "other_data", "device", "no_latency")
"""The options that say how channels are removed and what is measured: `--explain` does neither."""


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path), required=False)
@click.option(
    "--round-to",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Numbers of channels stay multiples of this.",
)
@click.option("--out", type=click.Path(path_type=Path), help="The thin checkpoint. Default: thin.pt beside CHECKPOINT.")
@click.option(
    "--explain",
    is_flag=True,
    help="Remove nothing: show the channel groups, that is which layers share channels, and why some cannot be removed."
    " Without CHECKPOINT: of the model of --config, before any run.",
)
@click.option(
    "--svg",
    type=click.Path(path_type=Path),
    callback=options.svg,
    metavar="FILE",
    help="With --explain: also draw them.",
)
@options.config_of_weights
@options.sets_of_config
@options.data
@options.other_data
@options.device
@options.allow_plugins
@options.no_latency
@options.wide
@options.as_json
@click.pass_context
def thin(
    ctx: click.Context,
    checkpoint: Path | None,
    round_to: int,
    out: Path | None,
    explain: bool,
    svg: Path | None,
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
    if explain:
        for name in _OF_REMOVAL:
            if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                raise click.UsageError(f"--explain removes nothing: leave out --{name.replace('_', '-')}")
        _explain(checkpoint, svg, config, sets, data, options.width(wide), as_json)
        return
    if svg is not None:
        raise click.UsageError("--svg draws what --explain shows: give --explain, too")
    if checkpoint is None:
        raise click.MissingParameter(ctx=ctx, param_hint="'CHECKPOINT'", param_type="argument")
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


def _explain(
    checkpoint: Path | None,
    svg: Path | None,
    config: str | None,
    sets: list[tuple[str, str]],
    data: Path | None,
    width: int | None,
    as_json: bool,
) -> None:
    from compressor.experiment import inspection
    from compressor.strict_json import dumps

    explained = inspection.explain(checkpoint, data, options.say, config=config, sets=sets)
    if svg is not None:
        explained.draw(svg)
    click.echo(dumps(explained.data(), indent=2) if as_json else explained.text(width))
    if svg is not None and not as_json:
        click.echo(f"written: {svg}")
