"""compress compare"""

import re
from pathlib import Path

import click

from compressor.cli import options
from compressor.errors import UserError
from compressor.strict_json import dumps

_UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


class _Size(click.ParamType[int]):
    """A number of bytes, with or without a unit."""

    name = "SIZE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number of bytes."""
        found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]*)\s*", str(value))
        factors = {unit.lower(): factor for unit, factor in _UNITS.items()}
        if found is None or found[2].lower() not in factors:
            units = ", ".join(unit for unit in _UNITS if unit)
            self.fail(f"{value!r} should be a number of bytes, or one with a unit ({units}), like 1.5MB", param, ctx)
        return round(float(found[1]) * factors[found[2].lower()])


class _Fraction(click.ParamType[float]):
    """A fraction, as in schedules, or a number of percent with its sign."""

    name = "FRACTION"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the fraction."""
        found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(%?)\s*", str(value))
        fraction = None if found is None else float(found[1]) / (100 if found[2] else 1)
        if fraction is None or fraction > 1:
            self.fail(f"{value!r} should be a fraction, like 0.9, or a number of percent, like 90%", param, ctx)
        return fraction


_POINTS = click.FloatRange(min=0)


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN_A RUN_B ...")
@click.option(
    "--max-drop", type=_POINTS, metavar="POINTS", help="Limit: how far the mean test top-1 may be below RUN_A's."
)
@click.option("--max-class-drop", type=_POINTS, metavar="POINTS", help="Limit: the same for each class.")
@click.option(
    "--min-sparsity", type=_Fraction(), help="Limit: least sparsity, of the dense network's weights: 0.9, or 90%."
)
@click.option(
    "--max-size", type=_Size(), help="Limit: most bytes of the smallest stored form; also with a unit: 300kB."
)
@click.option(
    "--max-latency",
    type=click.FloatRange(min=0, min_open=True),
    metavar="MS",
    help="Limit: longest median time of one image, measured here.",
)
@options.no_latency
@options.allow_plugins
@options.wide
@options.as_json
@options.html("compare.html in the working directory")
def compare(
    runs: tuple[Path, ...],
    max_drop: float | None,
    max_class_drop: float | None,
    min_sparsity: float | None,
    max_size: int | None,
    max_latency: float | None,
    no_latency: bool,
    wide: bool,
    as_json: bool,
    html: str | None,
) -> None:
    """Compare finished runs with RUN_A: accuracy, sparsity, size, latency, time, and what was set differently.

    Runs that differ in their seed alone are a group: its mean and standard deviation are shown, and the 95 % interval
    of the difference to RUN_A's group over runs of equal seeds (Student's t). Exit 0; 1 where a limit is not met or
    cannot be decided; 2 where a run is not finished or a limit needs what was not recorded.
    """
    from compressor.experiment.comparing import Limits, compare

    if no_latency and max_latency is not None:
        raise UserError("--max-latency needs the time that --no-latency does not measure: leave one of them out")
    limits = Limits(
        max_drop=max_drop,
        max_class_drop=max_class_drop,
        min_sparsity=min_sparsity,
        max_size=max_size,
        max_latency=max_latency,
    )
    found = compare(runs, limits, measures=not no_latency)
    if html is not None:
        from compressor.experiment.drawing import draw_comparison

        click.echo(f"comparison: {draw_comparison(found, Path(html or 'compare.html'))}", err=as_json)
    if as_json:
        click.echo(dumps(found.model_dump(mode="json", by_alias=True), indent=2))
    elif html is None:
        from compressor.experiment.comparison_text import lines

        for line in lines(found, options.width(wide)):
            click.echo(line)
    for note in found.notes:
        click.echo(f"note: {note}", err=True)
    if as_json or html is not None:
        for one in found.judged:
            click.echo(one.text, err=True)
    if not found.held:
        raise click.exceptions.Exit(1)
