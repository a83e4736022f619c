"""A plan as text."""

from collections.abc import Mapping
from typing import TypeVar

from compressor.schedule.plan import Plan, PlannedPolicy, times
from compressor.tables import Column, table, wrapped
from compressor.thinning import groups_in_short

T = TypeVar("T")


_COLUMNS = [
    Column("name", left=True, shortened="middle"),
    Column("shape", rank=2),
    Column("weights", rank=1),
    Column("predicted", left=True, shortened="end"),
]


def as_table(plan: Plan, width: int | None = None) -> str:
    """Return policies, learning rate by epoch, predicted sparsity, and conflicts, as text. `width`: that of the
    terminal, which no line exceeds; None: any.
    """
    lines: list[str] = []
    for policy in plan.policies:
        lines += _policy(policy)
    lines += ["", "learning rate by epoch:", *_runs([_rate(rate) for rate in plan.lr])]
    lines = [wrapped(line, width) for line in lines]
    lines += ["", "predicted at the end (at least these zeros):", *_predicted(plan, width)]
    if plan.total_sparsity is not None:
        share = f"sparsity {100 * plan.total_sparsity:.2f} %"
        if plan.total_sparsity_all is not None:
            share += f", sparsity_all {100 * plan.total_sparsity_all:.2f} % of {plan.total_parameters:,} parameters"
        total = f"  total: {plan.total_nonzero:,} of {plan.total_weights:,} weights non-zero, {share}"
    else:
        total = f"  total: {plan.total_weights:,} weights, their sparsity is not known before the run"
    lines.append(wrapped(total, width))
    if plan.channel_groups:
        lines += ["", wrapped("channel groups that are pruned (`compress thin --explain` shows all):", width)]
        lines += [f"  {line}" for line in groups_in_short(plan.channel_groups, None if width is None else width - 2)]
    if plan.conflicts:
        lines += ["", "conflicts:", *(wrapped(f"  {line}", width) for line in plan.conflicts)]
    return "\n".join(lines)


def _predicted(plan: Plan, width: int | None) -> list[str]:
    """Return a line for each weight; where a reason is cut, all reasons below."""
    rows, reasons = [], list[str]()
    for row in plan.predicted:
        known = f"sparsity {100 * row.sparsity:6.2f} %, {row.nonzero:,} non-zero" if row.sparsity is not None else ""
        if not known:
            known = f"not known before the run: {row.reason}"
            reasons.append(f"  {known}")
        rows.append([row.name, "x".join(map(str, row.shape)), f"{row.weights:,}", known])
    made = table(_COLUMNS, rows, None if width is None else width - 2)
    found = [f"  {line}" for line in made.rows]
    cut = [reason for reason in dict.fromkeys(reasons) if not any(line.endswith(reason.strip()) for line in found)]
    head = [f"  {made.head}"] if rows else []
    return [*head, *found, *(wrapped(line, width) for line in [*cut, *made.note(None)])]


def _rate(rate: float | None) -> str:
    return "decided by validation" if rate is None else f"{rate:.6g}"


def _policy(policy: PlannedPolicy) -> list[str]:
    fires = policy.fires
    when = f"{policy.unit}s {times(fires)}" if fires else "never in this run"
    lines = [f"{policy.key} ({policy.kind}: {policy.component}): {when}"]
    for weight in policy.weights:
        lines.append(f"  {weight.name}  {'x'.join(map(str, weight.shape))}")
    if policy.sparsity:
        lines.append("  sparsity: " + ", ".join(f"{time}: {100 * s:.2f} %" for time, s in _few(policy.sparsity)))
    if policy.otherwise:
        said = ", ".join(f"{time}: {text}" for time, text in _few(policy.otherwise))
        lines.append(f"    after the removal of channels: {said}")
    if policy.budget:
        lines += _budget(policy)
    if policy.threshold:
        lines.append("  threshold: " + ", ".join(f"{time}: {said}" for time, said in _few(policy.threshold)))
    return lines


def _budget(policy: PlannedPolicy) -> list[str]:
    """Return what is left after thinning at each time, and the shapes of the weights at the last one."""
    said = []
    for time, budget in _few(policy.budget):
        kind = "MACs" if budget.unit == "macs" else budget.unit
        found = f"{time}: at most {100 * budget.asked:.2f} % of {budget.dense:,} {kind}"
        if budget.left is not None:
            found += f", that is {budget.left:,} ({100 * budget.left / budget.dense:.2f} %)"
        said.append(found)
    last = list(policy.budget.values())[-1]
    lines = [f"  left after thinning: {'; '.join(said)}"]
    if last.left is None:
        return [*lines, "    which channels are left depends on the weights in the run"]
    shapes = [["x".join(map(str, shape)) for shape in (weight.shape, weight.left)] for weight in last.weights]
    return [
        *lines,
        *(f"    {weight.name}  {' -> '.join(two)}" for weight, two in zip(last.weights, shapes, strict=True)),
    ]


def _few(values: Mapping[int, T]) -> list[tuple[int, T]]:
    """Return up to 16 of the entries, evenly spread, with the last one; equal neighbours once."""
    items = [item for i, item in enumerate(values.items()) if i == 0 or item[1] != list(values.values())[i - 1]]
    if len(items) <= 16:
        return items
    return [items[round(i * (len(items) - 1) / 15)] for i in range(16)]


def _runs(values: list[str]) -> list[str]:
    lines = []
    start = 0
    for index in range(1, len(values) + 1):
        if index == len(values) or values[index] != values[start]:
            span = f"{start}" if index - start == 1 else f"{start}..{index - 1}"
            lines.append(f"  {span}: {values[start]}")
            start = index
    return lines
