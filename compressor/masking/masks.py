"""From a pruner to masks: the data that it may use, and the companions of the outputs that it prunes."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from compressor.component import Targets
from compressor.context import Context
from compressor.criteria import ActivationCriterion, BatchNorm, Criterion, Given
from compressor.errors import UserError
from compressor.masking.statistics import activations, batch_norms, finite, gradients
from compressor.pruners import PrunerBase, Request
from compressor.sparsity import Channels, bias_of
from compressor.thinning import ChannelGraph, Cost, Unit
from compressor.timing import Window


def pruned_weights(ctx: Context, pruner: PrunerBase) -> list[str]:
    """Return the weights that a pruner prunes, with those that it adds because they share channels."""
    names = list(dict.fromkeys(name for selected in ctx.targets.values() for name in selected))
    return with_coupled_weights(pruner, names, _channels(ctx)) if pruner.extends else names


def with_coupled_weights(pruner: PrunerBase, names: list[str], channels: Channels) -> list[str]:
    """Return the weights, with those that a pruner adds because they share channels."""
    return channels.with_coupled(names, pruner.unit.dim or 0) if pruner.extends else names


def complete_targets(pruner: PrunerBase, targets: Targets, graph: ChannelGraph | None) -> Targets:
    """Return a pruner's targets with the weights that it adds because they share channels with the selected ones."""
    if graph is None or not pruner.extends:
        return targets
    return {**targets, "weights": with_coupled_weights(pruner, list(targets["weights"]), graph.channels)}


def require_batch_norms(ctx: Context, pruner: PrunerBase) -> None:
    """Raise `UserError` before training where a criterion needs batch norms and there are none."""
    if pruner.measured is not None and "batch_norms" in pruner.needs:
        for name in pruned_weights(ctx, pruner):
            batch_norms(ctx, pruner.measured.name, name)


def running_criterion(pruner: PrunerBase) -> ActivationCriterion | None:
    """Return the criterion for which a running mean is taken in training; None where there is none."""
    criterion = pruner.measured
    if criterion is None or "running_statistics" not in criterion.needs:
        return None
    assert isinstance(criterion, ActivationCriterion)
    return criterion


def masks_of(
    ctx: Context,
    pruner: PrunerBase,
    window: Window,
    before: Callable[[str], Tensor | None],
    owned: Iterable[str],
    instead: Mapping[str, Tensor] | None = None,
    running: Mapping[str, Tensor] | None = None,
    dense: Mapping[str, Sequence[int]] | None = None,
) -> tuple[list[str], dict[str, Tensor]]:
    """Return the weights that a pruner prunes, and the masks of them and of their companions.

    `before` and `owned` describe the masks that it made last; `instead` are values that it gets in place of weights,
    `running` the running statistics of its weights' outputs. `dense`: the shapes to which sparsities refer; default:
    those before channels were removed.
    """
    cuts, names = pruner.cuts(ctx.targets), pruned_weights(ctx, pruner)
    # Single weights have no sides: they keep their order.
    sided = {name for name in names if not cuts.get(name, pruner.unit).single}

    def turn(name: str, tensor: Tensor) -> Tensor:
        return ctx.network.outputs_first(name, tensor) if name in sided else tensor

    weights = {name: turn(name, weight) for name, weight in {**ctx.parameters, **(instead or {})}.items()}
    looks: dict[Criterion, Given] = {}

    def given(criterion: Criterion) -> Given:
        if criterion not in looks:
            looks[criterion] = _Network(ctx, running or {}, pruner.images, criterion, weights, turn)
        return looks[criterion]

    def turned(masks: Callable[[str], Tensor | None]) -> Callable[[str], Tensor | None]:
        def find(name: str) -> Tensor | None:
            mask = masks(name)
            return None if mask is None else turn(name, mask)

        return find

    request = Request(
        weights=weights,
        targets=ctx.targets,
        window=window,
        time=ctx.clock.time(window),
        memory=ctx.constants,
        before=turned(before),
        others=turned(ctx.masks.others(ctx.key)),
        dense=ctx.network.dense if dense is None else dense,
        channels=lambda: _channels(ctx),
        cost=lambda unit: cost(ctx, unit),
        given=given,
        types={f"{path}.weight": type(module).__name__ for path, module in ctx.network.model.named_modules()},
        stream=ctx.world.stream(ctx.key),
    )
    masks = pruner.keep(request)
    gone = {name: ~masks[name].flatten(1)[:, 0] for name in pruner.whole_outputs(ctx.targets, list(masks))}
    masks = {name: turn(name, mask) for name, mask in masks.items()}
    return list(masks), {**companions(ctx, owned, gone), **masks} if gone else masks


