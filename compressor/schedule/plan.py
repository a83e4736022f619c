"""The plan of a schedule, epoch by epoch, without training: the answers of its policies."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_serializer

from compressor.context import Budgeted
from compressor.policies.policy import BoundPolicy, Moment, View
from compressor.schedule.widths import widths
from compressor.sparsity import in_use, prunable
from compressor.thinning import ChannelGraph, Group, groups
from compressor.timing import Clock, Window

MAX_FIRINGS, MAX_VALUES = 100_000, 1_000
"""The largest length of a list; of longer ones an even sample is shown, with both ends."""


class Matched(BaseModel):
    """A weight on which a policy acts; or a module, without a shape."""

    model_config = ConfigDict(frozen=True)

    name: str
    shape: list[int]


class Narrowed(BaseModel):
    """A weight that becomes smaller: its dense shape, and what is left of it."""

    model_config = ConfigDict(frozen=True)

    name: str
    shape: list[int]
    left: list[int]


class PlannedBudget(BaseModel):
    """What is left of the network after thinning: at most `most`, the fraction `asked` of the `dense` network's `unit`.

    `left` is what will be left; null, and no weights, where only the run shows it.
    """

    model_config = ConfigDict(frozen=True)

    unit: str
    asked: float
    most: int
    dense: int
    left: int | None
    weights: list[Narrowed]


class PlannedPolicy(BaseModel):
    """When a policy acts, on which weights, and the sparsity that it holds (or the threshold) at each of those
    times.
    """

    model_config = ConfigDict(frozen=True)

    key: str
    kind: str
    component: str
    unit: str
    fires: list[int]
    weights: list[Matched]
    sparsity: dict[int, float]
    threshold: dict[int, str]
    otherwise: dict[int, str] = {}
    """What the sparsity refers to, and its value in the other meaning, where removed channels make them differ."""
    budget: dict[int, PlannedBudget] = {}


class Predicted(BaseModel):
    """A weight at the end of the run. `nonzero` is an upper bound; None, with a reason, where only the run shows it."""

    model_config = ConfigDict(frozen=True)

    name: str
    shape: list[int]
    weights: int
    nonzero: int | None
    sparsity: float | None
    reason: str | None = None
    prunable: bool = True
    """Whether it is the weight of a convolution or linear layer: `total_sparsity` counts these."""


class Plan(BaseModel):
    """The whole plan. `lr` is the rate of the first step of each epoch, None from where validation decides it.

    As JSON (`plan --json`) it carries `schema`: the number rises when a key goes, or changes its name or its meaning; a
    new key may join at any time. Sparsities are fractions.
    """

    model_config = ConfigDict(frozen=True)

    layout: Literal[1] = Field(default=1, alias="schema")
    epochs: int
    steps_per_epoch: int = 1
    """Optimizer steps; 1 where no policy counts them."""
    policies: list[PlannedPolicy]
    lr: list[float | None]
    predicted: list[Predicted]
    total_weights: int
    total_nonzero: int | None
    total_sparsity: float | None
    total_parameters: int = 0
    total_sparsity_all: float | None = None
    """The fraction of zeros of all parameters."""
    conflicts: list[str]
    channel_groups: list[Group] = []
    """The groups of channels that its policies prune, of a schedule that prunes whole filters or removes channels."""

    @field_serializer("channel_groups")
    def _as_data(self, groups: list[Group]) -> list[dict[str, Any]]:
        return [group.data() for group in groups]


def make_plan(policies: Sequence[BoundPolicy], view: View, clock: Clock) -> Plan:
    """Return the plan of bound policies over the model of `view`, which may be without storage."""
    view = replace(view, epochs=clock.epochs)
    view.once("widths", lambda: widths(policies, view))
    rates, jumps = _rates(policies, view, clock)
    rows, total, nonzero, zeros = _predict(policies, view, clock)
    parameters = sum(parameter.numel() for parameter in view.model.parameters())
    return Plan(
        epochs=clock.epochs,
        steps_per_epoch=clock.steps_per_epoch,
        policies=[_policy(bound, bound.view(view), clock) for bound in policies],
        lr=rates,
        predicted=rows,
        total_weights=total,
        total_nonzero=nonzero,
        total_sparsity=None if nonzero is None or not total else 1 - nonzero / total,
        total_parameters=parameters,
        total_sparsity_all=None if zeros is None or not parameters else zeros / parameters,
        conflicts=[*_shared(policies, clock), *jumps, *_unreached(policies, clock)],
        channel_groups=_channel_groups(policies, view),
    )


def _channel_groups(policies: Sequence[BoundPolicy], view: View) -> list[Group]:
    """Return the channel groups of which the policies prune filters or channels; where some policy removes channels,
    of which they prune anything.
    """
    chosen = {slices for bound in policies for slices in bound.policy.whole_slices(bound.view(view))}
    if any(bound.policy.removes_channels != "none" for bound in policies):
        chosen |= {(name, 0) for bound in policies if bound.policy.prunes for name in bound.names}
    graph = view.graph if chosen else None
    if not isinstance(graph, ChannelGraph):
        return []
    weights = graph.weights
    return [
        group
        for group in groups(graph)
        if chosen & {(weights.get(one.name, ""), 0) for one in group.makers}
        or chosen & {(weights.get(one.name, ""), 1) for one in group.readers}
    ]


def _firings(window: Window, clock: Clock) -> Sequence[int]:
    end = min(window.end, clock.end(window))
    if window.epochs is None:
        return range(window.first, end, window.step)
    return [epoch for epoch in sorted(set(window.epochs)) if epoch < end]


def _sample(times: Sequence[int], most: int) -> list[int]:
    if len(times) <= most:
        return list(times)
    return [times[round(index * (len(times) - 1) / (most - 1))] for index in range(most)]


def _policy(bound: BoundPolicy, view: View, clock: Clock) -> PlannedPolicy:
    policy = bound.policy
    fires = _firings(policy.window, clock)
    sparsity: dict[int, float] = {}
    threshold: dict[int, str] = {}
    otherwise: dict[int, str] = {}
    budget: dict[int, PlannedBudget] = {}
    for time in _sample(fires, MAX_VALUES):
        found = policy.predict(view, clock, time)
        if found.asked is not None:
            sparsity[time] = found.asked
        if found.otherwise:
            otherwise[time] = found.otherwise
        if found.budget is not None:
            budget[time] = _budget(found.budget, view)
        said = policy.thresholds(view, time)
        if said is not None:
            threshold[time] = said
    shapes = _shapes(view)
    return PlannedPolicy(
        key=bound.key,
        kind=policy.name,
        component=policy.applied.name,
        unit=policy.window.unit,
        fires=_sample(fires, MAX_FIRINGS),
        weights=[Matched(name=name, shape=shapes.get(name, [])) for name in bound.names],
        sparsity=sparsity,
        threshold=threshold,
        otherwise=otherwise,
        budget=budget,
    )


def _shapes(view: View) -> dict[str, list[int]]:
    """Return the shapes of the dense model's parameters, as they are stored."""
    return {name: list(parameter.shape) for name, parameter in view.model.named_parameters()}


