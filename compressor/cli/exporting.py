"""compress export"""

import contextlib
import sys
from pathlib import Path

import click

from compressor.cli import options

FORMATS = ("onnx", "torch-export", "safetensors", "state-dict", "packed")
"""The names of `compressor.exports.FORMATS`, which imports torch."""

SCHEMA = 1
"""The number of the layout of the JSON output."""


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--format", "format_", type=click.Choice(FORMATS), required=True, help="What is written.")
@click.option("--thin", is_flag=True, help="Without unused channels, as `compress thin` removes them.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The file; one of that name is replaced. Default: a new file in the folder of CHECKPOINT.",
)
@options.config_of_weights
@options.sets_of_config
@options.data
@options.other_data
@options.allow_plugins
@options.no_latency
@options.wide
@options.as_json
def export(
    checkpoint: Path,
    format_: str,
    thin: bool,
    out: Path | None,
    config: str | None,
    sets: list[tuple[str, str]],
    data: Path | None,
    other_data: bool,
    no_latency: bool,
    wide: bool,
    as_json: bool,
) -> None:
    """Write the network of a checkpoint, a run, or weights of another tool as a file for other programs.

    The file is run on up to 32 test images before it gets its name. Where a logit differs by more than 1e-4 of the
    logits' spread, nothing is written (exit 1). The file has the names of the classes, and the size, mean and std of
    its input.
    """
    from compressor.experiment import exporting
    from compressor.reports import formats
    from compressor.strict_json import dumps

    with contextlib.redirect_stdout(sys.stderr):  # a model may print
        made = exporting.export(
            checkpoint,
            format=format_,
            thin=thin,
            out=out,
            config=config,
            sets=sets,
            data=data,
            other_data=other_data,
            measures=not no_latency,
            say=options.say,
        )
    if as_json:
        click.echo(dumps({"schema": SCHEMA, **made.model_dump(mode="json")}, indent=2))
        return
    click.echo(
        f"verified by {made.verified_by} on {made.images} test images, in batches of {_listed(made.batches)}: the"
        f" largest difference of a logit is {made.largest_difference:.2g}, {made.relative_difference:.2g} of the"
        " logits' spread (at most 0.0001)"
    )
    if made.latency is not None:
        click.echo(formats.as_times(made.latency, options.width(wide)))
    click.echo(f"written: {made.path} ({made.bytes:,} bytes)")


def _listed(batches: list[int]) -> str:
    """Return the sizes of the batches, each once."""
    return ", ".join(map(str, dict.fromkeys(batches)))
