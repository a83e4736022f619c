"""compress verify"""

import contextlib
import sys
from pathlib import Path

import click

from compressor.cli import completion, options, streams
from compressor.strict_json import dumps


@click.command()
@click.argument("schedules", nargs=-1, required=True, metavar="SCHEDULE...", shell_complete=completion.schedules)
@click.option(
    "--seeds",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Seeds 0 to N - 1. Default: as many as each claim is the mean of.",
)
@options.data
@options.device
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="runs",
    show_default=True,
    help="Folder of the runs: those that are there are taken or continued, others are trained.",
)
@click.option("--junit", type=click.Path(path_type=Path), metavar="FILE", help="Also write JUnit XML, for CI systems.")
@click.option(
    "--record",
    is_flag=True,
    help="Where the claims hold, write environment, data and smoke digest into records.json beside the schedule.",
)
@options.allow_plugins
@options.wide
@options.as_json
def verify(
    schedules: tuple[str, ...],
    seeds: int | None,
    data: Path | None,
    device: str,
    out: Path,
    junit: Path | None,
    record: bool,
    wide: bool,
    as_json: bool,
) -> None:
    """Run schedules and judge what they claim (`expect:`): accuracy, sparsity, MACs.

    A claimed accuracy is that of the mean over the seeds; sparsity and MACs must hold for each seed. First a short run
    (two small steps an epoch) is compared bit by bit with its record, if torch and the processor are the same. A second
    call takes finished runs and continues the others. Exit 0 if all claims hold; 1 if one does not, the short run
    differs, or a run failed; 2 if something must be corrected.
    """
    streams.drop_lost_output()
    from compressor.experiment import verifying
    from compressor.experiment.junit import write
    from compressor.experiment.verification_text import lines

    if junit is not None and (junit.is_dir() or not junit.absolute().parent.is_dir()):
        reason = "is a folder" if junit.is_dir() else "there is no such folder"
        raise click.BadParameter(f"{junit if junit.is_dir() else junit.parent}: {reason}", param_hint="--junit")
    with contextlib.redirect_stdout(sys.stderr):  # what training says
        found = verifying.verify(
            schedules, seeds=seeds, out=out, data=data, device=device, record=record, say=options.say
        )
    if junit is not None:
        write(junit, found)
    if as_json:
        click.echo(dumps({"schema": verifying.SCHEMA, **found.model_dump(mode="json")}, indent=2))
    else:
        for line in lines(found, options.width(wide)):
            click.echo(line)
    if found.exit_code:
        raise click.exceptions.Exit(found.exit_code)
