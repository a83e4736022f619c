"""compress eval"""

import json
import math
from pathlib import Path

import click

from compressor.cli import options

SCHEMA = 1
"""The number of the layout of the JSON output: `loss`, `top1` and `top5` in percent."""


@click.command(name="eval")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@options.data
@options.other_data
@options.device
@options.allow_plugins
@options.as_json
def evaluate(checkpoint: Path, data: Path | None, other_data: bool, device: str, as_json: bool) -> None:
    """Print loss, top-1 and top-5 of a checkpoint (or a run's folder) on the test images."""
    from compressor.experiment import inspection

    figures = inspection.test_accuracy(checkpoint, data, device, options.say, other_data=other_data)
    if as_json:
        finite = {name: value if math.isfinite(value) else None for name, value in figures.items()}  # JSON has no NaN
        click.echo(json.dumps({"schema": SCHEMA, **finite}, allow_nan=False))
    else:
        click.echo(f"test loss {figures['loss']:.4f}, top-1 {figures['top1']:.2f} %, top-5 {figures['top5']:.2f} %")
