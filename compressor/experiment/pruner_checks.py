"""What is wrong with a pruner on a network, or should be known of it, before there are any data."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from torch import nn

from compressor.experiment.rehearsal import channels_wanted, rehearse
from compressor.policies.activations import MAKE_ZEROS, Place
from compressor.policies.channel_event import misfits as unfit
from compressor.policies.noise import NoisePolicy
from compressor.policies.policy import BoundPolicy
from compressor.policies.pruning import PruningPolicy
from compressor.pruners.criteria import BEHIND_ACTIVATIONS, OF_BATCH_NORMS, OF_OUTPUTS
from compressor.pruners.pruner import PrunerBase
from compressor.schedule.faults import Faults
from compressor.schedule.schedule import Entry, Schedule
from compressor.sparsity.structures import CHANNELS, FILTERS
from compressor.thinning.coupling import couplings
from compressor.thinning.graph import ChannelGraph, Untraceable
from compressor.thinning.tracing import trace


@dataclass
class PrunerChecks:
    """Of all pruners of a schedule; `shape` is that of the images, None where it is not known."""

    schedule: Schedule
    network: nn.Module
    shape: tuple[int, int, int] | None
    faults: Faults

    def check(self, bound: BoundPolicy, entry: Entry) -> BoundPolicy:
        """Faults and notes at the pruner's place. Returns the policy with all the weights that it will prune."""
        policy = bound.policy
        assert isinstance(policy, (PruningPolicy, NoisePolicy))
        pruner = policy.pruner if isinstance(policy, PruningPolicy) else policy.noise
        shapes = {name: tuple(parameter.shape) for name, parameter in self.network.named_parameters()}
        misfits = pruner.misfits(bound.targets, shapes)
        for line in misfits:
            self._fault(entry, line)
        sliced = [name for name, cut in pruner.cuts(bound.targets).items() if cut.dim is not None]
        for name in sorted(self.transposed & set(sliced)):
            self._fault(entry, f"{name} is of a transposed convolution: its filters and channels are not supported")
        if pruner.fit is not None:
            for line in unfit(list(pruner.cuts(bound.targets)), dict(self.network.named_modules())):
                self._fault(entry, line)
        if misfits:
            return bound
        whole = self._check_channels(bound, entry, pruner, sliced)
        self._check_statistics(whole, entry, pruner)
        for line in _nothing_goes(bound, pruner, shapes):
            self._note(entry, f"{entry.key} prunes nothing of {line}")
        if isinstance(policy, PruningPolicy) and _draws_from_zero(policy):
            self._note(
                entry,
                f"{entry.key}: what one draw drops starts again from 0, and behind a batch norm and a relu stays 0:"
                f" with `use_double_copies: true` it comes back as it was",
            )
        return whole

    def _fault(self, entry: Entry, text: str) -> None:
        self.faults.add(self.schedule.document.place(entry.component_path), text)

    def _note(self, entry: Entry, text: str) -> None:
        self.schedule.note(f"{self.schedule.document.place(entry.component_path)}: {text}")

    @cached_property
    def transposed(self) -> set[str]:
        """The weights of transposed convolutions."""
        return {f"{path}.weight" for path, module in self.network.named_modules() if getattr(module, "transposed", 0)}

    @cached_property
    def _graph(self) -> ChannelGraph | Untraceable:
        assert self.shape is not None
        try:
            return trace(self.network, self.shape)
        except Untraceable as error:
            return error

    @cached_property
    def _places(self) -> dict[str, Place] | None:
        return None if self.shape is None else rehearse(self.network, self.shape)

    def _check_channels(
        self, bound: BoundPolicy, entry: Entry, pruner: PrunerBase, names: Sequence[str]
    ) -> BoundPolicy:
        """Channels that `names`, of which whole slices go, share with others; batch norms that are looked at."""
        norms = pruner.statistic if pruner.statistic in OF_BATCH_NORMS else None
        if getattr(bound.policy, "fold_batchnorm", False):
            norms = "fold_batchnorm"
        if self.shape is None:
            if names:
                said = f"which channels {entry.key} shares with other weights depends on the images' shape"
                self._note(entry, said)
            return bound
        if not names and norms is None:
            return bound
        graph = self._graph
        if isinstance(graph, Untraceable):
            if (wanted := channels_wanted(self.network, self.shape)) is not None:
                said = f"the model wants images of {wanted} channels, the data set's have {self.shape[0]}"
                self._fault(entry, f"{said}: set `data.channels: {wanted}`")
            elif norms is not None:
                self._fault(
                    entry, f"{entry.key} goes by batch norms ({norms}), and where they stand is not known: {graph}"
                )
            else:
                self._note(entry, f"warning: {graph}: {entry.key} ranks weight by weight, and cannot be thinned")
            return bound
        if pruner.extends:
            names = graph.channels.closure(list(names), pruner.ranks.dim or 0)
            bound = replace(bound, targets={**bound.targets, "weights": names})
        for name in names if pruner.statistic in OF_BATCH_NORMS else []:
            if not graph.last_norms(name) and (self._places is None or name in self._places):
                self._fault(entry, f"{entry.key} goes by {pruner.statistic}, but no batch norm stands behind {name}")
        if isinstance(bound.policy, PruningPolicy):
            self._check_coupling(bound, entry, pruner, graph, names)
        return bound

    def _check_coupling(
        self, bound: BoundPolicy, entry: Entry, pruner: PrunerBase, graph: ChannelGraph, names: Sequence[str]
    ) -> None:
        cuts = pruner.cuts(bound.targets)
        for structure in (FILTERS, CHANNELS):
            mine = [name for name in names if cuts.get(name, pruner.ranks).dim == structure.dim]
            found = couplings(graph, mine, structure)
            for joint in found.joint:
                how = "ranks as one, for" if pruner.ranks.dim is not None else "takes one by one, though"
                self._note(entry, f"{entry.key} {how} they share channels: {', '.join(joint)}")
            for name in found.logits:
                self._note(entry, f"warning: {name} makes the network's output: its zeros cannot be thinned")
            for name, keeper in found.broken:
                said = f"{name} is pruned by {entry.key}, but {keeper}"
                if self.schedule.version == 1:
                    self._note(entry, f"warning: {said}: it is masked, and cannot be thinned")
                else:
                    self._fault(entry, f"{said}: select all of them, or `scope: coupled` of `class: Pruner`")

    def _check_statistics(self, bound: BoundPolicy, entry: Entry, pruner: PrunerBase) -> None:
        """What stands behind the weights whose outputs a criterion looks at."""
        kind, places = pruner.statistic, self._places if pruner.statistic is not None else None
        if kind is None or places is None:
            return
        for name in dict.fromkeys(name for selected in bound.targets.values() for name in selected):
            place = places.get(name)
            if place is None:
                said = f"criterion {kind}: the forward pass does not use {name} in a convolution or linear layer"
                self._fault(entry, said)
            elif kind in OF_OUTPUTS and kind not in OF_BATCH_NORMS and not place.channels:
                self._fault(entry, f"criterion {kind}: the outputs of {name} are not channels (dim 1)")
            elif kind in BEHIND_ACTIVATIONS and not place.activation:
                self._note(
                    entry,
                    f"warning: criterion {kind} looks behind an activation, and none follows {name}: it looks at what"
                    f" {place.function} gives",
                )
            elif kind == "apoz" and place.function not in MAKE_ZEROS:
                self._note(
                    entry,
                    f"warning: criterion apoz counts zeros, and {place.function} behind {name} makes none: its outputs"
                    f" go in their order",
                )


def _nothing_goes(bound: BoundPolicy, pruner: PrunerBase, shapes: dict[str, tuple[int, ...]]) -> list[str]:
    """Weights of which a share rounds to nothing at the window's end."""
    window = bound.policy.window
    if pruner.threshold(bound.targets, window, window.last) is not None:
        return []  # of what is drawn a share is the least
    found = []
    for goal in pruner.goals(bound.targets, window, window.last):
        total = sum(goal.structure.count(shapes[name]) for name in goal.names)
        if goal.sparsity > 0 and goal.count(goal.sparsity, total) == 0:
            found.append(f"{', '.join(goal.names)}: {goal.sparsity:g} of {total} {goal.structure.name} rounds to 0")
    return found


def _draws_from_zero(policy: PruningPolicy) -> bool:
    """Whether what one random mask drops may stay in the next, but has lost its value."""
    if policy.use_double_copies or policy.pruner.scale(policy.window, policy.window.first) is None:
        return False
    inside = policy.mini_batch_pruning_frequency > 0 or policy.discard_masks_at_minibatch_end
    return inside or policy.window.firings > 1
