"""The answers about a finished or interrupted run: its test accuracy, its report; and the plan of a schedule."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from compressor import data
from compressor.data import DataFeed
from compressor.errors import UserError
from compressor.experiment import building, folder
from compressor.experiment.binding import bind
from compressor.experiment.loading import Say, dataset_of, load
from compressor.experiment.more_epochs import earlier_tests
from compressor.experiment.networks import Networks, needs_data
from compressor.experiment.specification import Specification
from compressor.policies.policy import View
from compressor.reports import Report, compared, measure
from compressor.schedule import Faults, Message, Plan, make_plan
from compressor.timing import Clock
from compressor.training import checkpoint, evaluate, narrower_layers, read


def _best_of(run: Path) -> list[str]:
    """Return a line where the best.pt of a run's folder, which `--init` reads, is of another epoch than its last."""
    last, best = (checkpoint.epoch(run / name) for name in (folder.CHECKPOINT, folder.BEST))
    if last is None or best is None or best == last:
        return []
    return [f"{run}: read {folder.CHECKPOINT} (epoch {last}, the last); {folder.BEST} is of epoch {best}"]


def test_accuracy(
    path: Path,
    root: Path | None,
    wanted_device: str,
    say: Say,
    *,
    other_data: bool,
    config: str | None,
    sets: Sequence[tuple[str, str]],
) -> dict[str, float]:
    """Return loss, top-1 and top-5 (percent) of a checkpoint on the test images; `say` receives warnings, and which
    file of a run's folder was read where its best.pt is another.

    `other_data`: on other images than it was trained on. `config`, `sets`: of weights of another tool.
    """
    loaded = load(path, config, sets, root=root, say=say)
    where = building.device(wanted_device)
    dataset = dataset_of(loaded, path, root, say, other_data=other_data)
    feed = DataFeed(dataset, loaded.config.data, loaded.config.seed, where)
    figures = evaluate(loaded.network.to(where), feed.test(), where, loaded.config)
    for line in _best_of(path) if path.is_dir() else ():
        say(line)
    return figures


def report(
    path: Path,
    *,
    measures: bool = True,
    config: str | None = None,
    sets: Sequence[tuple[str, str]] = (),
    root: Path | None = None,
    say: Say = lambda text: None,
) -> Report:
    """Return the sparsity report of a run or a checkpoint, with its recorded test accuracy; `measures`: and latency.

    `config`, `sets`: of weights of another tool; `root` has the data where only these tell the images' shape.
    """
    loaded = load(path, config, sets, root=root, say=say)
    stage = "thin" if "architecture" in loaded.saved else "masked"
    with torch.no_grad():
        dense = loaded.dense()
        before = dense if stage == "thin" else None
        metrics, figures = loaded.saved["metrics"], loaded.saved.get("figures")
        shape, thinnings = loaded.shape, loaded.thinnings
        measured = measure(
            loaded.network,
            shape,
            metrics.get("test"),
            thinnings,
            before,
            figures,
            metrics.get("train"),
            loaded.saved["classes"],
        ).model_copy(update={"earlier_tests": earlier_tests(metrics)})
        stages = {"dense": dense, stage: loaded.network}
        if stage == "masked" and all(row.nonzero == row.weights for row in measured.tensors):
            del stages["masked"]
        return compared(measured, stages, loaded.shape, measures=measures)


def plan(spec: Specification, root: Path | None) -> tuple[Plan, list[str]]:
    """Return the plan of a schedule under its configuration, and warnings. Data are only read where steps count, or a
    factory may need their shape.

    Raises `UserError` for names that match nothing in the model.
    """
    faults, known = Faults(), None
    if needs_data(spec.config):
        with suppress(UserError):  # they may be elsewhere
            known = building.load_data(spec.config, root)
    networks = Networks(spec.config, known.shape if known else data.image_shape(spec.config.data))
    bound, view = bind(spec, faults, networks, known=known)
    faults.raise_any()
    warnings: list[str] = [*bound.notes, *_narrower(spec, view)]
    if view is None:
        raise UserError("\n".join(warnings))
    steps = 1
    if any(policy.policy.counts_steps for policy in bound.policies):
        try:
            dataset = building.load_data(spec.config, root)
            warnings += dataset.notes
            steps = DataFeed(dataset, spec.config.data, spec.config.seed, torch.device("cpu")).steps_per_epoch
        except UserError as error:
            warnings.append(f"warning: each epoch counts as 1 step, because the data were not found: {error}")
    clock = Clock(spec.config.epochs, steps)
    return make_plan(bound.policies, view, clock), warnings


def validate(spec: Specification, faults: Faults) -> list[Message]:
    """Bind a schedule to its configuration's model, without data; what does not fit becomes a fault.

    Returns the warnings.
    """
    bound, view = bind(spec, faults, Networks(spec.config, data.image_shape(spec.config.data)))
    return [*bound.notes, *_narrower(spec, view)]


def _narrower(spec: Specification, view: View | None) -> list[Message]:
    """Return a line where the file of `init:` makes layers narrower than the model's, which is what is planned for."""
    source = spec.config.checkpoint_path
    if source is None or view is None or view.image is None:
        return []
    try:
        found = read(Path(source), spec.config.start.weights)
        architecture = None if found.own is None else found.own.get("architecture", {})
        narrower = narrower_layers(view.model, found.tensors, source, view.image, architecture)
    except UserError:  # `train` says it, where it knows the data, too
        return []
    said = f"init: {source}: {narrower}; this shows the model's own widths, `train` takes those of the file"
    return [Message(spec.config_document.place(("init", "path")), said, "note")] if narrower else []
