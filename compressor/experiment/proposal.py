"""The choices for a new experiment: what fits a model, its images and a goal."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from torch import nn

from compressor import data, models
from compressor.config import InitConfig, ModelConfig
from compressor.data import Survey
from compressor.errors import UserError, listed
from compressor.experiment import building
from compressor.experiment.fitting import built, fitting
from compressor.importing import refusal
from compressor.schedule import view_of
from compressor.sparsity import computed, prunable
from compressor.thinning import ChannelGraph, removable
from compressor.training import read

FORMS = "filters:0.5 (half of the filters of each layer, removed) or elements:0.9 (90 % of the weights, set to zero)"
_OF_ANY_NAME = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_SIZES = (32, 64, 96, 128, 160, 192, 224, 299)
"""The lengths of an image's side that are tried, in pixels: those for which classifiers are made."""


@dataclass(frozen=True)
class Goal:
    """What is pruned, and which fraction of it."""

    kind: Literal["filters", "elements"]
    sparsity: float


@dataclass(frozen=True)
class Layers:
    """The weights that are pruned, of all that could be; `logits` make the classes."""

    chosen: tuple[str, ...]
    every: tuple[str, ...]
    logits: tuple[str, ...]


@dataclass(frozen=True)
class Proposal:
    """All choices for the two files. Epochs are counted from 0; windows end before their last number."""

    model: ModelConfig
    images: Survey
    goal: Goal
    layers: Layers
    init: str | None
    new_head: bool
    """Whether the layer that makes the logits begins with new weights, as the file is for other classes."""
    channels: int
    size: int | None
    """The side to which images are resized; None: as they are."""
    batch: int
    validation: float
    augment: tuple[str, ...]
    workers: int
    norm: Literal["batch", "layer", "none"]
    """The kind of normalization that the network has."""
    checkpoint: int
    """The bytes of one checkpoint: weights, and two averages of Adam."""
    epochs: int
    begin: int
    end: int


def goal_of(text: str) -> Goal:
    """Return the goal that a text like `filters:0.5` means. Raises `UserError` with the allowed forms."""
    kind, _, number = text.partition(":")
    try:
        sparsity = float(number)
    except ValueError:
        sparsity = -1.0
    if kind not in ("filters", "elements") or not 0 < sparsity < 1:
        raise UserError(f"--goal {text}: should be {FORMS}, with a number between 0 and 1")
    return Goal(kind, sparsity)  # type: ignore[arg-type]


