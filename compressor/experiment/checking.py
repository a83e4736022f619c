"""Everything about a schedule and a configuration that can be known to be wrong without the data."""

from pathlib import Path

from torch import nn

from compressor import data
from compressor.errors import UserError, did_you_mean
from compressor.experiment import building
from compressor.experiment.specification import Specification
from compressor.schedule.faults import Faults
from compressor.schedule.schedule import BoundSchedule
from compressor.training.initialization import SCHEMES


def check(spec: Specification, faults: Faults, *, init: bool = True) -> tuple[nn.Module | None, BoundSchedule]:
    """Return the model without storage and the schedule bound to it; what does not fit becomes a fault.

    `init: False` where the weights come from a run's own checkpoint: then its source may be gone.
    """
    config, document = spec.config, spec.config_document
    if init and config.init not in SCHEMES and not Path(config.init).is_file():
        said = f"init: {config.init!r} is neither one of {', '.join(SCHEMES)} nor a checkpoint file"
        faults.add(document.place(("init",)), said)
    if ":" not in config.data.name and config.data.name not in data.catalogue():
        hint = did_you_mean(config.data.name, data.catalogue())
        faults.add(document.place(("data", "name")), f"there is no data set {config.data.name!r}: {hint}")
    try:
        network = building.skeleton(config)
    except UserError as error:
        named = [key for key in config.model.arguments if repr(key) in str(error)]
        faults.add(document.place(("model", *(named or ["name"])[:1])), str(error))
        return None, BoundSchedule(notes=tuple(spec.schedule.notes) if spec.schedule else ())
    return network, building.bind(spec, network, faults)
