"""A schedule bound to the model of a configuration: everything that can be known to be wrong without the data."""

from pathlib import Path

from compressor import data, models
from compressor.errors import UserError, did_you_mean
from compressor.experiment.specification import Specification
from compressor.policies.policy import View
from compressor.schedule import BoundSchedule, Faults, view_of
from compressor.training import SCHEMES, optimizers


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
    if init and config.init not in SCHEMES and not Path(config.init).is_file():
        said = f"init: {config.init!r} is neither one of {', '.join(SCHEMES)} nor a checkpoint file"
        faults.add(document.place(("init",)), said)
    if ":" not in config.data.name and config.data.name not in data.catalogue():
        hint = did_you_mean(config.data.name, data.catalogue())
        faults.add(document.place(("data", "name")), f"there is no data set {config.data.name!r}: {hint}")
    return bound, view
