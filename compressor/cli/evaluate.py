"""compress eval"""

import math
from pathlib import Path

import click

from compressor.cli import options
from compressor.errors import CompressError, UserError
from compressor.strict_json import dumps

SCHEMA = 1
"""The number of the layout of the JSON output: `loss`, `top1` and `top5` in percent."""


@click.command(name="eval")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@options.config_of_weights
@options.sets_of_config
@options.data
@options.other_data
@options.device
@click.option(
    "--min-top1",
    type=click.FloatRange(0, 100),
    metavar="PERCENT",
    help="Exit with 1 where the top-1 accuracy is below it.",
)
@options.allow_plugins
@options.as_json
def evaluate(
    checkpoint: Path,
    config: str | None,
    sets: list[tuple[str, str]],
    data: Path | None,
    other_data: bool,
    device: str,
    min_top1: float | None,
    as_json: bool,
) -> None:
    """Print loss, top-1 and top-5 of a checkpoint, a run's folder, or weights of another tool on the test images."""
    from compressor.experiment import inspection

    if min_top1 is not None and math.isnan(min_top1):
        raise UserError("--min-top1 nan: should be a number of percent, from 0 to 100")
    if min_top1 is not None and 0 < min_top1 <= 1:
        options.say(f"warning: --min-top1 {min_top1:g} means {min_top1:g} percent; a fraction is given as 100 times it")
    figures = inspection.test_accuracy(
        checkpoint, data, device, options.say, other_data=other_data, config=config, sets=sets
    )
    if as_json:
        click.echo(dumps({"schema": SCHEMA, **figures}))
    else:
        click.echo(f"test loss {figures['loss']:.4f}, top-1 {figures['top1']:.2f} %, top-5 {figures['top5']:.2f} %")
    if min_top1 is not None and not figures["top1"] >= min_top1:
        raise CompressError(f"{checkpoint}: test top-1 {figures['top1']:.6g} % is below --min-top1 {min_top1:.6g} %")
