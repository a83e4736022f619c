"""The command line: parse, call one function, print. torch is imported inside the commands only."""

import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import click

from compressor import torchrun
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
from compressor.errors import CompressError, UserError
from compressor.importing import blame


class _Commands(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        """Run a command. Raises `CompressError` where the code of a plugin leaves Python: a command returns."""
        try:
            return super().invoke(ctx)
        except SystemExit as error:
            raise CompressError(f"a plugin left Python: {blame(error)}") from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that was asked for. Raises `UserError` where several processes would run it."""
        found = super().resolve_command(ctx, args)
        if found[1] is not train and torchrun.size() > 1:
            raise UserError(f"compress {found[0]} runs in one process: start it without torchrun")
        return found


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
        _end(error.show, error.exit_code)
    except CompressError as error:
        _end(f"error: {error}", error.exit_code)
    except BrokenPipeError:  # the reader of a pipe has gone; nothing is left to say
        streams.leave_stdout()
        sys.exit(1)
    except OSError as error:  # a path given by the user; what breaks while running is a CompressError
        if error.filename is None:
            _end(f"error: the output cannot be written: {error.strerror or error}", 1, streams.leave_stdout)
        _end(f"error: {error.filename}: {error.strerror or error}", 2)
    except (KeyboardInterrupt, click.Abort):
        _end("interrupted", 130)
    except Exception as error:
        if os.environ.get("COMPRESS_DEBUG"):
            traceback.print_exc()
        first = (str(error).splitlines() or [""])[0]
        hint = "COMPRESS_DEBUG=1 shows the traceback"
        _end(f"error: {type(error).__name__}: {first} (internal error; {hint})", 1)


def _end(message: str | Callable[[], object], code: int, then: Callable[[], object] = lambda: None) -> NoReturn:
    """End with a message on stderr. Of several processes the first one that ends shows its own, the others nothing."""
    with streams.last_word() as has_it:
        if has_it and callable(message):
            message()
        elif has_it:
            click.echo(f"{message}", err=True)
        then()
        torchrun.leave(code)
