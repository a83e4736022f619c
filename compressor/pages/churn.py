"""How many weights each event pruned, and how many it let come back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from compressor.pages.numbers import amount, counted
from compressor.pages.page import Drawing, Section, Table
from compressor.pages.palette import MUTED, hue
from compressor.pages.svg import Board, short
from compressor.pages.timeline import LEFT, RIGHT, epochs_axis
from compressor.reports import recorded

_HEIGHT, _MOST_ROWS = 84, 200


@dataclass(frozen=True)
class Event:
    """A change of masks: the time in epochs, its epoch and step, the policy, and the numbers of entries."""

    at: float
    epoch: int
    step: int
    policy: str
    pruned: int
    revived: int


def events(lines: Sequence[recorded.LayersLine], steps: int) -> list[Event]:
    """Return all changes of masks in order; `steps`: those of an epoch. Epoch 3 lasts from 2.5 to 3.5."""
    return [
        Event(
            line.epoch - 0.5 + (one.step + 0.5) / max(steps, one.step + 1),
            line.epoch,
            one.step,
            one.policy,
            one.pruned,
            one.revived,
        )
        for line in lines
        for one in line.events
    ]


def section(found: Sequence[Event], epochs: int, recorded: bool) -> Section:
    """Return the part with the counts by event."""
    if not found:
        why = "no event changed a mask" if recorded else "layers.jsonl is not recorded in this run"
        return Section("churn", "Mask changes", missing=why)
    pruned, revived = sum(one.pruned for one in found), sum(one.revived for one in found)
    said = f"{counted(len(found), 'event')}: {pruned:,} entries pruned, {revived:,} revived."
    caption = said + (" No entry came back after it was pruned." if not revived else "")
    step = -(-len(found) // _MOST_ROWS)
    rows = [[str(one.epoch), str(one.step), one.policy, f"{one.pruned:,}", f"{one.revived:,}"] for one in found[::step]]
    if step > 1:
        caption += f" The table has every {step}th event."
    drawing = Drawing(
        "churn-events",
        "Entries pruned and revived by event (number of weights)",
        said,
        lambda width: _draw(found, epochs, width),
        caption,
        Table(["epoch", "step", "policy", "pruned", "revived"], rows, left=3),
    )
    return Section("churn", "Mask changes", [drawing])


def _draw(found: Sequence[Event], epochs: int, width: int) -> Board:
    parts: list[tuple[str, Mapping[float, Mapping[str, int]]]] = [("pruned", _by_place(found, "pruned", epochs, width))]
    if any(one.revived for one in found):
        parts.append(("revived", _by_place(found, "revived", epochs, width)))
    keys = list(dict.fromkeys(one.policy for one in found))
    styles = dict(
        zip(
            keys,
            cycle([("blue", ""), ("red", "///"), ("green", "..."), ("purple", "xxx"), ("ochre", "")]),
            strict=False,
        )
    )
    more = 18 if len(keys) > 1 and width < 600 else 0
    board = Board(width, len(parts) * (_HEIGHT + 46) + 14 + more)
    if len(keys) > 1:
        entries = [(short(key, 28), _style(styles[key], True)) for key in keys[: 6 if not more else 2]]
        board.key(LEFT if more else LEFT + 130, 32 if more else 14, entries, width)
    size = max(epochs / (width - LEFT - RIGHT) * 5, 0.0)
    for place, (title, bars) in enumerate(parts):
        top = 24 + place * (_HEIGHT + 46) + more
        board.text(LEFT, top - 10 - (more if not place else 0), f"weights {title}")
        axes = board.panel(LEFT, top, width - LEFT - RIGHT, _HEIGHT)
        for at, by_policy in bars.items():
            base = 0
            for key, number in by_policy.items():
                axes.bar(at, number, width=size, bottom=base, **_style(styles[key], False))
                base += number
        epochs_axis(axes, epochs)
        axes.yaxis.set_major_formatter(lambda value, _: amount(value))
    board.text(LEFT, board.height - 4, "epoch", color=hue(MUTED))
    return board


def _style(style: tuple[str, str], area: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"facecolor": hue(style[0]), "hatch": style[1], "edgecolor": hue("page"), "linewidth": 0}
    return {**found, "area": True} if area else found


def _by_place(found: Sequence[Event], name: str, epochs: int, width: int) -> dict[float, dict[str, int]]:
    """Return the numbers by place and policy; of more events than there is room for, neighbours are one bar."""
    step = epochs / (width - LEFT - RIGHT) * 6
    crowded = len({one.at for one in found}) * 6 > width - LEFT - RIGHT
    bars: dict[float, dict[str, int]] = {}
    for one in found:
        number = getattr(one, name)
        if number:
            place = round(one.at / step) * step if crowded else one.at
            bar = bars.setdefault(place, {})
            bar[one.policy] = bar.get(one.policy, 0) + number
    return bars
