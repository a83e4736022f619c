"""What the network costs: activation memory beside MACs, stored size by format; and instability."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from compressor.pages.numbers import amount, counted, milliseconds, percent, signed, size
from compressor.pages.page import Drawing, Section, Table
from compressor.pages.palette import MUTED, hue
from compressor.pages.svg import Board, boxes, short, text_width
from compressor.pages.timeline import LEFT, RIGHT, epochs_axis
from compressor.reports import Report, recorded
from compressor.storage import StoredBits

_BAR = 34


@dataclass(frozen=True)
class _Bar:
    name: str
    value: float
    told: str
    colour: str = "blue"


def section(report: Report, activations: recorded.BytesOfActivations | None) -> Section:
    """Return the part with memory, MACs, latency and stored size."""
    said: list[str] = []
    drawings = [_work(report, activations)]
    if activations is None:
        said.append("Peak activation memory is not recorded in this run.")
    elif activations.before is None and activations.after is None:
        said.append("Peak activation memory is not known: the forward pass cannot be followed.")
    if report.totals.stored_bits is not None:
        drawings.append(_stored(report.totals.stored_bits, report))
    if report.latency is not None:
        drawings.append(_latency(report))
    return Section("costs", "Cost of one forward pass, stored size", drawings, said=said)


def _work(report: Report, activations: recorded.BytesOfActivations | None) -> Drawing:
    stages = report.comparison.stages if report.comparison else []
    totals = report.totals
    dense = next((stage.macs for stage in stages if stage.name == "dense"), totals.macs)
    macs = [_Bar("dense", dense, amount(dense), "grey"), _Bar("shipped", totals.macs, amount(totals.macs))]
    macs.append(_Bar("of them non-zero", totals.macs_nonzero, amount(totals.macs_nonzero), "ochre"))
    memory: list[_Bar] = []
    if activations is not None and activations.before is not None:
        memory.append(_Bar("dense", activations.before, size(activations.before), "grey"))
    if activations is not None and activations.after is not None:
        memory.append(_Bar("shipped", activations.after, size(activations.after)))
    groups = [("MACs of one image", macs)]
    groups += [("peak memory of activations of one image", memory)] if memory else []
    what = "MACs, and peak memory of activations (bytes)" if memory else "MACs"
    rows = [[group, bar.name, bar.told] for group, bars in groups for bar in bars]
    return Drawing(
        "work",
        f"One image: {what}",
        "; ".join(f"{group}, {bar.name}: {bar.told}" for group, bars in groups for bar in bars) + ".",
        lambda width: _draw_bars(groups, width),
        "Non-zero: what a perfect sparse kernel would do. Memory: counted from a trace of the forward pass.",
        Table(["what", "network", "amount"], rows, left=2),
        beside=3,
    )


def stored_forms(bits: StoredBits) -> list[tuple[str, int]]:
    """Return the bytes of each form in which the network can be stored."""
    names = {
        "dense": bits.dense,
        "CSR": bits.csr,
        "bitmask": bits.bitmask,
        "relative index, Han's widths": bits.relative_han,
        "relative index, best widths": bits.relative,
        "Golomb-Rice gaps": bits.rice,
        "packed file": bits.packed,
    }
    return [(name, -(-count // 8)) for name, count in names.items() if count is not None]


def _stored(bits: StoredBits, report: Report) -> Drawing:
    forms = stored_forms(bits)
    least = min(count for _, count in forms)
    bound = [] if bits.entropy is None else [("entropy bound", -(-bits.entropy // 8))]
    bars = [_Bar(name, count, size(count), "grey" if count > least else "blue") for name, count in forms]
    bars += [_Bar(name, count, size(count), "grey") for name, count in bound]
    rates = report.totals.rates
    said = "; ".join(f"{name}: {size(count)}" for name, count in forms + bound)
    caption = (
        "All bits that decoding needs, with headers and fillers; biases and buffers are stored densely. The packed file"
        " is that of compress export --format packed, without its header. The bound: the fewest bits, on average,"
        " where zeros lie independently of each other."
    )
    if rates is not None and rates.bits is not None:
        caption += f" The dense network is {rates.bits:.1f} times as large as the form with the best widths."
    return Drawing(
        "stored",
        "Stored size by format (bytes)",
        said + ".",
        lambda width: _draw_bars([("", bars)], width),
        caption,
        Table(["format", "bytes"], [[name, f"{count:,}"] for name, count in forms + bound]),
        beside=3,
    )


def _latency(report: Report) -> Drawing:
    found = report.latency
    assert found is not None
    groups = []
    for batch in found.rounds:
        bars = [
            _Bar(
                timing.stage,
                timing.milliseconds,
                f"{milliseconds(timing.milliseconds)} ± {timing.interquartile_range:.2g}",
                "grey" if timing.stage == "dense" else "blue",
            )
            for timing in found.timings
            if timing.batch == batch
        ]
        groups.append((f"batch of {batch} (ms)" if batch > 1 else "one image (ms)", bars))
    threads = "1 thread" if found.threads == 1 else f"{found.threads} threads"
    caption = f"Median and interquartile range, on {threads} of the {found.device}, networks in turns."
    caption += "".join(f" {warning[:1].upper()}{warning[1:]}." for warning in found.warnings)
    rows = [
        [
            timing.stage,
            str(timing.batch),
            milliseconds(timing.milliseconds),
            milliseconds(timing.interquartile_range),
            "–" if timing.times_as_fast is None else f"{timing.times_as_fast:.2f}",
        ]
        for timing in found.timings
    ]
    return Drawing(
        "latency",
        "Latency of a forward pass (ms)",
        "; ".join(f"{group}, {bar.name}: {bar.told}" for group, bars in groups for bar in bars) + ".",
        lambda width: _draw_bars(groups, width),
        caption,
        Table(["network", "batch", "median", "interquartile range", "times as fast"], rows),
        beside=3,
    )


def _draw_bars(groups: Sequence[tuple[str, Sequence[_Bar]]], width: int) -> Board:
    """Draw bars with their names above them and their values beside these; each group has a scale of its own."""
    height = sum((24 if title else 4) + _BAR * len(bars) + 8 for title, bars in groups)
    board = Board(width, height)
    top = 0.0
    for title, bars in groups:
        if title:
            board.text(0, top + 14, title)
        top += 24 if title else 4
        axes = board.panel(0, top, width - 2, _BAR * len(bars))
        axes.set_axis_off()
        axes.set_xlim(0, max((bar.value for bar in bars), default=1) or 1)
        axes.set_ylim(_BAR * len(bars), 0)
        for place, bar in enumerate(bars):
            board.text(
                0, top + place * _BAR + 12, board.fitting(bar.name, width - text_width(bar.told) - 12), color=hue(MUTED)
            )
            board.text(width - 2, top + place * _BAR + 12, bar.told, ha="right")
        boxes(axes, [(0, place * _BAR + 17, bar.value, 10, hue(bar.colour)) for place, bar in enumerate(bars)])
        top += _BAR * len(bars) + 8
    return board


def instability(lines: Sequence[recorded.EpochLine], epochs: int) -> Section | None:
    """Return the part with the instability of pruning events, where a policy measured it; else None."""
    found: dict[str, list[tuple[int, float, float | None, float | None]]] = {}
    for line in lines:
        for key, figures in line.figures.items():
            value = figures.get("instability")
            if value is not None:
                found.setdefault(key, []).append((line.epoch, value, figures.get("before"), figures.get("after")))
    measured = {key for line in lines for key, figures in line.figures.items() if "mean_instability" in figures}
    if not found:
        why = "no event pruned something while it was measured" if measured else None
        return Section("instability", "Instability of pruning", missing=why) if why else None
    rows = [
        [str(epoch), key, percent(before), percent(after), f"{signed(100 * value)} %"]
        for key, events in found.items()
        for epoch, value, before, after in events
    ]
    means = {key: 100 * sum(event[1] for event in events) / len(events) for key, events in found.items()}
    said = "; ".join(
        f"{key}: mean instability {signed(mean)} % over {counted(len(found[key]), 'event')}"
        for key, mean in means.items()
    )
    drawing = Drawing(
        "instability-events",
        "Instability by pruning event (% of the accuracy before)",
        said + ".",
        lambda width: _draw_instability(found, epochs, width),
        said + ". The accuracy that an event costs at once, divided by the accuracy before (Bartoldson et al. 2020).",
        Table(["epoch", "policy", "top-1 before", "top-1 after", "instability"], rows, left=2),
    )
    return Section("instability", "Instability of pruning", [drawing])


def _draw_instability(found: Mapping[str, Sequence[tuple[Any, ...]]], epochs: int, width: int) -> Board:
    board = Board(width, 176)
    axes = board.panel(LEFT, 26, width - LEFT - RIGHT, 104)
    styles = cycle([("blue", "o"), ("red", "s"), ("green", "^"), ("purple", "D")])
    entries = []
    for (key, events), (colour, marker) in zip(found.items(), styles, strict=False):
        style: dict[str, Any] = {"color": hue(colour), "marker": marker, "linestyle": "none", "markersize": 6}
        x, y = [event[0] for event in events], [100 * event[1] for event in events]
        axes.vlines(x, 0, y, color=hue(colour), linewidth=1.5)
        axes.plot(x, y, **style)
        entries.append((short(key, 26), style))
    if len(entries) > 1:
        board.key(LEFT, 14, entries[:3], width)
    else:
        board.text(LEFT, 14, "instability (%)")
    epochs_axis(axes, epochs)
    board.text(LEFT, 170, "epoch", color=hue(MUTED))
    return board
