"""Everything about a schedule and a configuration that can be known to be wrong without the data."""

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from compressor import data
from compressor.component import Targets
from compressor.errors import UserError, did_you_mean
from compressor.experiment import building
from compressor.experiment.pruner_checks import PrunerChecks
from compressor.experiment.specification import Specification
from compressor.policies.batchnorm import NONE, BatchNormPolicy, norms
from compressor.policies.channel_pruning import ChannelPruningPolicy
from compressor.policies.gating import GatePolicy
from compressor.policies.instability import InstabilityPolicy
from compressor.policies.learning_rate import LRPolicy
from compressor.policies.lr_schedulers import ReduceLROnPlateau
from compressor.policies.noise import NoisePolicy
from compressor.policies.policy import BoundPolicy, Policy
from compressor.policies.pruning import PruningPolicy
from compressor.policies.regularization import RegularizationPolicy
from compressor.policies.strided import StridedPolicy
from compressor.regularizers.regularizer import Regularizer
from compressor.schedule.faults import Faults
from compressor.training.initialization import SCHEMES


def check(spec: Specification, faults: Faults, *, init: bool = True) -> tuple[nn.Module | None, list[BoundPolicy]]:
    """The model without storage and the policies bound to it; what does not fit becomes a fault.

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
        return None, []
    bound = building.bind(spec, network, faults)
    for policy, entry in zip(bound, spec.schedule.entries if spec.schedule else [], strict=True):
        assert spec.schedule is not None
        place = spec.schedule.document.place(entry.path)
        if watches(policy.policy) and config.data.validation == 0:
            faults.add(place, f"{entry.key} watches validation, and the configuration holds out no images for it")
        if isinstance(policy.policy, BatchNormPolicy) and not list(norms(network)):
            faults.add(place, f"{entry.key}: {NONE}")
    return network, _check_structures(spec, network, bound, faults)


def watches(policy: Policy) -> bool:
    """Whether a policy needs held-out images."""
    if isinstance(policy, InstabilityPolicy):
        return policy.part == "validation"
    return isinstance(policy, LRPolicy) and isinstance(policy.lr_scheduler, ReduceLROnPlateau)


def _check_structures(
    spec: Specification, network: nn.Module, bound: list[BoundPolicy], faults: Faults
) -> list[BoundPolicy]:
    """Weights that a component cannot cut its structures from, and what else is to be said of pruners.

    Returns the policies with all the weights that they will prune.
    """
    schedule = spec.schedule
    if schedule is None:
        return bound
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    pruners = PrunerChecks(schedule, network, data.image_shape(spec.config.data), faults)
    whole = list(bound)
    for number, (policy, entry) in enumerate(zip(bound, schedule.entries, strict=False)):
        if isinstance(policy.policy, GatePolicy):
            for line in policy.policy.gate.misfits(policy.targets, shapes):
                faults.add(schedule.document.place(entry.component_path), line)
        if isinstance(policy.policy, RegularizationPolicy):
            for line in _misfits_of_penalty(policy.policy.regularizer, policy.targets, shapes, pruners.transposed):
                faults.add(schedule.document.place(entry.component_path), line)
        if isinstance(policy.policy, StridedPolicy):
            for line in policy.policy.misfits(policy.targets, network):
                faults.add(schedule.document.place(entry.component_path), line)
        if isinstance(policy.policy, ChannelPruningPolicy):
            for line in policy.policy.misfits(policy.targets["weights"], dict(network.named_modules())):
                faults.add(schedule.document.place(entry.component_path), line)
        if isinstance(policy.policy, (PruningPolicy, NoisePolicy)):
            whole[number] = pruners.check(policy, entry)
    return whole


def _misfits_of_penalty(
    regularizer: Regularizer, targets: Targets, shapes: Mapping[str, tuple[int, ...]], transposed: set[str]
) -> list[str]:
    """Weights that a regularizer cannot cut its groups from."""
    cuts = regularizer.structures(targets)
    one_sided = {name for name in cuts if any((0 in cut.members) != (1 in cut.members) for cut in cuts[name])}
    return regularizer.misfits(targets, shapes) + [
        f"{name} is of a transposed convolution: its filters and channels are not supported"
        for name in sorted(transposed & one_sided)
    ]
