"""The command line: parse, call one function, print. torch is imported inside the commands only."""

import os
import sys
import traceback
from typing import Any

import click

from compressor.cli import streams
from compressor.cli.compare import compare
from compressor.cli.convert import convert
from compressor.cli.diff import diff
from compressor.cli.evaluate import evaluate
from compressor.cli.exporting import export
from compressor.cli.listing import listing
from compressor.cli.new import new
from compressor.cli.plan import plan
from compressor.cli.report import report
from compressor.cli.schema import schema
from compressor.cli.summary import summary
from compressor.cli.sweep import sweep
from compressor.cli.thin import thin
from compressor.cli.train import train
from compressor.cli.validate import validate
from compressor.cli.verify import verify
from compressor.errors import CompressError
from compressor.importing import blame


class _Commands(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        """Run a command. Raises `CompressError` where the code of a plugin leaves Python: a command returns."""
        try:
            return super().invoke(ctx)
        except SystemExit as error:
            raise CompressError(f"a plugin left Python: {blame(error)}") from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="compressor", prog_name="compress")
def cli() -> None:
    """Compress image classifiers from a schedule file: prune, regularize, report."""


_COMMANDS = (
    *(new, train, validate, plan, diff, convert),
    *(evaluate, report, compare, verify, sweep, summary, thin, export, listing, schema),
)
for command in _COMMANDS:
    cli.add_command(command)


def main() -> None:
    """Run `compress`: exit 0 done, 2 the user must correct something, 1 failed while running, 128 + n on signal n."""
    streams.prepare()
    try:
        code = cli(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except CompressError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of a pipe has gone; nothing is left to say
        streams.leave_stdout()
        sys.exit(1)
    except OSError as error:  # a path given by the user; what breaks while running is a CompressError
        if error.filename is None:
            click.echo(f"error: the output cannot be written: {error.strerror or error}", err=True)
            streams.leave_stdout()
            sys.exit(1)
        click.echo(f"error: {error.filename}: {error.strerror or error}", err=True)
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except Exception as error:
        if os.environ.get("COMPRESS_DEBUG"):
            traceback.print_exc()
        first = (str(error).splitlines() or [""])[0]
        hint = "COMPRESS_DEBUG=1 shows the traceback"
        click.echo(f"error: {type(error).__name__}: {first} (internal error; {hint})", err=True)
        sys.exit(1)
