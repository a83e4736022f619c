"""What a schedule will do, epoch by epoch, without training."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict
from torch import nn
from torch.optim import Optimizer

from compressor.policies.learning_rate import LRPolicy
from compressor.policies.lr_schedulers import PureScheduler, ReduceLROnPlateau, Simulation
from compressor.policies.policy import BoundPolicy, Context
from compressor.policies.pruning import PruningPolicy
from compressor.policies.scheduler import Scheduler
from compressor.rates.window import Window
from compressor.sparsity.masks import Masks
from compressor.sparsity.topk import pruned_count
from compressor.sparsity.weights import prunable

MAX_SHOWN = 10_000


class Matched(BaseModel):
    """A weight that a policy acts on."""

    model_config = ConfigDict(frozen=True)

    name: str
    shape: list[int]


class PlannedPolicy(BaseModel):
    """When a policy fires, on what, and the sparsity (or threshold) it asks for at each of those times."""

    model_config = ConfigDict(frozen=True)

    key: str
    kind: str
    component: str
    unit: str
    fires: list[int]
    weights: list[Matched]
    sparsity: dict[int, float]
    threshold: dict[int, str]


class Predicted(BaseModel):
    """A weight at the end of the run; `nonzero` is an upper bound, None where a threshold or shared ranking decides."""

    model_config = ConfigDict(frozen=True)

    name: str
    shape: list[int]
    weights: int
    nonzero: int | None
    sparsity: float | None


class Plan(BaseModel):
    """The whole plan. `lr` is the rate at the beginning of each epoch, None from where validation decides it."""

    model_config = ConfigDict(frozen=True)

    epochs: int
    policies: list[PlannedPolicy]
    lr: list[float | None]
    predicted: list[Predicted]
    total_weights: int
    total_nonzero: int | None
    total_sparsity: float | None
    conflicts: list[str]


def make(
    policies: Sequence[BoundPolicy], network: nn.Module, optimizer: Optimizer, epochs: int, steps_per_epoch: int
) -> Plan:
    """The plan of bound policies over `network`, which may be without storage."""
    shapes = {name: list(parameter.shape) for name, parameter in network.named_parameters()}
    planned = [_policy(bound, shapes, epochs, steps_per_epoch) for bound in policies]
    rates, jumps = _rates(policies, network, optimizer, epochs, steps_per_epoch)
    predicted, total, nonzero = _predict(policies, prunable(network), epochs, steps_per_epoch)
    return Plan(
        epochs=epochs,
        policies=planned,
        lr=rates,
        predicted=predicted,
        total_weights=total,
        total_nonzero=nonzero,
        total_sparsity=None if nonzero is None or not total else 1 - nonzero / total,
        conflicts=[*_shared(policies), *jumps, *_unreached(policies, epochs, steps_per_epoch)],
    )


def _end(window: Window, epochs: int, steps_per_epoch: int) -> int:
    return epochs if window.unit == "epoch" else epochs * steps_per_epoch


def _firings(window: Window, epochs: int, steps_per_epoch: int) -> list[int]:
    end = min(window.end, _end(window, epochs, steps_per_epoch))
    times = range(window.first, end, window.step) if window.epochs is None else sorted(set(window.epochs))
    return [time for time in times if time < end][:MAX_SHOWN]


def _policy(bound: BoundPolicy, shapes: Mapping[str, list[int]], epochs: int, steps_per_epoch: int) -> PlannedPolicy:
    policy = bound.policy
    component = policy if policy.component is None else getattr(policy, policy.name)
    fires = _firings(policy.window, epochs, steps_per_epoch)
    names = dict.fromkeys(name for field in bound.targets.values() for name in field)
    sparsity: dict[int, float] = {}
    threshold: dict[int, str] = {}
    if isinstance(policy, PruningPolicy):
        for time in fires:
            goals = policy.pruner.goals(bound.targets, policy.window, time)
            count = sum(_size(goal.names, shapes) for goal in goals)
            if count:
                sparsity[time] = sum(goal.sparsity * _size(goal.names, shapes) for goal in goals) / count
            said = policy.pruner.threshold(bound.targets, policy.window, time)
            if said is not None:
                threshold[time] = said
    return PlannedPolicy(
        key=bound.key,
        kind=policy.name,
        component=component.name,
        unit=policy.window.unit,
        fires=fires,
        weights=[Matched(name=name, shape=shapes[name]) for name in names],
        sparsity=sparsity,
        threshold=threshold,
    )


def _size(names: Sequence[str], shapes: Mapping[str, list[int]]) -> int:
    total = 0
    for name in names:
        count = 1
        for side in shapes[name]:
            count *= side
        total += count
    return total


def _rates(
    policies: Sequence[BoundPolicy], network: nn.Module, optimizer: Optimizer, epochs: int, steps_per_epoch: int
) -> tuple[list[float | None], list[str]]:
    """The rate at the beginning of each epoch, and the places where a policy's start makes it jump."""
    parameters = dict(network.named_parameters())
    ctx = Context(network, parameters, optimizer, Masks(parameters), epochs, steps_per_epoch, say=lambda text: None)
    learning = [bound for bound in policies if isinstance(bound.policy, LRPolicy)]
    scheduler = Scheduler([bound for bound in learning if not _watches(bound)], ctx)
    watched = min((bound.policy.window.first for bound in learning if _watches(bound)), default=epochs)
    by_step = any(bound.policy.interval == "step" for bound in learning if isinstance(bound.policy, LRPolicy))
    rates: list[float | None] = []
    jumps: list[str] = []
    for epoch in range(epochs):
        ctx.epoch = epoch
        for step in range(steps_per_epoch if by_step else 1):
            ctx.step = step
            scheduler.on_minibatch_begin()
            if step == 0:
                rates.append(None if epoch > watched else float(optimizer.param_groups[0]["lr"]))
            scheduler.on_minibatch_end()
        before = float(optimizer.param_groups[0]["lr"])
        scheduler.on_epoch_end()
        after = float(optimizer.param_groups[0]["lr"])
        for bound in learning:
            late = isinstance(bound.policy, LRPolicy) and bound.policy.origin == "absolute" and epoch > 0
            if late and bound.policy.window.first == epoch and not _own_step(bound, ctx, before, after):
                jumps.append(
                    f"{bound.key} starts in epoch {epoch} and counts from epoch 0: the learning rate jumps"
                    f" from {before:g} to {after:g}; `args: {{origin: start}}` counts from its own start"
                )
    return rates, jumps


