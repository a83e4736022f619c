"""Runs of a sweep that were never trained, small enough for a pencil."""

from compressor.reports import RunFigures, SweptRun

SPARSITY, LR = "schedule.pruners.fine.sparsity", "optimizer.lr"


def run(
    settings: dict[str, str], seed: int, top1: float | None, sparsity: float = 0.0, milliseconds: float = 2.0
) -> SweptRun:
    """A finished run of 8,000 bytes where it is dense; without an accuracy one that failed."""
    name = "-".join([*settings.values(), str(seed)])
    if top1 is None:
        return SweptRun(name=name, settings=settings, seed=seed, status="failed", failure="it <broke> & burnt")
    figures = {"top1": top1, "sparsity": sparsity, "bytes": round(8000 * (1 - sparsity))}
    own = RunFigures(run=name, seed=seed, figures=figures, classes={}, layers={})
    return SweptRun(
        name=name, settings=settings, seed=seed, status="finished", figures=own, latency=(milliseconds, 0.1)
    )


def sweep() -> list[SweptRun]:
    """Four settings of two seeds: sparsity 0, 0.5 and 0.75 at one learning rate, and 0.75 at another one."""
    made = []
    for sparsity, lr, top1, milliseconds in (
        (0.0, 0.1, 95, 2),
        (0.5, 0.1, 93, 2),
        (0.75, 0.1, 90, 1),
        (0.75, 1, 60, 1),
    ):
        settings = {SPARSITY: str(sparsity), LR: str(lr)}
        made += [run(settings, seed, top1 - 1 + 2 * seed, sparsity, milliseconds) for seed in (0, 1)]
    return made
