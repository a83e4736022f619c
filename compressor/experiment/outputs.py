"""The outputs of a network, tried before training: it takes the images, and gives one logit for each class."""

import warnings
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from compressor import models
from compressor.config import Config
from compressor.errors import CompressError, UserError
from compressor.evaluating import evaluating
from compressor.importing import random_state_kept
from compressor.training import fewest_at_once

Shape = tuple[int, int, int]

OUTPUT = "model.output"
"""A message that has this is about the choice among several outputs."""


class Tried(NamedTuple):
    """The outputs of one forward pass: as the network gives them, and the logits among them."""

    given: Any
    logits: Tensor


def check_classes(config: Config, images: str, classes: int) -> None:
    """Raise `UserError` where a model for fewer than `classes` classes is asked for."""
    if config.model.num_classes is not None and config.model.num_classes < classes:
        raise UserError(f"model.num_classes is {config.model.num_classes}, but {images} has {classes} classes")


def check_outputs(config: Config, network: nn.Module, shape: Shape, images: str, classes: int | None) -> Tried:
    """Raise `UserError` where the network does not take images of `shape`, or has another number of outputs.

    `images` is the name of the data set. `classes` is None where it is not known.
    """
    tried, name = _try_out(config, network, shape, images), config.model.name
    wanted, columns = config.model.num_classes or classes, tried.logits.shape[1]
    other = None if wanted in (None, columns) else models.other_logits(tried.given, wanted)
    if other is not None and config.model.output is None:
        raise UserError(
            f"the model {name} gives {models.described(tried.given)}: {_named(models.chosen(tried.given))} has"
            f" {columns} columns, but there are {wanted} classes: set model.output: {other}"
        )
    if other is None and wanted not in (None, columns) and _is_guess(config, tried.given):
        raise UserError(
            f"the model {name} gives {models.described(tried.given)}: {_named(models.chosen(tried.given))} has"
            f" {columns} columns, but there are {wanted} classes: choose the logits by `model.output: KEY`"
        )
    if (classes and columns < classes) or (config.model.num_classes and columns != wanted):
        of = "model.num_classes is" if config.model.num_classes else f"the data set {images} has"
        key = models.classes_argument(name, config.model.arguments, columns)
        hint = f": set model.{key}: {wanted}" if key is not None else ""
        raise UserError(f"the model {name} has {columns} outputs, {of} {wanted}{hint}")
    return tried


def check_forms(
    config: Config,
    network: nn.Module,
    shape: Shape,
    images: str,
    classes: int | None,
    count: int | None = None,
    processes: int = 1,
) -> list[str]:
    """Raise `UserError` where the network gives no logits of all classes, in eval mode or in training mode.

    Returns a line where it gives several outputs, of which one is used. The forward pass in training mode changes the
    statistics of batch norms: a copy is given. `count`: the number of training images, where it is known; `processes`:
    how many share each batch.
    """
    name, key = config.model.name, config.model.output
    shipped = check_outputs(config, network, shape, images, classes)
    at_once = min(2, fewest_at_once(network, config, count, processes))
    trained = _try_out(config, network, shape, images, training=at_once)
    if trained.logits.shape[1] != shipped.logits.shape[1]:
        raise UserError(
            f"the model {name} has {shipped.logits.shape[1]} outputs, in training mode {trained.logits.shape[1]}"
        )
    several = {"training": trained.given, "eval": shipped.given}
    several = {mode: given for mode, given in several.items() if not isinstance(given, Tensor)}
    if not several:
        if key is not None:
            raise UserError("model.output: the model gives one tensor, in training and in eval mode: remove it")
        return []
    found = {mode: models.used(given, key) for mode, given in several.items()}
    if key is not None and key not in found.values():
        mode, given = next(iter(several.items()))
        try:
            models.logits_of(given, key)
        except UserError as error:
            raise UserError(f"the model {name} in {mode} mode: {error}") from None
    modes: dict[str, list[str]] = {}
    said: dict[str, str] = {}
    for mode, given in several.items():
        own = found[mode]
        taken = models.chosen(given) if own is None else own
        same = repr((type(given), list(models.entries(given)), taken))
        modes.setdefault(same, []).append(mode)
        said.setdefault(same, f"{models.described(given)} in {{}} mode: {_named(taken)} is used as the logits")
    forms = [said[same].format(" and ".join(modes[same])) for same in said]
    return [
        f"the model {name} gives {', '.join(forms)}; the others have no loss of their own, so layers that only they use"
        " are not trained (`model.output` chooses)"
    ]


def _is_guess(config: Config, given: Any) -> bool:
    """Return whether the logits were taken because no other output of the names is a tensor of (images, classes)."""
    if config.model.output is not None or isinstance(given, Tensor):
        return False
    return models.chosen(given) not in (0, *models.PREFERRED)


def _named(key: models.Key) -> str:
    """Return an output in words."""
    if isinstance(key, str):
        return repr(key)
    return "the first" if key == 0 else "the last" if key == -1 else f"number {key}"


def _try_out(config: Config, network: nn.Module, shape: Shape, images: str, *, training: int = 0) -> Tried:
    """Return the outputs for one image in eval mode, or for `training` images in training mode.

    Raises `UserError` in one line where the network does not take them, or gives no logits.
    """
    count, mode = training or 1, "training" if training else "eval"
    where = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    try:
        with (
            torch.set_grad_enabled(training > 0),
            nullcontext() if training else evaluating(network),
            random_state_kept(),
            models.output_seen(network) as seen,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # the run itself shows them
            logits = network(torch.zeros(count, *shape, device=where))
    except CompressError as error:
        raise UserError(f"the model {config.model.name} in {mode} mode: {error}") from None
    except Exception as error:  # whatever the user's code raises
        said = f"the model {config.model.name} does not take {images} images of {'x'.join(map(str, shape))}"
        if training:
            said += f" in training mode ({count} at once)"
        kind = "" if isinstance(error, (RuntimeError, ValueError)) else f"{type(error).__name__}: "
        alone = "; a larger data.batch or a smaller optimizer.accumulate puts two there" if training == 1 else ""
        raise UserError(f"{said}: {kind}{(str(error).splitlines() or [''])[0]}{alone}") from None
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != count:
        form = f"for {count} images in training mode" if training else "for one image"
        several = ": choose the logits by `model.output: KEY`" if models.has_logits(seen[0]) else ""
        raise UserError(
            f"the model {config.model.name} is not a classifier: the output {form} should be a ({count}, classes)"
            f" tensor of logits, it is {models.described(seen[0])}{several}"
        )
    return Tried(seen[0], logits)
