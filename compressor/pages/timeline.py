"""A schedule as a timeline: a lane for each policy, in epochs; its windows as bars, single events as diamonds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from compressor.pages.numbers import amount, counted, fraction
from compressor.pages.page import Drawing, Section, Table
from compressor.pages.palette import GRID, INK, MUTED, hue
from compressor.pages.svg import Board, short, text_width
from compressor.schedule import Plan, PlannedPolicy, times

LEFT, RIGHT = 46, 14
"""The margins of every drawing over epochs, in pixels, so that these stand one below the other."""
_LANE, _TOP, _BOTTOM = 40, 4, 38
_NARROWEST = 8
"""The smallest width of a bar, in pixels; a shorter time is a diamond."""
_KINDS: Mapping[str, tuple[str, str]] = {
    "pruner": ("blue", ""),
    "channel_pruning": ("blue", "///"),
    "strided": ("blue", "..."),
    "gate": ("purple", ""),
    "dropout": ("purple", "///"),
    "noise": ("purple", "..."),
    "regularizer": ("red", ""),
    "dsd": ("green", "///"),
    "iht": ("green", "..."),
    "extension": ("green", ""),
    "lr_scheduler": ("ochre", ""),
}
"""The colour and the hatch of the policies of each kind; of all others grey."""


@dataclass(frozen=True)
class Window:
    """A policy's times of action, as a range of epochs: epoch 3 lasts from 2.5 to 3.5."""

    policy: PlannedPolicy
    runs: Sequence[tuple[float, float]]
    """Times without a gap of more than an epoch between them."""

    @property
    def first(self) -> float:
        return self.runs[0][0]

    @property
    def last(self) -> float:
        return self.runs[-1][1]

    @property
    def style(self) -> tuple[str, str]:
        """Return colour and hatch."""
        name, hatch = _KINDS.get(self.policy.kind, ("grey", ""))
        return hue(name), hatch


def windows(plan: Plan) -> list[Window]:
    """Return the window of each policy that acts in the run, in the schedule's order."""
    return [Window(policy, _runs(policy, plan.steps_per_epoch)) for policy in plan.policies if policy.fires]


def _runs(policy: PlannedPolicy, steps: int) -> list[tuple[float, float]]:
    size = 1.0 if policy.unit == "epoch" else 1 / max(steps, 1)
    found: list[list[int]] = [[policy.fires[0], policy.fires[0]]]
    for before, fire in pairwise(policy.fires):
        if (fire - before) * size > 1:
            found.append([fire, fire])
        else:
            found[-1][1] = fire
    return [(first * size - 0.5, (last + 1) * size - 0.5) for first, last in found]


def epochs_axis(axes: Axes, epochs: int) -> None:
    """Let the x axis be that of the run's epochs, with whole numbers."""
    axes.set_xlim(-0.5, max(epochs, 1) - 0.5)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))


def section(
    plan: Plan | None, missing: str | None, *, epochs: int, events: Sequence[tuple[float, str]] = ()
) -> Section:
    """Return the part of a page with the timeline; `events`: the changes of masks of a run, as (epoch, policy)."""
    if plan is None or not windows(plan):
        why = missing or "no schedule: the network was trained without a policy"
        return Section("timeline", "Schedule", missing=why)
    found = windows(plan)
    hidden = [policy.key for policy in plan.policies if not policy.fires]
    never = f" Never active in this run: {', '.join(hidden)}." if hidden else ""
    ticked = " Ticks below a bar: the masks changed." if events else ""
    return Section(
        "timeline",
        "Schedule",
        [
            Drawing(
                "timeline-lanes",
                "When each policy acts (epochs, counted from 0)",
                "A lane for each policy of the schedule, over the run's epochs. "
                + "; ".join(f"{window.policy.key}: {_when(window.policy)}" for window in found),
                lambda width: _draw(found, epochs, events, width),
                f"A bar: active in all these epochs; a diamond: a single event, too short for a bar.{ticked}{never}",
                _table(plan),
            )
        ],
        said=[f"Conflict: {line}" for line in plan.conflicts],
    )


def _when(policy: PlannedPolicy) -> str:
    return f"{policy.unit}s {times(policy.fires)}" if len(policy.fires) > 1 else f"{policy.unit} {policy.fires[0]}"


def _asked(policy: PlannedPolicy) -> str:
    """Return the sparsities that a policy asks for first and last, or its last budget or threshold."""
    if policy.sparsity:
        values = list(policy.sparsity.values())
        first, last = values[0], values[-1]
        return fraction(last, 1) if first == last else f"{100 * first:.1f} to {fraction(last, 1)}"
    if policy.budget:
        last_budget = list(policy.budget.values())[-1]
        return f"at most {amount(last_budget.most)} {'MACs' if last_budget.unit == 'macs' else last_budget.unit}"
    return ""


def _table(plan: Plan) -> Table:
    rows = [
        [
            policy.key,
            f"{policy.kind}: {policy.component}",
            _when(policy) if policy.fires else "never in this run",
            _asked(policy) or "–",
            ", ".join(weight.name for weight in policy.weights[:4]) + (" …" if len(policy.weights) > 4 else ""),
        ]
        for policy in plan.policies
    ]
    return Table(["policy", "what it is", "active", "sparsity", "acts on"], rows, left=5)


