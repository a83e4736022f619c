"""compress sweep"""

from pathlib import Path

import click

from compressor.cli import options, streams
from compressor.errors import CompressError


class _On(click.ParamType[str]):
    """`ray`, or `ray:` and the address of a cluster."""

    name = "ray[:ADDRESS]"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the address, empty where none is given."""
        kind, colon, address = str(value).partition(":")
        if kind != "ray" or (colon and not address):
            self.fail(f"{value!r} should be ray, or ray:ADDRESS, like ray:10.0.0.1:6379", param, ctx)
        return address


@click.command()
@options.schedule
@options.config
@click.option(
    "--grid",
    multiple=True,
    callback=options.overrides,
    metavar="A.B=V,V...",
    help="Values of a key, which is named as for `train --set`. Given several times: all combinations.",
)
@click.option(
    "--seeds", type=click.IntRange(1, 1000), metavar="N", help="Seeds 0 to N - 1. Default: the configuration's."
)
@click.option("--out", type=click.Path(path_type=Path), help="The sweep's folder. Default: runs/sweep-SCHEDULE-CONFIG.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="J",
    help="Runs at the same time, each on one thread (or OMP_NUM_THREADS). Default: as many as the cores bear.",
)
@click.option("--on", type=_On(), help="Train on a Ray cluster. Without ADDRESS: this machine's, or a new one.")
@options.data
@options.device
@options.no_latency
@options.allow_plugins
@options.wide
def sweep(
    schedule: str,
    config: str | None,
    grid: list[tuple[str, str]],
    seeds: int | None,
    out: Path | None,
    jobs: int | None,
    on: str | None,
    data: Path | None,
    device: str,
    no_latency: bool,
    wide: bool,
) -> None:
    """Train every combination of a grid of settings, for several seeds; show accuracy against sparsity, size, latency.

    Each run is a folder in the sweep's folder, which gets results.csv and report.html, with the Pareto fronts. The same
    command goes on: finished runs are kept, others continued. With other values, keys or seeds runs are added. All
    runs are checked before the first one starts. Exit 0; 1 where a run failed (the others are trained); 2 where
    something must be corrected.
    """
    streams.drop_lost_output()
    from compressor.experiment import sweeping
    from compressor.experiment.drawing import draw_sweep
    from compressor.experiment.sweep_text import lines

    if on is not None and jobs is not None:
        raise click.UsageError("--jobs and --on: Ray runs as many at the same time as its nodes have cores")

    def queue(path: Path) -> sweeping.Queue:
        if on is not None:
            from compressor.experiment.ray_queue import RayQueue

            return RayQueue(path, on, device, data)
        from compressor.experiment.local_queue import LocalQueue

        return LocalQueue(path, jobs, device, data)

    found = sweeping.sweep(schedule, config, grid, seeds, out, queue, measures=not no_latency, say=options.say)
    page = draw_sweep(found)
    for line in lines(found, options.width(wide)):
        click.echo(line)
    click.echo(f"\nresults: {found.path / sweeping.RESULTS}\nreport: {page}")
    if found.failed:
        raise CompressError("\n".join(f"{run.name}: {run.failure}" for run in found.failed))
