"""Checkpoints and weights of other tools, loaded into their networks, with the data that belong to them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import compressor
from compressor import data, lookup, models
from compressor.config import Config, InitConfig
from compressor.data import DataSet
from compressor.errors import UserError
from compressor.experiment import building, folder
from compressor.experiment.identity import same_data
from compressor.experiment.networks import Networks
from compressor.experiment.outputs import check_outputs
from compressor.experiment.specification import Specification, specification
from compressor.importing import refusal
from compressor.reports import Thinning
from compressor.schedule import Faults, parse
from compressor.thinning import describe
from compressor.training import Found, checkpoint, load_weights, read


@dataclass(frozen=True)
class Loaded:
    """A loaded checkpoint, or weights of another tool under a configuration: its network and what was recorded."""

    config: Config
    network: nn.Module
    saved: dict[str, Any]
    networks: Networks
    own: bool = True
    """Whether it is a checkpoint of `compress`, which knows the data that it was trained on."""

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
        network = self.networks.to_load(len(self.saved["classes"]))
        if "architecture" not in self.saved:  # how long a maximum takes depends on the values: they should be the same
            network.load_state_dict(self.network.state_dict())
        elif self.networks.own:  # a factory's network comes without its weights
            draws = torch.Generator().manual_seed(0)
            for parameter in network.parameters():
                nn.init.normal_(parameter, std=0.02, generator=draws)
        return network


Say = Callable[[str], None]


def load(
    path: Path,
    config: str | None = None,
    sets: Sequence[tuple[str, str]] = (),
    *,
    root: Path | None = None,
    say: Say = lambda text: None,
) -> Loaded:
    """Return a run's folder (its checkpoint.pt), a checkpoint, or the weights of another tool, loaded.

    `config`, with `sets`: the configuration that has the model and the data of such weights; without one, the file may
    name a model of which there is a single shipped configuration. `say` receives what was read. The data are only read
    where shape and classes of the images are not known by name. Raises `UserError` where there are no such weights.
    """
    if path.is_dir():
        if not (path / folder.CHECKPOINT).is_file():
            older = checkpoint.older_copy(path / folder.CHECKPOINT)
            raise UserError(f"{path}: no {folder.CHECKPOINT} in this folder (yet){older}")
        path = path / folder.CHECKPOINT
    given = None if config is None else specification(None, config, sets, init=str(path))
    found = read(path, given.config.start.weights if given else None)
    if found.own is not None:
        if config is not None or sets:
            raise UserError(f"{path} has its own configuration: leave out {'--config' if config else '--set'}")
        return _own(path, found.own)
    return _foreign(path, found, given or _shipped_for(found, path, sets, say), root, say)


def _own(path: Path, saved: checkpoint.Checkpoint) -> Loaded:
    try:
        config = Config.model_validate(saved["config"])
    except ValueError as error:
        raise UserError(f"{path}: its configuration cannot be read: {str(error).splitlines()[0]}") from None
    for key, name in config.own_code.items():
        if refused := refusal(name):
            raise UserError(f"{path}: {key} of its configuration: {refused}")
    channels, height, width = saved["shape"]
    networks = Networks(config, (channels, height, width))
    network = networks.to_load(len(saved["classes"]))
    load_weights(network, saved, str(path))
    return Loaded(config, network.eval(), saved, networks)


def network(path: Path, config: str | None = None) -> nn.Module:
    """Return the network of what `load` takes, with its own outputs where it gives several."""
    return models.as_built(load(path, config).network)


def _foreign(path: Path, found: Found, spec: Specification, root: Path | None, say: Say) -> Loaded:
    """Return the weights of another tool in the network of a configuration, with a record like that of a checkpoint."""
    config = spec.config
    shape, count = data.image_shape(config.data), data.class_count(config.data.name)
    classes = [str(number) for number in range(config.model.num_classes or count or 0)]
    if shape is None or not classes:
        dataset = building.load_data(config, root)
        shape, classes = dataset.shape, list(dataset.classes)
    networks = Networks(config, shape)
    network = networks.to_load(len(classes))
    dense = describe(network)
    # A new head would measure nothing of the file: `head` of the configuration is for training from it.
    start = InitConfig(path=str(path), strict=spec.config.start.strict)
    for line in building.put(network, found, start, shape):
        say(line)
    check_outputs(config, network.eval(), shape, config.data.name, len(classes))
    saved: dict[str, Any] = {
        "format": checkpoint.FORMAT,
        "version": compressor.__version__,
        "model": network.state_dict(),
        "config": spec.config_data,
        "schedule": None,
        "shape": list(shape),
        "classes": classes,
        "epoch": found.epoch or 0,
        "metrics": {},
        "thinnings": [],
        "figures": {},
    }
    if (thin := describe(network)) != dense:
        saved["architecture"] = thin
    return Loaded(config, network, saved, networks, own=False)


def _shipped_for(found: Found, path: Path, sets: Sequence[tuple[str, str]], say: Say) -> Specification:
    """Return the shipped configuration of the model that a file of another tool names.

    Raises `UserError` where it names none, or where there is none or more than one for it.
    """
    name = found.arch or path.name.partition("-")[0]
    fitting = {}
    for config, file in lookup.shipped_files("configs").items():
        block = parse(str(file), file.read_text(encoding="utf-8"), Faults()).data
        if "/" not in config and block["model"]["name"] == name:
            fitting[config] = str(block["data"]["name"])
    of_its_data = [config for config, images in fitting.items() if f"_{images.rstrip('0123456789')}" in name]
    chosen = list(fitting) if len(fitting) == 1 else of_its_data
    if len(chosen) != 1:
        says = f"it names the model {found.arch!r}" if found.arch else "it names no model"
        known = f"; shipped for {name}: {', '.join(fitting)}" if fitting else ""
        raise UserError(
            f"{path}: weights of another tool ({says}): give the configuration of their model and data with"
            f" --config{known}"
        )
    say(f"{path}: it names the model {name}: read under the configuration {chosen[0]}; --config gives another one")
    return specification(None, chosen[0], sets, init=str(path))


def dataset_of(loaded: Loaded, path: Path, root: Path | None, say: Say, *, other_data: bool) -> DataSet:
    """Return the data set on which a checkpoint was trained; for weights of another tool that of the configuration.

    Raises `UserError` where the one here is another, unless that is accepted by `other_data`.
    """
    dataset = building.load_data(loaded.config, root)
    for note in dataset.notes:
        say(note)
    if not loaded.own:
        return _expected(dataset, loaded, path)
    return same_data(dataset, loaded.saved, path, other_data=other_data, say=say)


def _expected(dataset: DataSet, loaded: Loaded, path: Path) -> DataSet:
    """Return the data set. Raises `UserError` where it has other images or more classes than the network's."""
    outputs = len(loaded.saved["classes"])
    if dataset.shape != loaded.shape or len(dataset.classes) > outputs:
        raise UserError(
            f"{path}: its network has {outputs} outputs for images of {loaded.shape}, {dataset.name} here has"
            f" {len(dataset.classes)} classes and images of {dataset.shape}"
        )
    return dataset