def _draw(found: Sequence[Window], epochs: int, events: Sequence[tuple[float, str]], width: int) -> Board:
    height = _TOP + _LANE * len(found) + _BOTTOM
    board = Board(width, height)
    axes = board.panel(LEFT, _TOP, width - LEFT - RIGHT, _LANE * len(found))
    epochs_axis(axes, epochs)
    axes.set_ylim(_LANE * len(found), 0)
    axes.set_yticks([])
    axes.grid(axis="x")
    per_pixel = epochs / (width - LEFT - RIGHT)
    for place, window in enumerate(found):
        top, (colour, hatch) = place * _LANE, window.style
        if len(window.runs) > 1:
            axes.plot([window.first, window.last], [top + 27, top + 27], color=hue(GRID), linewidth=1.5, zorder=1)
        for first, last in window.runs:
            if last - first < _NARROWEST * per_pixel:
                axes.plot([(first + last) / 2], [top + 27], marker="D", markersize=7, color=colour, clip_on=False)
            else:
                axes.broken_barh(
                    [(first, last - first)],
                    (top + 21, 12),
                    facecolor=colour,
                    hatch=hatch,
                    edgecolor="white",
                    linewidth=0,
                )
        mine = [epoch for epoch, policy in events if policy == window.policy.key]
        axes.vlines(mine, top + 34, top + 39, color=hue(INK), linewidth=1.5)
        _label(board, window, _TOP + top + 15, epochs)
    board.text(LEFT, height - 4, "epoch", color=hue(MUTED))
    return board


def _label(board: Board, window: Window, level: float, epochs: int) -> None:
    """Write what a policy is above its bar: from its left end, or up to its right one, or where there is room."""
    policy, asked, room = window.policy, _asked(window.policy), board.width - LEFT - RIGHT
    parts = [policy.key, f"{policy.kind}: {policy.component}", asked, _when(policy)]
    if board.width < 600:
        parts = [policy.key, asked or policy.component]
    text = board.fitting("  ·  ".join(part for part in parts if part), room)
    left, right = (LEFT + room * (end + 0.5) / epochs for end in (window.first, min(window.last, epochs - 0.5)))
    if left + text_width(text) <= LEFT + room:
        board.text(left, level, text)
    elif right - text_width(text) >= LEFT:
        board.text(right, level, text, ha="right")
    else:
        board.text(LEFT + room, level, text, ha="right")


def planned(plan: Plan) -> Section:
    """Return the part with what a plan predicts: learning rate and asked sparsities by epoch, zeros by weight."""
    asking = [window for window in windows(plan) if window.policy.sparsity]
    rates = [(epoch, rate) for epoch, rate in enumerate(plan.lr) if rate is not None]
    unknown = len(plan.lr) - len(rates)
    drawing = Drawing(
        "plan-curves",
        "Planned sparsity (%) and learning rate by epoch",
        "; ".join(
            [f"{window.policy.key} asks for {_asked(window.policy)}" for window in asking]
            + ([f"learning rate {rates[0][1]:.4g} to {rates[-1][1]:.4g}"] if rates else [])
        ),
        lambda width: _curves(plan, asking, rates, width),
        f"The learning rate of {counted(unknown, 'epoch')} is decided by validation." if unknown else "",
        Table(["epoch", "learning rate"], [[str(epoch), f"{rate:.6g}"] for epoch, rate in rates]),
    )
    total = "the total sparsity is known only after the run"
    if plan.total_sparsity is not None:
        total = f"{fraction(plan.total_sparsity)} of {plan.total_weights:,} weights are zero"
    rows = [
        [
            row.name,
            "x".join(map(str, row.shape)),
            f"{row.weights:,}",
            "–" if row.nonzero is None else f"{row.nonzero:,}",
            fraction(row.sparsity),
            *([row.reason or ""] if any(one.reason for one in plan.predicted) else []),
        ]
        for row in plan.predicted
    ]
    heads = ["weight", "shape", "weights", "non-zero", "sparsity", "why it is not known"]
    heads = heads[: len(rows[0])] if rows else heads
    said = [f"At the end at least these zeros are expected: {total}."]
    return Section("predicted", "What is expected", [drawing], said, table=Table(heads, rows, left=2))


def _curves(plan: Plan, asking: Sequence[Window], rates: Sequence[tuple[int, float]], width: int) -> Board:
    panels = [part for part, there in (("sparsity", asking), ("rate", rates)) if there]
    board = Board(width, 40 + 130 * max(len(panels), 1))
    for place, part in enumerate(panels):
        axes = board.panel(LEFT, 28 + 130 * place, width - LEFT - RIGHT, 92)
        epochs_axis(axes, plan.epochs)
        if place + 1 < len(panels):
            axes.tick_params(axis="x", labelbottom=False)
        if part == "rate":
            board.text(LEFT, 18 + 130 * place, "learning rate")
            axes.plot(*zip(*rates, strict=True), color=hue("ochre"), drawstyle="steps-mid")
            axes.set_ylim(bottom=0)
            continue
        entries: list[tuple[str, dict[str, Any]]] = []
        for window, dashes in zip(asking, ["-", "--", "-.", ":"] * len(asking), strict=False):
            size = 1.0 if window.policy.unit == "epoch" else 1 / max(plan.steps_per_epoch, 1)
            x = [time * size - (0 if size == 1 else 0.5) for time in window.policy.sparsity]
            colour = hue(("blue", "red", "green", "purple")[asking.index(window) % 4])
            style: dict[str, Any] = {"color": colour, "linestyle": dashes}
            axes.plot(
                x,
                [100 * value for value in window.policy.sparsity.values()],
                **style,
                marker="o",
                markersize=3,
                drawstyle="steps-post",
            )
            entries.append((short(window.policy.key, 24), style))
        axes.set_ylim(0, 104)
        board.text(LEFT, 18 + 130 * place, "sparsity asked for (%)")
        board.key(LEFT + 150, 18 + 130 * place, entries[: 8 if width > 600 else 1], width)
    board.text(LEFT, board.height - 2, "epoch", color=hue(MUTED))
    return board