def _budget(found: Budgeted, view: View) -> PlannedBudget:
    shapes = _shapes(view)
    return PlannedBudget(
        unit=found.unit,
        asked=found.asked,
        most=found.most,
        dense=found.dense,
        left=found.left,
        weights=[Narrowed(name=name, shape=shapes[name], left=list(shape)) for name, shape in found.shapes.items()],
    )


def _rates(policies: Sequence[BoundPolicy], view: View, run: Clock) -> tuple[list[float | None], list[str]]:
    """Return the rate at the beginning of each epoch, and the places where a policy's start makes it jump."""
    setting = [bound for bound in policies if bound.policy.sets_rates]
    watched = min((bound.policy.window.first for bound in setting if bound.policy.needs_validation), default=run.epochs)
    setting = [bound for bound in setting if not bound.policy.needs_validation]
    by_step = any(bound.policy.counts_steps for bound in setting)
    groups: list[dict[str, Any]] = [{"initial_lr": group["lr"], **group} for group in view.groups]
    clock = Clock(run.epochs, run.steps_per_epoch, pace=run.pace)
    rates: list[float | None] = []
    jumps: list[str] = []

    def decide(bound: BoundPolicy, moment: Moment) -> None:
        for group, decided in zip(groups, bound.policy.learning_rates(clock, moment, groups) or (), strict=False):
            group.update(decided)

    for clock.epoch in range(run.epochs):
        for clock.step in range(run.steps_per_epoch if by_step else 1):
            active = [bound for bound in setting if clock.active(bound.policy.window)]
            for bound in active:
                if clock.begins(bound.policy.window):
                    jump = bound.policy.jump(clock, groups) if bound.policy.window.first > 0 else None
                    jumps += [] if jump is None else [f"{bound.key} {jump}"]
                    decide(bound, "enter")
            if clock.step == 0:
                factors = [one.policy.rate_factor(clock) for one in policies if clock.active(one.policy.window)]
                rates.append(None if clock.epoch > watched else float(groups[0]["lr"]) * math.prod(factors))
            for bound in active:
                decide(bound, "step")
        for bound in [bound for bound in setting if bound.policy.window.unit == "epoch"]:
            if clock.active(bound.policy.window):
                decide(bound, "epoch")
    return rates, jumps


