"""compress summary"""

from pathlib import Path

import click

from compressor.cli import completion, options
from compressor.strict_json import dumps


@click.command()
@click.argument("model", shell_complete=completion.models)
@click.option("--svg", type=click.Path(path_type=Path), callback=options.svg, metavar="FILE", help="Draw the graph.")
@click.option("--image", metavar="CxHxW", help="The shape of the images, as 3x32x32. Default: the data's.")
@options.config_of_weights
@options.sets_of_config
@options.data
@options.allow_plugins
@options.wide
@options.as_json
def summary(
    model: str,
    svg: Path | None,
    image: str | None,
    config: str | None,
    sets: list[tuple[str, str]],
    data: Path | None,
    wide: bool,
    as_json: bool,
) -> None:
    """Show the layers of a network: output shapes, parameters, MACs, and sparsity where it is trained.

    MODEL: a run's folder, a checkpoint, weights of another tool, a configuration, a model of `compress list models`, or
    package.module:factory. A model alone is tried with images of usual sizes; the first size
    that it accepts is used.
    """
    from compressor.experiment import summarizing
    from compressor.reports import summary_as_text

    found = summarizing.summary(model, config, sets, data, image, options.say)
    if svg is not None:
        summarizing.draw(found, svg)
    if as_json:
        click.echo(dumps(found.model_dump(mode="json", by_alias=True), indent=2))
        return
    click.echo(summary_as_text(found, options.width(wide)))
    if svg is not None:
        click.echo(f"written: {svg}")
