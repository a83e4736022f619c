"""compress diff"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from compressor.cli import completion, options
from compressor.strict_json import dumps

if TYPE_CHECKING:
    from compressor.experiment.differences import Differences


@click.command()
@click.argument("a", shell_complete=completion.schedules)
@click.argument("b", shell_complete=completion.schedules)
@click.option(
    "-c",
    "--config",
    shell_complete=completion.configs,
    help="Of two schedules: compare the weights that they select in the model of this configuration. Default: the"
    " schedules' own `config:`.",
)
@options.allow_plugins
@options.as_json
def diff(a: str, b: str, config: str | None, as_json: bool) -> None:
    """Show how two schedules, configurations or runs differ in meaning, with the line of each in either file.

    A and B: paths or bare names of two schedules or two configurations, or the folders of two runs. Exit 0 where they
    mean the same, 1 where they differ, 2 where a file has faults. No differences are: the order of keys, anchors and
    `extends`, defaults that are written out, version 1 or 2, names of instances, comments.
    """
    from compressor.experiment.differences import between

    found = between(a, b, config)
    if as_json:
        click.echo(dumps(found.model_dump(mode="json", by_alias=True), indent=2))
    else:
        for line in _lines(found):
            click.echo(line)
        for note in found.notes:
            click.echo(f"note: {note}", err=True)
    if not found.equal:
        raise click.exceptions.Exit(1)


def _lines(found: "Differences") -> Iterator[str]:
    if found.equal:
        yield "no difference"
        return
    for one in found.differences:
        only = "" if one.only is None else f": only in {found.a if one.only == 'a' else found.b}"
        yield one.what + only
        yield f"  {one.a.place}: {one.a.text}"
        yield f"  {one.b.place}: {one.b.text}"
    count = len(found.differences)
    yield f"{count} difference{'' if count == 1 else 's'}"
