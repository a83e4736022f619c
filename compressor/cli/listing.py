"""compress list"""

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from compressor.cli import completion, options

if TYPE_CHECKING:
    from compressor.experiment.catalogue import Entry


@click.command(name="list")
@click.argument("name", metavar="[KIND|NAME]", required=False, shell_complete=completion.kinds)
@options.wide
def listing(name: str | None, wide: bool) -> None:
    """List components, models, data sets, schedules and configurations, or show one with its arguments.

    KIND: one of policies, pruners, criteria, structures, allocations, rates, regularizers, extensions, gates,
    lr-schedulers, models, datasets, schedules, configs. NAME: a component's class or any other name that is listed:
    what it does, each argument with its type, default and meaning, and an example.
    """
    from compressor.experiment.catalogue import KINDS, entries

    width = options.width(wide)
    if name is not None and name not in KINDS:
        for number, entry in enumerate(entries(name)):
            for line in [*([""] if number else []), *_shown(entry, width)]:
                click.echo(line)
        return
    for kind in [name] if name else KINDS:
        _list(kind, width, headed=name is None)


def _list(kind: str, width: int | None, *, headed: bool) -> None:
    """Print the names of a kind with a line each."""
    from compressor.experiment.catalogue import catalogue
    from compressor.tables import Column, table

    indent = "  " if headed else ""
    if headed:
        click.echo(f"{kind}:")
    entries = catalogue(kind)
    if not entries:
        click.echo(f"{indent}(none yet)")
    columns = [Column("", left=True), Column("", left=True, shortened="end")]
    made = table(columns, list(entries.items()), None if width is None else width - len(indent))
    for line in made.rows:
        click.echo(indent + line)


def _shown(entry: "Entry", width: int | None) -> Iterator[str]:
    """Yield the lines of one entry, at most `width` columns wide where that is possible."""
    yield f"{entry.name} ({entry.kind})"
    yield ""
    for paragraph in entry.text.split("\n\n"):
        yield from _wrapped(" ".join(paragraph.split()), width, "")
        yield ""
    if entry.arguments:
        yield "arguments:"
    for one in entry.arguments:
        default = "required" if one.default is None else f"default: {one.default}"
        version = "; needs version: 2" if one.version_2 else ""
        yield from _wrapped(f"{one.name}: {one.type} ({default}{version})", width, "  ")
        yield from _wrapped(one.description, width, "      ")
    if entry.arguments:
        yield ""
    if entry.example:
        yield "example:"
        yield from (f"  {line}".rstrip() for line in textwrap.dedent(entry.example).strip().splitlines())


def _wrapped(text: str, width: int | None, indent: str) -> list[str]:
    if width is None:
        return [indent + text] if text else []
    return textwrap.wrap(
        text,
        max(width, 24),
        initial_indent=indent,
        subsequent_indent=f"{indent}    " if indent == "  " else indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
