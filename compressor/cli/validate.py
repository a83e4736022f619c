"""compress validate"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from compressor.cli import options
from compressor.errors import CompressError
from compressor.strict_json import dumps

if TYPE_CHECKING:
    from compressor.experiment.specification import Specification
    from compressor.schedule import Faults, Message

SCHEMA = 1
"""The number of the layout of the JSON output: `valid`, the `model` whose weight names were checked (null: none), and
`findings`, each with `severity` (error, warning or note), `file`, `line`, `column` (counted from 1; null where there is
none) and `text`."""


@click.command()
@options.schedule
@options.config
@options.sets
@options.allow_plugins
@options.as_json
def validate(schedule: str, config: str | None, sets: list[tuple[str, str]], as_json: bool) -> None:
    """Report all faults of a schedule, one line each."""
    from compressor.schedule import Faults

    faults = Faults()
    try:
        spec, warnings = _checked(schedule, config, sets, faults)
    except CompressError as error:
        if not as_json:
            raise
        whole = str(error) == "\n".join(faults.lines)  # so many faults that the rest was not looked for
        _print(None, faults.lines if whole else [*faults.lines, _message(error)], valid=False)
        raise click.exceptions.Exit(error.exit_code) from None
    if as_json:
        _print(spec, [*warnings, *faults.lines], valid=not faults)
    else:
        for line in [*warnings, *faults.lines]:
            click.echo(line, err=True)
    if faults:
        raise click.exceptions.Exit(2)
    if as_json:
        return
    if spec is None:
        click.echo(
            f"{schedule}: the grammar is right; weight names are not checked: give a --config, the schedule has none"
        )
    else:
        click.echo(f"{schedule}: valid for {spec.config_name} ({spec.config.model.name})")


def _checked(
    schedule: str, config: str | None, sets: list[tuple[str, str]], faults: "Faults"
) -> "tuple[Specification | None, Sequence[Message]]":
    """Return both files (None without a configuration, and where they cannot be read) and the warnings."""
    from compressor.experiment import inspection
    from compressor.experiment.specification import open_files

    spec = open_files(schedule, config, sets, faults)
    return spec, inspection.validate(spec, faults) if spec is not None else []


def _message(error: CompressError) -> "Message":
    """Return the message of an error, with its place where it has one."""
    from compressor.schedule import Message

    said = error.args[0] if error.args else ""
    return said if isinstance(said, Message) else Message(None, str(error))


def _print(spec: "Specification | None", findings: "Sequence[Message]", *, valid: bool) -> None:
    """Print the JSON output."""
    model = spec.config.model.name if spec is not None else None
    shown = [_finding(message) for message in findings]
    click.echo(dumps({"schema": SCHEMA, "valid": valid, "model": model, "findings": shown}, indent=2))


def _finding(message: "Message") -> dict[str, Any]:
    place = message.place
    file = place.file if place is not None else None
    return {
        "severity": message.severity,
        "file": file,
        "line": place.line or None if place is not None else None,
        "column": place.column or None if place is not None else None,
        # A flag of the command line is no file: it stays before the text.
        "text": message.text if file is not None or place is None else f"{place}: {message.text}",
    }
