"""A schedule bound to the model of a configuration: everything that can be known to be wrong without the data."""

from dataclasses import replace
from pathlib import Path

from torch import nn

from compressor import data, models
from compressor.config import SCHEMES
from compressor.errors import UserError, did_you_mean
from compressor.experiment.specification import Specification
from compressor.policies.policy import View
from compressor.schedule import BoundSchedule, Document, Faults, view_of
from compressor.sparsity import PRUNABLE, computed, in_use, prunable
from compressor.training import optimizers


def bind(spec: Specification, faults: Faults, *, init: bool = True) -> tuple[BoundSchedule, View | None]:
    """Return the schedule bound to the model, and what is known of that; what does not fit becomes a fault.

    `init: False` where the weights come from a run's own checkpoint: then its source may be gone.
    """
    config, document = spec.config, spec.config_document
    bound, view = BoundSchedule(notes=tuple(spec.schedule.notes) if spec.schedule else ()), None
    classes = config.model.num_classes or data.class_count(config.data.name)
    try:
        network = models.skeleton(config.model.name, num_classes=classes, **config.model.arguments)
    except UserError as error:
        named = [key for key in config.model.arguments if repr(key) in str(error)]
        faults.add(document.place(("model", *(named or ["name"])[:1])), str(error))
    else:
        groups, image = optimizers.settings(network, config.optimizer), data.image_shape(config.data)
        view = view_of(
            network,
            image=image,
            groups=groups,
            epochs=config.epochs,
            validates=config.data.validation > 0,
        )
        if spec.schedule is not None:
            bound = spec.schedule.bind(network, config.epochs, faults).check(view, faults)
        if init:
            bound = replace(bound, notes=(*bound.notes, *_undrawn(network, config.scheme, document, faults)))
    source = config.checkpoint_path if init else None
    if source is not None and not Path(source).is_file():
        said = f"init: {source!r} is neither one of {', '.join(SCHEMES)} nor a checkpoint file"
        faults.add(document.place(("init", "path")), said)
    if ":" not in config.data.name and config.data.name not in data.catalogue():
        hint = did_you_mean(config.data.name, data.catalogue())
        faults.add(document.place(("data", "name")), f"there is no data set {config.data.name!r}: {hint}")
    return bound, view


def _undrawn(network: nn.Module, scheme: str, document: Document, faults: Faults) -> list[str]:
    """Return a line on the weights that an initialization leaves as PyTorch draws them; those that a convolution or
    linear layer computes become faults.
    """
    if scheme == "default":
        return []
    place = document.place(("init",))
    by_name = {one.name: one for one in computed(network)}
    for name, one in by_name.items():
        if isinstance(network.get_submodule(name.rpartition(".")[0]), PRUNABLE):
            faults.add(place, f"init: {scheme}: {one.reason}; or set `init: default`")
    known = {*prunable(network), *by_name, *(source for one in by_name.values() for source in one.sources)}
    left = [name for name, tensor in in_use(network).items() if tensor.dim() > 1 and name not in known]
    shown = ", ".join(left[:4]) + (f" and {len(left) - 4} more" if len(left) > 4 else "")
    said = f"{place}: init: {scheme} draws convolutions and linear layers; {shown} begin as PyTorch draws them"
    return [said] if left else []
