"""What can be asked of a finished or broken-off run: its test accuracy and its report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compressor.config import Config
from compressor.data.feed import DataFeed
from compressor.data.images import DataSet
from compressor.errors import UserError
from compressor.experiment import building, folder
from compressor.experiment.binding import bind
from compressor.experiment.specification import Specification
from compressor.reports.report import Report, Thinning, compare, measure
from compressor.schedule.faults import Faults
from compressor.schedule.plan import Plan
from compressor.schedule.plan import make as make_plan
from compressor.timing.clock import Clock
from compressor.training import checkpoint
from compressor.training.evaluation import evaluate
from compressor.training.weights import load_weights


@dataclass(frozen=True)
class Loaded:
    """A checkpoint brought back to life: its configuration, its network and what it recorded."""

    config: Config
    network: nn.Module
    saved: dict[str, Any]

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H, W of the images it was trained on."""
        channels, height, width = self.saved["shape"]
        return channels, height, width

    @property
    def thinnings(self) -> list[Thinning]:
        """What was removed from it."""
        return [Thinning.model_validate(record) for record in self.saved.get("thinnings", [])]

    def dense(self) -> nn.Module:
        """The network as it was before anything was removed, with fresh weights where something was."""
        network = building.model(self.config.model, len(self.saved["classes"]), trained_elsewhere=True)
        if "architecture" not in self.saved:  # how long a maximum takes depends on the values: they should be the same
            network.load_state_dict(self.network.state_dict())
        return network


def load(path: Path) -> Loaded:
    """A run's folder (its checkpoint.pt) or a checkpoint; raises `UserError` where it is neither."""
    if path.is_dir():
        if not (path / folder.CHECKPOINT).is_file():
            raise UserError(f"{path}: no {folder.CHECKPOINT} in this folder (yet)")
        path = path / folder.CHECKPOINT
    saved = checkpoint.load(path)
    try:
        config = Config.model_validate(saved["config"])
    except ValueError as error:
        raise UserError(f"{path}: its configuration cannot be read: {str(error).splitlines()[0]}") from None
    network = building.model(config.model, len(saved["classes"]), trained_elsewhere=True)
    load_weights(network, saved, str(path))
    return Loaded(config, network.eval(), saved)


def test_accuracy(path: Path, root: Path | None, wanted_device: str) -> dict[str, float]:
    """Loss, top-1 and top-5 of a checkpoint on the test images."""
    loaded = load(path)
    where = building.device(wanted_device)
    dataset = dataset_of(loaded, path, root)
    feed = DataFeed(dataset, loaded.config.data, loaded.config.seed, where)
    return evaluate(loaded.network.to(where), feed.test(), where, loaded.config)


def dataset_of(loaded: Loaded, path: Path, root: Path | None) -> DataSet:
    """The data set that a checkpoint was trained on; raises `UserError` where the one here is another."""
    dataset = building.load_data(loaded.config, root)
    if dataset.shape != loaded.shape or len(dataset.classes) != len(loaded.saved["classes"]):
        raise UserError(
            f"{path} was trained on images of {loaded.shape} in {len(loaded.saved['classes'])} classes,"
            f" {dataset.name} here has {dataset.shape} in {len(dataset.classes)}"
        )
    return dataset


def report(path: Path) -> Report:
    """The sparsity report of a run or a checkpoint, with the test accuracy that it recorded, and measured latency."""
    loaded = load(path)
    stage = "thin" if "architecture" in loaded.saved else "masked"
    with torch.no_grad():
        dense = loaded.dense()
        before = dense if stage == "thin" else None
        metrics, figures = loaded.saved["metrics"], loaded.saved.get("figures")
        shape, thinnings = loaded.shape, loaded.thinnings
        measured = measure(loaded.network, shape, metrics.get("test"), thinnings, before, figures, metrics.get("train"))
        stages = {"dense": dense, stage: loaded.network}
        if stage == "masked" and measured.totals.sparsity == 0:
            del stages["masked"]
        return measured.model_copy(update={"comparison": compare(stages, loaded.shape)})


def plan(spec: Specification, root: Path | None) -> tuple[Plan, list[str]]:
    """What a schedule will do under its configuration, and warnings. The data is looked at only where steps count.

    Raises `UserError` for names that match nothing in the model.
    """
    faults = Faults()
    bound, view = bind(spec, faults)
    faults.raise_any()
    assert view is not None
    warnings = list(bound.notes)
    steps = 1
    if any(policy.policy.counts_steps for policy in bound.policies):
        try:
            dataset = building.load_data(spec.config, root)
            steps = DataFeed(dataset, spec.config.data, spec.config.seed, torch.device("cpu")).steps_per_epoch
        except UserError as error:
            warnings.append(f"warning: steps are counted as 1 an epoch, for the data is not there: {error}")
    clock = Clock(spec.config.epochs, steps)
    return make_plan(bound.policies, view, clock), warnings


def validate(spec: Specification, faults: Faults) -> list[str]:
    """Bind a schedule to its configuration's model, without data; what does not fit becomes a fault.

    Returns the warnings.
    """
    bound, _ = bind(spec, faults)
    return list(bound.notes)