def _predict(
    policies: Sequence[BoundPolicy], view: View, clock: Clock
) -> tuple[list[Predicted], int, int | None, int | None]:
    """Return the weights with the zeros that there are at least; the number of prunable weights, and of those that are
    not zero; and the zeros of all. None where only the run shows them.
    """
    counted = prunable(view.model)
    weights = {name: tensor for name, tensor in in_use(view.model).items() if tensor.dim() > 1}
    rankings: dict[frozenset[str], int] = {}
    reasons: dict[str, str] = {}
    for bound in policies:
        if not _firings(bound.policy.window, clock):
            continue
        found = bound.policy.predict(bound.view(view), clock, clock.end(bound.policy.window) - 1)
        reasons |= {name: reason for name, reason in found.unknown.items() if name in weights}
        for names, zeros in found.zeros.items():
            mine = frozenset(name for name in names if name in weights)
            if mine:
                rankings[mine] = max(rankings.get(mine, 0), zeros)
    shared = {
        name: "it is ranked together with other weights" for names in rankings if len(names) > 1 for name in names
    }
    rows = []
    for name, weight in weights.items():
        reason = reasons.get(name, shared.get(name))
        zeros, count = rankings.get(frozenset([name]), 0), weight.numel()
        rows.append(
            Predicted(
                name=name,
                shape=list(weight.shape),
                weights=count,
                nonzero=None if reason else count - zeros,
                sparsity=None if reason else zeros / max(count, 1),
                reason=reason,
                prunable=name in counted,
            )
        )
    total = sum(weight.numel() for weight in counted.values())
    # Of a ranking that has other weights, too, these may take as many zeros as they have entries.
    least: dict[frozenset[str], int] = {}
    for ranked, zeros in rankings.items():
        inside = frozenset(name for name in ranked if name in counted)
        sure = zeros - sum(weights[name].numel() for name in ranked - inside)
        least[inside] = max(least.get(inside, 0), sure)
    nonzero = None if any(name in counted for name in reasons) else total - _disjoint(least)
    return rows, total, nonzero, None if reasons else _disjoint(rankings)


def _disjoint(rankings: Mapping[frozenset[str], int]) -> int:
    """Return the zeros of rankings that share no weight, the largest first: overlapping ones may be the same zeros."""
    taken: set[str] = set()
    zeros = 0
    for names, count in sorted(rankings.items(), key=lambda item: -item[1]):
        if not names & taken:
            taken |= names
            zeros += count
    return zeros


def _shared(policies: Sequence[BoundPolicy], clock: Clock) -> list[str]:
    """Return weights that two pruners act on, and epochs in which two schedules set the learning rate."""
    pruners: dict[str, list[str]] = defaultdict(list)
    for bound in policies:
        for name in bound.names if bound.policy.prunes else ():
            pruners[name].append(bound.key)
    lines = [
        f"{' and '.join(keys)} both prune {name}: a weight stays where all of them keep it"
        for name, keys in pruners.items()
        if len(keys) > 1
    ]
    active = {bound.key: _epochs(bound.policy.window, clock) for bound in policies if bound.policy.sets_rates}
    for first, second in combinations(active, 2):
        both = sorted(active[first] & active[second])
        if both:
            lines.append(f"{first} and {second} both set the learning rate in epochs {times(both)}")
    return lines


def _epochs(window: Window, clock: Clock) -> set[int]:
    """Return the epochs in which a window fires."""
    return {clock.epoch_of(window, time) for time in _firings(window, clock)}


def times(fires: Sequence[int]) -> str:
    """Return a list of times in few words."""
    steps = {b - a for a, b in pairwise(fires)}
    if len(steps) == 1 and (len(fires) > 2 or steps == {1}):
        step = steps.pop()
        return f"{fires[0]}..{fires[-1]}" + (f" every {step}" if step > 1 else "")
    return ", ".join(map(str, fires))


def _unreached(policies: Sequence[BoundPolicy], clock: Clock) -> list[str]:
    windows = {bound.key: bound.policy.window for bound in policies}
    return [
        f"{key} acts last in {window.unit} {window.last}, the run ends before {window.unit} {clock.end(window)}"
        for key, window in windows.items()
        if window.last >= clock.end(window)
    ]
