"""Everything about a schedule and a configuration that can be known to be wrong without the data."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import nn

from compressor import data
from compressor.component import Targets
from compressor.errors import UserError, did_you_mean
from compressor.experiment import building
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
from compressor.pruners.criteria import OF_BATCH_NORMS
from compressor.regularizers.regularizer import Regularizer
from compressor.schedule.faults import Faults
from compressor.sparsity.structures import CHANNELS, FILTERS
from compressor.thinning.coupling import couplings
from compressor.thinning.graph import ChannelGraph, Untraceable
from compressor.thinning.tracing import trace
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
        if _watches(policy.policy) and config.data.validation == 0:
            faults.add(place, f"{entry.key} watches validation, and the configuration holds out no images for it")
        if isinstance(policy.policy, BatchNormPolicy) and not list(norms(network)):
            faults.add(place, f"{entry.key}: {NONE}")
    return network, _check_structures(spec, network, bound, faults)


def _watches(policy: Policy) -> bool:
    """Whether a policy needs held-out images."""
    if isinstance(policy, InstabilityPolicy):
        return policy.part == "validation"
    return isinstance(policy, LRPolicy) and isinstance(policy.lr_scheduler, ReduceLROnPlateau)


def _check_structures(
    spec: Specification, network: nn.Module, bound: list[BoundPolicy], faults: Faults
) -> list[BoundPolicy]:
    """Weights that a pruner cannot cut its structures from, and channels that its weights share with others.

    Returns the policies with all the weights that they will prune.
    """
    schedule = spec.schedule
    if schedule is None:
        return bound
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    transposed = {f"{path}.weight" for path, module in network.named_modules() if getattr(module, "transposed", False)}
    graph: ChannelGraph | Untraceable | None = None
    whole = list(bound)
    for number, (policy, entry) in enumerate(zip(bound, schedule.entries, strict=False)):
        if isinstance(policy.policy, GatePolicy):
            for line in policy.policy.gate.misfits(policy.targets, shapes):
                faults.add(schedule.document.place(entry.component_path), line)
        if isinstance(policy.policy, RegularizationPolicy):
            for line in _misfits_of_penalty(policy.policy.regularizer, policy.targets, shapes, transposed):
                faults.add(schedule.document.place(entry.component_path), line)
        if isinstance(policy.policy, StridedPolicy):
            for line in policy.policy.misfits(policy.targets, network):
                faults.add(schedule.document.place(entry.component_path), line)
        if isinstance(policy.policy, ChannelPruningPolicy):
            for line in policy.policy.misfits(policy.targets["weights"], dict(network.named_modules())):
                faults.add(schedule.document.place(entry.component_path), line)
        if not isinstance(policy.policy, (PruningPolicy, NoisePolicy)):
            continue
        pruner = policy.policy.pruner if isinstance(policy.policy, PruningPolicy) else policy.policy.noise
        place = schedule.document.place(entry.component_path)
        misfits = pruner.misfits(policy.targets, shapes)
        for line in misfits:
            faults.add(place, line)
        cuts = pruner.cuts(policy.targets)
        names = [name for name, cut in cuts.items() if cut.dim is not None]
        for name in sorted(transposed & set(names)):
            faults.add(place, f"{name} is of a transposed convolution: its filters and channels are not supported")
        if not names or misfits:
            continue
        shape = data.image_shape(spec.config.data)
        if shape is None:
            schedule.note(f"{place}: which channels {entry.key} shares with other weights depends on the images' shape")
            continue
        try:
            graph = graph or trace(network, shape)
        except Untraceable as error:
            graph = error
        if isinstance(graph, Untraceable):
            schedule.note(f"{place}: warning: {graph}: {entry.key} ranks weight by weight, and cannot be thinned")
            continue
        if pruner.extends:
            names = graph.channels.closure(names, pruner.ranks.dim or 0)
            whole[number] = replace(policy, targets={**policy.targets, "weights": names})
        for name in names if pruner.statistic in OF_BATCH_NORMS else []:
            if not graph.last_norms(name):
                faults.add(place, f"{entry.key} goes by {pruner.statistic}, but no batch norm stands behind {name}")
        if isinstance(policy.policy, NoisePolicy):
            continue
        for structure in (FILTERS, CHANNELS):
            mine = [name for name in names if cuts.get(name, pruner.ranks).dim == structure.dim]
            found = couplings(graph, mine, structure)
            for joint in found.joint:
                how = "ranks as one, for" if pruner.ranks.dim is not None else "takes one by one, though"
                schedule.note(f"{place}: {entry.key} {how} they share channels: {', '.join(joint)}")
            for name in found.logits:
                schedule.note(f"{place}: warning: {name} makes the network's output: its zeros cannot be thinned")
            for name, keeper in found.broken:
                said = f"{name} is pruned by {entry.key}, but {keeper}"
                if schedule.version == 1:
                    schedule.note(f"{place}: warning: {said}: it is masked, and cannot be thinned")
                else:
                    faults.add(place, f"{said}: select all of them, or `scope: coupled` of `class: Pruner`")
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
