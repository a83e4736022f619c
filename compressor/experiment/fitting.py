"""The images that a network by name takes, where no configuration says it."""

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass

from torch import nn

from compressor import models
from compressor.config import Config, DataConfig, ModelConfig, OptimizerConfig
from compressor.copying import without_storage
from compressor.errors import UserError
from compressor.experiment import building
from compressor.experiment.outputs import Shape, check_forms, check_outputs
from compressor.importing import random_state_kept
from compressor.tracing import OnMeta


@dataclass(frozen=True)
class Fitted:
    """A network, the first shape of images that it takes, and the number of its outputs."""

    network: nn.Module
    shape: Shape
    columns: int


def built(model: ModelConfig, classes: int | None, image: Shape | None) -> nn.Module:
    """Return a network with any weights; what the caller draws afterwards does not depend on it."""
    with random_state_kept():
        return building.model(model, classes, trained_elsewhere=True, image=image)


def fitting(model: ModelConfig, images: str, classes: int | None, shapes: Iterable[Shape]) -> Fitted:
    """Return the network with the first of the shapes (C, H, W) that it takes; it is without storage where possible.

    `images`: their name, for messages. Raises `UserError` where it takes none of them.
    """
    config = Config(
        model=model.model_copy(update={"num_classes": None}),
        data=DataConfig(name=images),
        optimizer=OptimizerConfig(lr=1),
        epochs=1,
    )
    shapes = list(shapes)
    try:
        network = models.with_sizes(building.skeleton(model, classes), model.name, None)
    except models.NeedsImages:  # lazy layers: another network for each size
        network = None
    refused = None
    for copied in (True, False):  # without storage where that is possible
        for shape in shapes:
            try:
                used = built(model, classes, shape) if network is None else network
                with OnMeta() if copied else nullcontext():  # type: ignore[no-untyped-call]
                    made = without_storage(used) if copied else built(model, classes, shape)
                    check_forms(config, made, shape, images, None)
                    columns = check_outputs(config, made, shape, images, None).logits.shape[1]
            except UserError as error:
                refused = error
            except Exception:  # a network may not be copied
                break
            else:
                return Fitted(used, shape, columns)
    raise refused or UserError(f"the model {model.name} takes no images of these sizes")
