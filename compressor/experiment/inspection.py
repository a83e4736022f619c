"""The answers about a finished or interrupted run: its test accuracy, its report; and, before one, the plan of a
schedule and the channel groups of a network.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from compressor import data
from compressor.data import DataFeed, DataSet
from compressor.errors import CompressError, UserError
from compressor.experiment import building, folder
from compressor.experiment.binding import bind
from compressor.experiment.loading import Loaded, Say, dataset_of, load
from compressor.experiment.more_epochs import earlier_tests
from compressor.experiment.networks import Networks, needs_data
from compressor.experiment.specification import Specification, specification
from compressor.files import replace_text
from compressor.policies.policy import View
from compressor.reports import Report, compared, measure
from compressor.schedule import Faults, Message, Plan, make_plan
from compressor.tables import wrapped
from compressor.thinning import (
    ChannelGraph,
    Group,
    Untraceable,
    channel_graph,
    groups,
    groups_as_svg,
    groups_as_table,
    in_short,
)
from compressor.timing import Clock
from compressor.training import checkpoint, evaluate, narrower_layers, read


def best_of(run: Path) -> list[str]:
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
    for line in best_of(path) if path.is_dir() else ():
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
    return report_of(load(path, config, sets, root=root, say=say), measures=measures)


def report_of(loaded: Loaded, *, measures: bool = True) -> Report:
    """Return the same of what is loaded."""
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


@dataclass(frozen=True)
class Explained:
    """The channel groups of a network on images of one shape (C, H, W)."""

    model: str
    image: tuple[int, int, int]
    graph: ChannelGraph
    groups: tuple[Group, ...]

    def data(self) -> dict[str, Any]:
        """Return it as plain data for JSON."""
        return {"schema": 1, "model": self.model, "image": list(self.image), "groups": [g.data() for g in self.groups]}

    def text(self, width: int | None) -> str:
        """Return it as a table of at most `width` columns; None: any."""
        said = f"{self.model} on images of {'x'.join(map(str, self.image))}: {in_short(self.groups)}"
        lines = [wrapped(said, width), "", *groups_as_table(self.groups, width)]
        return "\n".join(lines)

    def draw(self, path: Path) -> None:
        """Write it as an SVG file. Raises `UserError` where the file cannot be written; an older one is unchanged."""
        try:
            replace_text(path, groups_as_svg(self.graph, self.groups, self.model))
        except CompressError as error:
            raise UserError(str(error)) from None


def explain(
    path: Path | None,
    root: Path | None,
    say: Say,
    *,
    config: str | None,
    sets: Sequence[tuple[str, str]],
) -> Explained:
    """Return the channel groups of a checkpoint's network; without one, of a configuration's, before any run.

    `say` receives warnings. Raises `UserError` for wrong input, `Untraceable` where the network cannot be followed.
    """
    if path is not None:
        loaded = load(path, config, sets, root=root, say=say)
        graph = channel_graph(loaded.network, loaded.shape)
        return Explained(loaded.config.model.name, loaded.shape, graph, groups(graph))
    if config is None:
        raise UserError("there is no network to explain: give a CHECKPOINT, or --config with the model")
    spec, faults = specification(None, config, sets), Faults()
    known = _known_data(spec, root)
    networks = Networks(spec.config, known.shape if known else data.image_shape(spec.config.data))
    _, view = bind(spec, faults, networks, known=known)
    faults.raise_any()
    if view is None or view.image is None:
        raise UserError("the shape of the images is not known: set data.size, or give --data")
    for note in _narrower(spec, view):
        say(note)
    if not isinstance(view.graph, ChannelGraph):
        raise view.graph or Untraceable("its channels cannot be traced")
    return Explained(spec.config.model.name, view.image, view.graph, groups(view.graph))


def _known_data(spec: Specification, root: Path | None) -> DataSet | None:
    """Return the data where a factory may need what only they tell, and they are there."""
    if needs_data(spec.config):
        with suppress(UserError):  # they may be elsewhere
            return building.load_data(spec.config, root)
    return None


def plan(spec: Specification, root: Path | None, steps: int | None = None) -> tuple[Plan, list[str]]:
    """Return the plan of a schedule under its configuration, and warnings. Data are only read where steps count and it
    is not known how many `steps` an epoch has, or where a factory may need their shape.

    Raises `UserError` for names that match nothing in the model.
    """
    faults, known = Faults(), _known_data(spec, root)
    networks = Networks(spec.config, known.shape if known else data.image_shape(spec.config.data))
    bound, view = bind(spec, faults, networks, known=known)
    faults.raise_any()
    warnings: list[str] = [*bound.notes, *_narrower(spec, view)]
    if view is None:
        raise UserError("\n".join(warnings))
    if steps is None and any(policy.policy.counts_steps for policy in bound.policies):
        try:
            dataset = building.load_data(spec.config, root)
            warnings += dataset.notes
            steps = DataFeed(dataset, spec.config.data, spec.config.seed, torch.device("cpu")).steps_per_epoch
        except UserError as error:
            warnings.append(f"warning: each epoch counts as 1 step, because the data were not found: {error}")
    clock = Clock(spec.config.epochs, steps or 1)
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
        architecture = building.architecture_of(view.model, found)
        narrower = narrower_layers(view.model, found.tensors, source, view.image, architecture)
    except UserError:  # `train` says it, where it knows the data, too
        return []
    said = f"init: {source}: {narrower}; this shows the model's own widths, `train` takes those of the file"
    return [Message(spec.config_document.place(("init", "path")), said, "note")] if narrower else []
