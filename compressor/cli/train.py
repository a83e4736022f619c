"""compress train"""

from pathlib import Path

import click

from compressor.cli import completion, options, streams
from compressor.errors import CompressError


@click.command()
@click.option(
    "-s",
    "--schedule",
    shell_complete=completion.schedules,
    help="Schedule: a path or a bare name. Without one: plain dense training.",
)
@options.config
@options.sets
@click.option(
    "--init",
    metavar="CHECKPOINT",
    shell_complete=completion.files,
    help="Start from trained weights: a checkpoint, a run's folder (its best.pt), or another tool's.",
)
@click.option("--keep-zeros", is_flag=True, help="Hold the weights that are zero in that checkpoint at zero.")
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder. Default: runs/SCHEDULE-CONFIG-N.")
@options.data
@options.device
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Default: the configuration's.")
@options.allow_plugins
@click.option(
    "--smoke", is_flag=True, help="Try it: two steps an epoch, no target judged; then what the full run takes."
)
@click.option(
    "--resume",
    is_flag=True,
    help="Continue --out, else the newest unfinished run of these files; with more epochs: train it on.",
)
@options.other_data
@options.wide
def train(
    schedule: str | None,
    config: str | None,
    sets: list[tuple[str, str]],
    init: str | None,
    keep_zeros: bool,
    out: Path | None,
    data: Path | None,
    device: str,
    seed: int | None,
    smoke: bool,
    resume: bool,
    other_data: bool,
    wide: bool,
) -> None:
    """Train a model under a schedule; write checkpoints and a sparsity report.

    In several processes: torchrun --nproc-per-node N -m compressor train ...
    """
    streams.drop_lost_output()
    from compressor.experiment import folder, run
    from compressor.experiment.specification import specification
    from compressor.reports import formats

    if smoke and resume:
        raise click.UsageError("--smoke and --resume: a smoke run is never resumed, leave one of the two out")
    if other_data and not resume:
        raise click.UsageError("--other-data: it goes with --resume; a new run may have any data (--data)")
    if resume and out is not None and schedule is None and config is None and (out / folder.CONFIG).is_file():
        config = str(out / folder.CONFIG)
        schedule = str(out / folder.SCHEDULE) if (out / folder.SCHEDULE).is_file() else None
    spec = specification(schedule, config, sets, seed=seed, init=init, keep_zeros=keep_zeros)
    outcome = run.train(spec, out, data, device, resume, smoke=smoke, other_data=other_data)
    if outcome.report is None:
        click.echo(f"{outcome.folder}: finished already; `compress report {outcome.folder}` shows it")
        return
    click.echo(f"\n{formats.as_table(outcome.report, options.width(wide))}\nrun folder: {outcome.folder}")
    if outcome.estimate is not None:
        click.echo(outcome.estimate)
    if outcome.shortfalls:
        raise CompressError("\n".join(outcome.shortfalls))