def companions(ctx: Context, owned: Iterable[str], pruned: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the masks of the companions of whole outputs: biases, batch norms and depthwise filters that follow.

    `pruned`: by weight [outputs], true = pruned.
    """
    graph = ctx.network.graph()
    if graph is None:
        biases = {bias_of(name): gone for name, gone in pruned.items()}
        known = {name: gone for name, gone in biases.items() if name in ctx.parameters}
        return {name: ~gone.to(ctx.parameters[name].device) for name, gone in known.items()}
    others = [name for name in owned if name not in pruned]
    keep = {name: torch.ones_like(ctx.parameters[name], dtype=torch.bool) for name in others}
    for name, gone in graph.companions(pruned).items():
        parameter = ctx.parameters[name]
        side = (-1,) + (1,) * (parameter.dim() - 1) if gone.dim() == 1 else gone.shape
        keep[name] = (~gone).to(parameter.device).reshape(side).expand(parameter.shape)
    return keep


class _Network(Given):
    """The data of the network as it is now, for a criterion; images are used when they are first needed."""

    def __init__(
        self,
        ctx: Context,
        running: Mapping[str, Tensor],
        batches: int,
        criterion: Criterion,
        weights: Mapping[str, Tensor],
        turn: Callable[[str, Tensor], Tensor],
    ) -> None:
        super().__init__(weights, criterion.name, ctx.world.stream(ctx.key))
        self._turn, self._shapes = turn, ctx.network.shapes()
        self._ctx, self._means, self._batches, self._criterion = ctx, running, batches, criterion
        self._taken: dict[str, dict[str, Tensor]] = {}

    def gradient(self, name: str) -> Tensor:
        found = self._of("one", name, lambda: gradients(self._ctx.network.model, self._ctx.data.batches(1)))
        return self._turn(name, found)

    def gradient_sums(self, name: str) -> Tensor:
        batches = self._batches
        found = self._of("all", name, lambda: gradients(self._ctx.network.model, self._ctx.data.batches(batches)))
        return self._turn(name, found)

    def activation_sums(self, name: str) -> Tensor:
        found = self._of("activations", name, self._activations)
        return self._of_channels(found, name)

    def running_statistics(self, name: str) -> Tensor:
        found = self._of("running", name, lambda: self._running() or self._activations())
        return self._of_channels(found, name)

    def batch_norms(self, name: str) -> list[BatchNorm]:
        return batch_norms(self._ctx, self.kind, name)

    def optimizer_state(self, name: str) -> Mapping[str, Tensor]:
        shape, state = self._ctx.parameters[name].shape, self._ctx.optimizer.state_of(name)
        return {
            key: self._turn(name, one) if getattr(one, "shape", None) == shape else one for key, one in state.items()
        }

    def _activations(self) -> dict[str, Tensor]:
        assert isinstance(self._criterion, ActivationCriterion)
        return activations(self._ctx.network.model, self._criterion, self._ctx.data.batches(self._batches))

    def _running(self) -> dict[str, Tensor]:
        """Return the running means; none before the first step, and none from before a removal of channels."""
        found, mine = self._means, self._ctx.targets["weights"]
        fresh = all(len(found.get(name, ())) == self._shapes[name][0] for name in mine)
        return {name: mean.cpu() for name, mean in found.items()} if fresh else {}

    def _of(self, what: str, name: str, take: Callable[[], dict[str, Tensor]]) -> Tensor:
        if what not in self._taken:
            self._taken[what] = self._ctx.world.decide(take)  # sums of floats: not the same bits on all processes
        if name not in self._taken[what]:
            raise UserError(f"{self._ctx.key}: criterion {self.kind}: the forward pass does not use {name}")
        return finite(self._taken[what][name], self.kind, name)

    def _of_channels(self, found: Tensor, name: str) -> Tensor:
        if len(found) != self._shapes[name][0]:
            raise UserError(f"{self._ctx.key}: criterion {self.kind}: the outputs of {name} are not channels (dim 1)")
        return found


def _channels(ctx: Context) -> Channels:
    graph = ctx.network.graph()
    return Channels() if graph is None else graph.channels


def cost(ctx: Context, unit: Unit) -> Cost:
    """Return what the network costs as it is now. Raises `UserError` where its channels cannot be traced."""
    found = ctx.network.cost(unit)
    if found is None:
        raise UserError(f"{ctx.key}: a budget needs the network's channels: see the warning above")
    return found