def propose(model: ModelConfig, images: Survey, goal: Goal, init: str | None) -> Proposal:
    """Return the choices. Raises `UserError` where the model does not fit the images, or nothing can be pruned."""
    if ":" in model.name and (refused := refusal(model.name)):
        raise UserError(f"--model {model.name}: {refused}")
    model = _with_classes(model, images)
    network, channels, size = _fitting(model, images)
    side = size or images.side
    shape = (channels, side, side)
    layers = _layers(model, network, images, shape, goal)
    trained = init is not None or model.pretrained
    batch = next(
        size for least, size in ((50_000, 128), (5_000, 64), (500, 32), (100, 16), (0, 8)) if images.train >= least
    )
    epochs = _epochs(images.train, batch)
    epochs = epochs // 2 if trained else epochs
    begin = 1 if trained else epochs // 5
    return Proposal(
        model=model,
        images=images,
        goal=goal,
        layers=layers,
        init=init,
        new_head=init is not None and _needs_new_head(model, images, shape, init),
        channels=channels,
        size=size,
        batch=batch,
        validation=next((part for part in (0.1, 0.2) if images.train * part >= 10), 0.0),
        augment=_augment(images),
        workers=0 if data.fits(images.train + (images.test or 0), shape) else 4,
        norm=_norm(network),
        checkpoint=12 * sum(parameter.numel() for parameter in network.parameters()),
        epochs=epochs,
        begin=begin,
        end=begin + max(epochs * 2 // 5, 1),
    )


def _needs_new_head(model: ModelConfig, images: Survey, shape: tuple[int, int, int], source: str) -> bool:
    """Return whether the weights of a file fit only but for the layer that makes the logits.

    Raises `UserError` where they do not fit.
    """
    refused = None
    try:
        found = read(Path(source))
    except UserError as error:
        raise UserError(f"--init {error}") from None
    for head in ("keep", "reset"):
        try:
            building.put(built(model, len(images.classes), shape), found, InitConfig(path=source, head=head), shape)
        except UserError as error:
            refused = refused or error
        else:
            return head == "reset"
    raise UserError(f"--init {refused}")


def _epochs(images: int, batch: int) -> int:
    """Return the number of epochs from new weights: 90 of ImageNet's size, 40 of CIFAR's; of fewer images so many that
    there are 1,200 optimizer steps, from 30 to 100 epochs.
    """
    if images >= 10_000:
        return 90 if images >= 200_000 else 40
    return min(max(1_200 * batch // images, 30), 100)


def _with_classes(model: ModelConfig, images: Survey) -> ModelConfig:
    """Return the model for the classes of an image folder, whose number `validate` does not know.

    Raises `UserError` where arguments of a factory are missing.
    """
    parameters = models.arguments(model.name)
    given = {*model.arguments, "num_classes", "pretrained"}
    missing = [
        name
        for name, one in parameters.items()
        if ":" in model.name and one.default is one.empty and one.kind not in _OF_ANY_NAME and name not in given
    ]
    if missing:
        values = [len(images.classes) if "class" in name.lower() else "..." for name in missing]
        flags = " ".join(f"--set model.{name}={value}" for name, value in zip(missing, values, strict=True))
        what = "argument" if len(missing) == 1 else "arguments"
        raise UserError(f"--model {model.name}: it needs the {what} {listed(missing, 8)}: give {flags}")
    takes = "num_classes" in parameters or any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    if images.name != "imagefolder" or model.num_classes is not None or not takes:
        return model
    return model.model_copy(update={"num_classes": len(images.classes)})


def _fitting(model: ModelConfig, images: Survey) -> tuple[nn.Module, int, int | None]:
    """Return the network, and the number of channels and the size of the images that it takes: the first one of those
    that are tried. It is without storage where that is possible.

    Raises `UserError` where it takes none, or has too few outputs.
    """
    shapes = {(channels, size or images.side, size or images.side): size for channels, size in _tried(images)}
    try:
        found = fitting(model, images.name, len(images.classes), shapes)
    except UserError as error:
        raise UserError(
            f"--model {model.name}: {error} (tried up to {_SIZES[-1]} pixels, with 1 and 3 channels)"
        ) from None
    _check_columns(model, images, found.columns)
    return found.network, found.shape[0], shapes[found.shape]


def _tried(images: Survey) -> Iterator[tuple[int, int | None]]:
    """Yield channels and sizes: the images as they are first, then larger ones."""
    folder = images.name == "imagefolder"
    own = max([size for size in _SIZES[:7] if size <= images.side], default=_SIZES[0]) if folder else None
    for size in [own, *(size for size in _SIZES if size > (own or images.side))]:
        for channels in (images.channels, 4 - images.channels):
            yield channels, size


def _check_columns(model: ModelConfig, images: Survey, outputs: int) -> None:
    classes = len(images.classes)
    if outputs < classes:
        how = "--set model.num_classes=..." if model.num_classes else "give it an argument `num_classes`"
        raise UserError(f"--model {model.name}: it has {outputs} outputs, the images have {classes} classes: {how}")


def _layers(model: ModelConfig, network: nn.Module, images: Survey, shape: tuple[int, int, int], goal: Goal) -> Layers:
    """Return the weights that are pruned. Raises `UserError` where there are none."""
    view = view_of(network, image=shape, build=partial(built, model, len(images.classes), shape))
    every, logits = list(prunable(network)), view.logits or ()
    if goal.kind == "elements":
        chosen = [name for name in every if name not in logits] or every
        if not chosen:
            raise UserError(
                f"--model {model.name}: it has no convolution or linear layer whose weights could be pruned"
            )
        return Layers(tuple(chosen), tuple(every), logits)
    instead = "its filters cannot be removed; `--goal elements:0.9` sets single weights to zero"
    graph = view.graph
    if not isinstance(graph, ChannelGraph):
        raise UserError(f"--model {model.name}: {graph}: {instead}")
    chosen = removable(graph, every, [name for name in logits if name in every])
    chosen = [name for name in chosen if int(goal.sparsity * view.shapes[name][0] + 1e-9)]
    if not chosen:
        shared = "every layer makes the logits, or shares its channels with what cannot be pruned"
        why = next((one.reason for one in computed(network)), shared)
        raise UserError(f"--model {model.name}: no layer has filters that could be removed ({why}); {instead}")
    return Layers(tuple(chosen), tuple(every), logits)


def _norm(network: nn.Module) -> Literal["batch", "layer", "none"]:
    kinds = {type(module).__name__ for module in network.modules()}
    if any(re.match(r"(Sync)?BatchNorm", kind) for kind in kinds):
        return "batch"
    return "layer" if any("LayerNorm" in kind or "MultiheadAttention" in kind for kind in kinds) else "none"


def _augment(images: Survey) -> tuple[str, ...]:
    """Return the changes that keep the class of an image: no mirror for digits and letters."""
    if all(len(name) == 1 for name in images.classes) or images.name in ("mnist", "digits"):
        return ("crop",) if images.train >= 10_000 or images.name == "imagefolder" else ()
    return ("crop", "flip")
