"""What a schedule will do, epoch by epoch, without training."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise

from pydantic import BaseModel, ConfigDict
from torch import nn
from torch.optim import Optimizer

from compressor.policies.learning_rate import LRPolicy
from compressor.policies.lr_schedulers import PureScheduler, ReduceLROnPlateau, Simulation
from compressor.policies.policy import BoundPolicy, Context
from compressor.policies.pruning import PruningPolicy
from compressor.policies.scheduler import Scheduler
from compressor.policies.strided import StridedPolicy
from compressor.rates.window import Window
from compressor.sparsity.masks import Masks
from compressor.sparsity.weights import prunable

MAX_FIRINGS, MAX_VALUES = 100_000, 1_000
"""Of longer lists an even sample is shown, with both ends."""


class Matched(BaseModel):
    """A weight that a policy acts on; or a module, without a shape."""

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
        conflicts=[*_shared(policies, epochs, steps_per_epoch), *jumps, *_unreached(policies, epochs, steps_per_epoch)],
    )


def _end(window: Window, epochs: int, steps_per_epoch: int) -> int:
    return epochs if window.unit == "epoch" else epochs * steps_per_epoch


def _firings(window: Window, epochs: int, steps_per_epoch: int) -> Sequence[int]:
    end = min(window.end, _end(window, epochs, steps_per_epoch))
    if window.epochs is None:
        return range(window.first, end, window.step)
    return [epoch for epoch in sorted(set(window.epochs)) if epoch < end]


def _sample(times: Sequence[int], most: int) -> list[int]:
    if len(times) <= most:
        return list(times)
    return [times[round(index * (len(times) - 1) / (most - 1))] for index in range(most)]


def _policy(bound: BoundPolicy, shapes: Mapping[str, list[int]], epochs: int, steps_per_epoch: int) -> PlannedPolicy:
    policy = bound.policy
    component = policy if policy.component is None else getattr(policy, policy.name)
    fires = _firings(policy.window, epochs, steps_per_epoch)
    names = dict.fromkeys(name for field in bound.targets.values() for name in field)
    sparsity: dict[int, float] = {}
    threshold: dict[int, str] = {}
    if isinstance(policy, PruningPolicy):
        for time in _sample(fires, MAX_VALUES):
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
        fires=_sample(fires, MAX_FIRINGS),
        weights=[Matched(name=name, shape=shapes.get(name, [])) for name in names],
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
    waiting = [bound for bound in learning if not _watches(bound) and bound.policy.window.first > 0]
    rates: list[float | None] = []
    jumps: list[str] = []
    for epoch in range(epochs):
        ctx.epoch = epoch
        for step in range(steps_per_epoch if by_step else 1):
            ctx.step = step
            for bound in [bound for bound in waiting if ctx.time(bound.policy.window) == bound.policy.window.first]:
                jumps += _jump(bound, ctx)
                waiting.remove(bound)
            scheduler.on_minibatch_begin()
            if step == 0:
                rates.append(None if epoch > watched else float(optimizer.param_groups[0]["lr"]))
            scheduler.on_minibatch_end()
        scheduler.on_epoch_end()
    return rates, jumps


def _watches(bound: BoundPolicy) -> bool:
    return isinstance(bound.policy, LRPolicy) and isinstance(bound.policy.lr_scheduler, ReduceLROnPlateau)


def _jump(bound: BoundPolicy, ctx: Context) -> list[str]:
    """A line where a schedule does not begin at the rate that is in force when its window opens."""
    policy = bound.policy
    assert isinstance(policy, LRPolicy)
    assert isinstance(policy.lr_scheduler, PureScheduler)
    now = policy.clock(ctx)
    simulation = Simulation(policy.lr_scheduler, ctx.optimizer)
    before, own = float(ctx.optimizer.param_groups[0]["lr"]), float(simulation.at(now)[0]["lr"])
    if abs(own - before) <= 1e-6 * max(abs(own), abs(before)):
        return []
    after = float(simulation.at(now if now == 0 else now + 1)[0]["lr"])
    when = f"{bound.key} starts in {policy.window.unit} {policy.window.first}"
    if policy.origin == "absolute":
        when += " and counts from the run's beginning (`args: {origin: start}` counts from its own)"
    return [f"{when}: the learning rate jumps from {before:g} to {after:g}"]


def _predict(
    policies: Sequence[BoundPolicy], weights: Mapping[str, nn.Parameter], epochs: int, steps_per_epoch: int
) -> tuple[list[Predicted], int, int | None]:
    """The zeros that there will be at least: by weight, and over all of them; None where only the values decide."""
    rankings: dict[frozenset[str], int] = {}
    by_value: set[str] = set()
    for bound in policies:
        policy = bound.policy
        fires = _firings(policy.window, epochs, steps_per_epoch)
        if isinstance(policy, StridedPolicy) and fires:
            by_value.update(bound.targets["weights"])
        if not isinstance(policy, PruningPolicy) or not fires:
            continue
        ends = policy.window.last + 1 < _end(policy.window, epochs, steps_per_epoch)
        if not policy.permanent and (ends or policy.discard_masks_at_minibatch_end):
            continue  # the window, or each step, ends within the run, and its masks with it
        goals = policy.pruner.goals(bound.targets, policy.window, fires[-1])
        if not goals:
            by_value.update(name for names in bound.targets.values() for name in names if name in weights)
        for goal in goals:
            names = frozenset(name for name in goal.names if name in weights)
            zeros = goal.zeros({name: tuple(weights[name].shape) for name in goal.names}) if names else 0
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


def _shared(policies: Sequence[BoundPolicy], epochs: int, steps_per_epoch: int) -> list[str]:
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
    active = {bound.key: _epochs(bound.policy.window, epochs, steps_per_epoch) for bound in learning}
    for first, second in combinations(active, 2):
        both = sorted(active[first] & active[second])
        if both:
            lines.append(f"{first} and {second} both set the learning rate in epochs {times(both)}")
    return lines


def _epochs(window: Window, epochs: int, steps_per_epoch: int) -> set[int]:
    """The epochs in which a window fires."""
    if window.unit == "epoch":
        return set(_firings(window, epochs, steps_per_epoch))
    return {time // steps_per_epoch for time in _firings(window, epochs, steps_per_epoch)}


def times(fires: Sequence[int]) -> str:
    """A list of times in few words."""
    steps = {b - a for a, b in pairwise(fires)}
    if len(steps) == 1 and (len(fires) > 2 or steps == {1}):
        step = steps.pop()
        return f"{fires[0]}..{fires[-1]}" + (f" every {step}" if step > 1 else "")
    return ", ".join(map(str, fires))


def _unreached(policies: Sequence[BoundPolicy], epochs: int, steps_per_epoch: int) -> list[str]:
    return [
        f"{bound.key} fires last in {bound.policy.window.unit} {bound.policy.window.last},"
        f" the run ends before {bound.policy.window.unit} {_end(bound.policy.window, epochs, steps_per_epoch)}"
        for bound in policies
        if bound.policy.window.last >= _end(bound.policy.window, epochs, steps_per_epoch)
    ]
