"""The answers about a finished or interrupted run: its test accuracy, its report; and the plan of a schedule."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compressor import models
from compressor.config import Config
from compressor.data import DataFeed, DataSet
from compressor.errors import UserError
from compressor.experiment import building, folder
from compressor.experiment.binding import bind
from compressor.experiment.identity import same_data
from compressor.experiment.more_epochs import earlier_tests
from compressor.experiment.specification import Specification
from compressor.importing import refusal
from compressor.reports import Report, Thinning, compared, measure
from compressor.schedule import Faults, Message, Plan, make_plan
from compressor.timing import Clock
from compressor.training import checkpoint, evaluate, load_weights


@dataclass(frozen=True)
class Loaded:
    """A loaded checkpoint: its configuration, its network and what it recorded."""

    config: Config
    network: nn.Module
    saved: dict[str, Any]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return C, H, W of its training images."""
        channels, height, width = self.saved["shape"]
        return channels, height, width

    @property
    def thinnings(self) -> list[Thinning]:
        """Return the removals of channels."""
        return [Thinning.model_validate(record) for record in self.saved.get("thinnings", [])]

    def dense(self) -> nn.Module:
        """Return the network before channels were removed, with new weights where some were."""
        network = building.model(self.config.model, len(self.saved["classes"]), trained_elsewhere=True)
        if "architecture" not in self.saved:  # how long a maximum takes depends on the values: they should be the same
            network.load_state_dict(self.network.state_dict())
        return network


def load(path: Path) -> Loaded:
    """Return a run's folder (its checkpoint.pt) or a checkpoint, loaded. Raises `UserError` where it is neither."""
    if path.is_dir():
        if not (path / folder.CHECKPOINT).is_file():
            older = checkpoint.older_copy(path / folder.CHECKPOINT)
            raise UserError(f"{path}: no {folder.CHECKPOINT} in this folder (yet){older}")
        path = path / folder.CHECKPOINT
    saved = checkpoint.load(path)
    try:
        config = Config.model_validate(saved["config"])
    except ValueError as error:
        raise UserError(f"{path}: its configuration cannot be read: {str(error).splitlines()[0]}") from None
    for key, name in config.own_code.items():
        if refused := refusal(name):
            raise UserError(f"{path}: {key} of its configuration: {refused}")
    network = building.model(config.model, len(saved["classes"]), trained_elsewhere=True)
    load_weights(network, saved, str(path))
    return Loaded(config, network.eval(), saved)


def network(path: Path) -> nn.Module:
    """Return the network of a run's folder or a checkpoint, with its own outputs where it gives several."""
    return models.as_built(load(path).network)


def test_accuracy(
    path: Path, root: Path | None, wanted_device: str, say: Callable[[str], None], *, other_data: bool
) -> dict[str, float]:
    """Return loss, top-1 and top-5 (percent) of a checkpoint on the test images; `say` receives warnings.

    `other_data`: on other images than it was trained on.
    """
    loaded = load(path)
    where = building.device(wanted_device)
    dataset = dataset_of(loaded, path, root, say, other_data=other_data)
    feed = DataFeed(dataset, loaded.config.data, loaded.config.seed, where)
    return evaluate(loaded.network.to(where), feed.test(), where, loaded.config)


def dataset_of(
    loaded: Loaded, path: Path, root: Path | None, say: Callable[[str], None], *, other_data: bool
) -> DataSet:
    """Return the data set on which a checkpoint was trained. Raises `UserError` where the one here is another, unless
    that is accepted by `other_data`.
    """
    dataset = building.load_data(loaded.config, root)
    for note in dataset.notes:
        say(note)
    return same_data(dataset, loaded.saved, path, other_data=other_data, say=say)


def report(path: Path, *, measures: bool = True) -> Report:
    """Return the sparsity report of a run or a checkpoint, with its recorded test accuracy; `measures`: and latency."""
    loaded = load(path)
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
    """Return the plan of a schedule under its configuration, and warnings. Data are only read where steps count.

    Raises `UserError` for names that match nothing in the model.
    """
    faults = Faults()
    bound, view = bind(spec, faults)
    faults.raise_any()
    assert view is not None
    warnings: list[str] = list(bound.notes)
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
    bound, _ = bind(spec, faults)
    return list(bound.notes)