def _watches(bound: BoundPolicy) -> bool:
    return isinstance(bound.policy, LRPolicy) and isinstance(bound.policy.lr_scheduler, ReduceLROnPlateau)


def _own_step(bound: BoundPolicy, ctx: Context, before: float, after: float) -> bool:
    """Whether the rate before the policy's start is what its schedule has there: then its first step is no jump."""
    policy = bound.policy
    if not isinstance(policy, LRPolicy) or not isinstance(policy.lr_scheduler, PureScheduler):
        return True
    own = Simulation(policy.lr_scheduler, ctx.optimizer).at(ctx.epoch)[0]["lr"]
    return before == after or abs(own - before) <= 1e-6 * max(abs(before), 1e-12)


def _predict(
    policies: Sequence[BoundPolicy], weights: Mapping[str, nn.Parameter], epochs: int, steps_per_epoch: int
) -> tuple[list[Predicted], int, int | None]:
    """The zeros that there will be at least: by weight, and over all of them; None where only the values decide."""
    rankings: dict[frozenset[str], int] = {}
    by_value: set[str] = set()
    for bound in policies:
        policy = bound.policy
        fires = _firings(policy.window, epochs, steps_per_epoch)
        if not isinstance(policy, PruningPolicy) or not fires or not policy.permanent:
            continue
        goals = policy.pruner.goals(bound.targets, policy.window, fires[-1])
        if not goals:
            by_value.update(name for names in bound.targets.values() for name in names if name in weights)
        for goal in goals:
            names = frozenset(name for name in goal.names if name in weights)
            zeros = pruned_count(goal.sparsity, sum(weights[name].numel() for name in names))
            rankings[names] = max(rankings.get(names, 0), zeros)
    shared = {name for names in rankings if len(names) > 1 for name in names}
    rows = []
    for name, weight in weights.items():
        known = name not in shared | by_value
        zeros, count = rankings.get(frozenset([name]), 0), weight.numel()
        rows.append(
            Predicted(
                name=name,
                shape=list(weight.shape),
                weights=count,
                nonzero=count - zeros if known else None,
                sparsity=zeros / max(count, 1) if known else None,
            )
        )
    total = sum(weight.numel() for weight in weights.values())
    return rows, total, None if by_value else total - _disjoint(rankings)


def _disjoint(rankings: Mapping[frozenset[str], int]) -> int:
    """Zeros of rankings that share no weight, the largest first: what overlaps may be the same zeros."""
    taken: set[str] = set()
    zeros = 0
    for names, count in sorted(rankings.items(), key=lambda item: -item[1]):
        if not names & taken:
            taken |= names
            zeros += count
    return zeros


def _shared(policies: Sequence[BoundPolicy]) -> list[str]:
    """Weights that two pruners act on, and epochs in which two schedules set the learning rate."""
    pruners: dict[str, list[str]] = defaultdict(list)
    for bound in policies:
        if isinstance(bound.policy, PruningPolicy):
            for name in dict.fromkeys(name for field in bound.targets.values() for name in field):
                pruners[name].append(bound.key)
    lines = [
        f"{' and '.join(keys)} both prune {name}: the mask in force keeps what all of them keep"
        for name, keys in pruners.items()
        if len(keys) > 1
    ]
    learning = [bound for bound in policies if isinstance(bound.policy, LRPolicy)]
    for index, first in enumerate(learning):
        for second in learning[index + 1 :]:
            a, b = first.policy.window, second.policy.window
            if a.unit == b.unit and a.first <= b.last and b.first <= a.last:
                begin, end = max(a.first, b.first), min(a.last, b.last)
                lines.append(f"{first.key} and {second.key} both set the learning rate in {a.unit}s {begin}..{end}")
    return lines


def _unreached(policies: Sequence[BoundPolicy], epochs: int, steps_per_epoch: int) -> list[str]:
    return [
        f"{bound.key} fires last in {bound.policy.window.unit} {bound.policy.window.last},"
        f" the run ends before {bound.policy.window.unit} {_end(bound.policy.window, epochs, steps_per_epoch)}"
        for bound in policies
        if bound.policy.window.last >= _end(bound.policy.window, epochs, steps_per_epoch)
    ]
