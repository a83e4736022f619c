"""`compress summary`: the layers and the graph of a network, by whatever names it."""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import nn

from compressor import data, lookup, models
from compressor.config import ModelConfig
from compressor.errors import CompressError, UserError, did_you_mean
from compressor.experiment import building
from compressor.experiment.differences import kinds
from compressor.experiment.fitting import fitting
from compressor.experiment.loading import Say, load
from compressor.experiment.networks import Networks, needs_data
from compressor.experiment.outputs import Shape
from compressor.experiment.specification import specification
from compressor.files import replace_text
from compressor.importing import refusal
from compressor.reports import Summary, network_as_svg, summarize
from compressor.schedule import parse_value

_LARGE: list[Shape] = [(3, 224, 224), (3, 299, 299), (1, 224, 224)]
_SMALL: list[Shape] = [(3, 32, 32), (1, 28, 28), (3, 28, 28), (1, 32, 32), (1, 8, 8), (3, 64, 64)]
"""The images that are tried where nothing says them, for models of a thousand classes and for others."""

Sets = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class _Named:
    """A network, the images that it takes, its name, and whether it has the weights of a checkpoint."""

    network: nn.Module
    shape: Shape
    name: str
    trained: bool = False


def summary(name: str, config: str | None, sets: Sets, root: Path | None, image: str | None, say: Say) -> Summary:
    """Return the summary of a run, a checkpoint, a configuration or a model of the catalogue.

    `config`, `sets`: of weights of another tool; `sets` also of a configuration, or `model.NAME` of a model. `image`:
    C, H, W as 3x32x32, where it is not known or another is wanted. `root` has the data where only these tell their
    shape. Raises `UserError` where nothing has this name, or the network does not take the images.
    """
    wanted = None if image is None else _shape(image)
    found = _find(name, config, sets, root, wanted, say)
    shape = wanted or found.shape
    try:
        return summarize(found.network, shape, found.name, trained=found.trained)
    except CompressError:
        raise
    except Exception as error:  # whatever a network's forward raises
        first = (str(error).splitlines() or [""])[0]
        size = "x".join(map(str, shape))
        raise UserError(f"{found.name} does not take images of {size}: {first}; --image gives others") from None


def draw(found: Summary, path: Path) -> None:
    """Write the graph as an SVG file. Raises `UserError` where it cannot be written; an older file is unchanged."""
    try:
        replace_text(path, network_as_svg(found))
    except CompressError as error:
        raise UserError(str(error)) from None


def _shape(text: str) -> Shape:
    found = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text)
    if found is None or not all(map(int, found.groups())):
        raise UserError(f"--image {text}: should be CxHxW, as in 3x32x32")
    channels, height, width = map(int, found.groups())
    return channels, height, width


def _find(name: str, config: str | None, sets: Sets, root: Path | None, image: Shape | None, say: Say) -> _Named:
    path = Path(name)
    if path.exists() and path.suffix not in (".yaml", ".yml"):
        loaded = load(path, config, sets, root=root, say=say)
        return _Named(loaded.network, loaded.shape, loaded.config.model.name, trained=True)
    if config is not None:
        raise UserError(f"--config is for weights of another tool: {name} is no file with weights")
    if ":" not in name and name not in models.catalogue():
        try:
            lookup.find(name, "configs")
        except UserError as error:
            known = {*models.catalogue(), *lookup.names("configs")}
            if path.suffix in (".yaml", ".yml") or "/" in name:
                raise error from None
            raise UserError(
                f"there is no run, checkpoint, configuration or model {name!r}: {did_you_mean(name, known)}"
            ) from None
        if kinds(name) == ["schedules"]:
            raise UserError(f"{name} is a schedule, which has no network: give its configuration")
        return _of_config(name, sets, root, image)
    return _of_model(name, sets, image)


def _of_config(name: str, sets: Sets, root: Path | None, image: Shape | None) -> _Named:
    spec = specification(None, name, sets)
    config, known = spec.config, None
    if needs_data(config) or data.image_shape(config.data) is None:
        with suppress(UserError):  # they may be elsewhere
            known = building.load_data(config, root)
    shape = image or (known.shape if known else data.image_shape(config.data))
    if shape is None:
        raise UserError("the shape of the images is not known: set data.size, give --data, or --image CxHxW")
    classes = config.model.num_classes or (len(known.classes) if known else data.class_count(config.data.name))
    networks = Networks(config, shape)
    try:
        network = networks.skeleton(classes)
    except models.NeedsImages:  # lazy layers: their sizes come from the images
        network = building.model(config.model, classes, trained_elsewhere=True, image=shape)
    return _Named(network, shape, config.model.name)


def _of_model(name: str, sets: Sets, image: Shape | None) -> _Named:
    """Return a network of the catalogue, or of a factory, with the first images that it takes."""
    if ":" in name and (refused := refusal(name)):
        raise UserError(f"{name}: {refused}")
    arguments: dict[str, Any] = {}
    for key, text in sets:
        if not key.startswith("model."):
            raise UserError(f"--set {key}: only arguments of the model are set here (model.NAME=VALUE)")
        arguments[key.removeprefix("model.")] = parse_value(text, f"--set {key}={text}")
    try:
        model = ModelConfig.model_validate({"name": name, **arguments})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UserError(f"--set model.{first['loc'][0]}: {first['msg']}, got {first['input']!r}") from None
    own = models.arguments(name).get("num_classes")
    large = own is None or not isinstance(own.default, int) or own.default > 100
    tried = [image] if image is not None else [*_LARGE, *_SMALL] if large else [*_SMALL, *_LARGE]
    try:
        found = fitting(model, "the", None, tried)
    except UserError as error:
        how = "" if image is not None else "; --image CxHxW gives others"
        raise UserError(f"{error}{how}") from None
    return _Named(found.network, found.shape, name)
