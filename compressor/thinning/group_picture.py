"""Channel groups as a picture: the layers from top to bottom in the order of the forward pass, a bar for each group."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from compressor.thinning.graph import ChannelGraph
from compressor.thinning.group_table import described
from compressor.thinning.groups import Group, in_short

_ROW, _TOP, _MARGIN = 22, 96, 12
"""The height of a row, where the first one begins, and the margin, in pixels."""
_LETTER, _SMALL = 6.7, 6.1
"""The width of a letter of the fixed-width font, of the names and of the numbers, in pixels."""
_LONGEST = 32
"""The largest number of letters of a layer's name; of longer ones the end is shown."""
_NARROWEST = 376
"""The smallest width, that of a telephone: the sentences below the picture are broken to it."""
_COLOURS = 4

_STYLE = """
svg { background: #ffffff }
text { font: 11px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #1a1a1a }
.said { font: 12px system-ui, sans-serif } .head { font: bold 14px system-ui, sans-serif }
.size { font-size: 10px } .join { font-style: italic; fill: #555555 }
.page { fill: #ffffff } .even { fill: #f2f2f2 } .guide { stroke: #b5b5b5; stroke-dasharray: 1 3 }
.c0 { fill: #0072b2; stroke: #0072b2 } .c1 { fill: #d55e00; stroke: #d55e00 }
.c2 { fill: #00805d; stroke: #00805d } .c3 { fill: #a8578a; stroke: #a8578a }
.kept { stroke: #555555; fill: url(#hatch) } .hatch { stroke: #555555 }
.reads, .goes { fill: #ffffff; stroke-width: 2 } .bar { stroke-width: 1 }
@media (prefers-color-scheme: dark) {
svg { background: #16181c } text { fill: #eeeeee } .join { fill: #b0b0b0 }
.page { fill: #16181c } .even { fill: #202329 } .guide { stroke: #565a61 }
.c0 { fill: #56b4e9; stroke: #56b4e9 } .c1 { fill: #f0823c; stroke: #f0823c }
.c2 { fill: #2fc39a; stroke: #2fc39a } .c3 { fill: #dd9cc4; stroke: #dd9cc4 }
.kept, .hatch { stroke: #b0b0b0 }
.reads, .goes { fill: #16181c }
}
"""
"""Four colours like those of Okabe and Ito's palette; each has a contrast of at least 3:1 to its background."""


@dataclass
class _Row:
    """A layer, or an operation that joins layers, with its groups by what it does with them."""

    name: str
    operation: bool = False
    marks: dict[str, set[int]] = field(default_factory=dict)

    @property
    def groups(self) -> set[int]:
        return set[int]().union(*self.marks.values())


def groups_as_svg(graph: ChannelGraph, groups: Sequence[Group], name: str) -> str:
    """Return an SVG document without scripts, for light and dark pages.

    `name`: of the network. A square on a group's bar is a layer that makes its channels, a circle one that reads them,
    a diamond a depthwise convolution that goes with them, a plus an operation that joins them. Groups that stay are
    hatched.
    """
    rows = _rows(graph, groups)
    spans = _spans(rows, groups)
    columns, count = _columns(spans)
    pitch = 22 if count <= 12 else 14
    sizes = _sizes(groups, spans)
    beside = _MARGIN + max((len(_short(row.name)) for row in rows), default=0) * _LETTER + 8
    left = beside + max(map(len, sizes.values()), default=0) * _SMALL + 16
    width = round(max(left + count * pitch + _MARGIN, _NARROWEST))
    height = _TOP + len(rows) * _ROW + 10
    colours = _colours(spans)
    places = {number: left + columns[number] * pitch for number in spans}
    body = [*_shades(rows, width, left - 10, places), *_names(rows, sizes, beside)]
    for group in groups:
        if group.number in spans:
            body += _bar(group, spans[group.number], places[group.number], colours[group.number], rows)
    kept: dict[str, list[Group]] = {}
    for group in groups:
        if group.reason is not None:
            kept.setdefault(group.reason, []).append(group)
    for reason, mine in kept.items():
        numbers = ", ".join(f"#{group.number}" for group in mine[:6]) + (" and others" if len(mine) > 6 else "")
        for line in textwrap.wrap(f"{numbers} cannot be removed: {reason}", int((width - 2 * _MARGIN) / 6.4)):
            height += 18
            body.append(f'<text class="said" x="{_MARGIN}" y="{height - 6}">{escape(line)}</text>')
    height += _MARGIN
    return "\n".join([*_head(name, in_short(groups), width, height), *body, "</svg>", ""])


def _rows(graph: ChannelGraph, groups: Sequence[Group]) -> list[_Row]:
    """Return the layers that make or read channels, and the operations that join layers, in their order."""
    of_cell = {cell: group.number for group in groups for cell in group.cells}
    passing = [{of_cell[cell] for cell in node.out.tolist() if cell in of_cell} for node in graph.nodes]
    makers = {member.name for group in groups for member in group.makers}
    rows: dict[str, _Row] = {}
    for number, node in enumerate(graph.nodes):
        if node.kind in ("producer", "depthwise"):
            row = rows.setdefault(node.label, _Row(node.label))
            does = "makes" if node.label in makers else "goes"
            row.marks.setdefault(does, set()).update(passing[number])
            into = [] if node.into is None else node.into.tolist()
            row.marks.setdefault("reads", set()).update(of_cell[cell] for cell in into if cell in of_cell)
        elif node.kind == "operation" and len(node.inputs) > 1:
            joined = {g for g in passing[number] if sum(g in passing[source] for source in node.inputs) > 1}
            if joined:
                rows[f"{number} {node.label}"] = _Row(node.label, True, {"joins": joined})
    return [row for row in rows.values() if row.groups]


def _spans(rows: Sequence[_Row], groups: Sequence[Group]) -> dict[int, tuple[int, int]]:
    """Return the first and the last row of each group."""
    found: dict[int, tuple[int, int]] = {}
    for place, row in enumerate(rows):
        for number in row.groups:
            found[number] = (found.get(number, (place, place))[0], place)
    return found


def _columns(spans: dict[int, tuple[int, int]]) -> tuple[dict[int, int], int]:
    """Return the column of each group, the first one that is free over all of its rows, and the number of columns."""
    free_from: list[int] = []
    columns: dict[int, int] = {}
    for number, (first, last) in sorted(spans.items(), key=lambda item: (item[1][0], -item[1][1])):
        column = next((place for place, row in enumerate(free_from) if row < first), len(free_from))
        if column == len(free_from):
            free_from.append(0)
        free_from[column] = last
        columns[number] = column
    return columns, len(free_from)


def _colours(spans: dict[int, tuple[int, int]]) -> dict[int, int]:
    """Return a colour for each group, of those that the groups beside it leave the one that was used longest ago."""
    colours: dict[int, int] = {}
    used = list(range(_COLOURS))  # the last one was used last
    begun: list[int] = []
    for number, (first, _) in sorted(spans.items(), key=lambda item: item[1]):
        begun = [other for other in begun if spans[other][1] >= first - 1]
        beside = {colours[other] for other in begun}
        colours[number] = next((colour for colour in used if colour not in beside), used[0])
        used.remove(colours[number])
        used.append(colours[number])
        begun.append(number)
    return colours


def _short(name: str) -> str:
    if len(name) <= _LONGEST:
        return name or "the network"
    end = name[3 - _LONGEST :]
    return f"...{end[end.find('.') + 1 :] if '.' in end else end}"


def _middle(place: int) -> int:
    return _TOP + place * _ROW + _ROW // 2


def _head(name: str, said: str, width: int, height: int) -> Iterator[str]:
    """Yield the beginning of the document: what it is, the styles, and what the marks mean."""
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
        ' role="group" aria-labelledby="title desc">'
    )
    yield f'<title id="title">{escape(f"Channel groups of {name}")}</title>'
    yield f'<desc id="desc">{escape(said)}. Layers from top to bottom in the order of the forward pass.</desc>'
    yield f"<style>{_STYLE}</style>"
    yield '<defs><pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    yield '<line class="hatch" x1="1" y1="0" x2="1" y2="5" stroke-width="2"/></pattern></defs>'
    yield f'<rect class="page" width="{width}" height="{height}"/>'
    yield f'<text class="head" x="{_MARGIN}" y="24">{escape(_cut(name, 42))}</text>'
    yield f'<text class="said" x="{_MARGIN}" y="42">{escape(said)}</text>'
    x, y = _MARGIN + 6, 60
    for mark, meaning, step in (("makes", "makes", 66), ("reads", "reads", 62), ("goes", "depthwise", 86)):
        yield _mark(mark, "c0", x, y - 4)
        yield f'<text class="said" x="{x + 11}" y="{y}">{meaning}</text>'
        x += step
    yield _mark("joins", "c0", x, y - 4)
    yield f'<text class="said" x="{x + 11}" y="{y}">joins the channels</text>'
    yield f'<rect class="kept bar" x="{_MARGIN}" y="{y + 10}" width="12" height="10"/>'
    yield f'<text class="said" x="{_MARGIN + 17}" y="{y + 19}">cannot be removed</text>'
    yield f'<text class="size" x="{_MARGIN + 150}" y="{y + 19}">#3 64: group 3, 64 channels</text>'


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 3] + "..."


def _shades(rows: Sequence[_Row], width: int, left: float, places: dict[int, float]) -> Iterator[str]:
    """Yield the background of every other row, and a dotted line to its last mark."""
    for place, row in enumerate(rows):
        if place % 2 == 0:
            yield f'<rect class="even" x="0" y="{_TOP + place * _ROW}" width="{width}" height="{_ROW}"/>'
        end, y = max(places[number] for number in row.groups), _middle(place)
        yield f'<line class="guide" x1="{left:.1f}" y1="{y}" x2="{end:.1f}" y2="{y}"/>'


def _sizes(groups: Sequence[Group], spans: dict[int, tuple[int, int]]) -> dict[int, str]:
    """Return the numbers of the groups that begin in a row, and of their channels, by row."""
    begin: dict[int, list[Group]] = {}
    for group in groups:
        if group.number in spans:
            begin.setdefault(spans[group.number][0], []).append(group)
    return {
        place: " ".join(f"#{group.number} {group.channels}" for group in mine[:2])
        + (f" +{len(mine) - 2}" if len(mine) > 2 else "")
        for place, mine in begin.items()
    }


def _names(rows: Sequence[_Row], sizes: dict[int, str], beside: float) -> Iterator[str]:
    """Yield the names of the layers, and the groups that begin there."""
    for place, row in enumerate(rows):
        y, look = _middle(place) + 4, ' class="join"' if row.operation else ""
        full = f"<title>{escape(row.name)}</title>" if _short(row.name) != row.name else ""
        yield f'<text{look} x="{_MARGIN}" y="{y}">{full}{escape(_short(row.name))}</text>'
        if place in sizes:
            yield f'<text class="size" x="{beside:.1f}" y="{y}">{sizes[place]}</text>'


def _bar(group: Group, span: tuple[int, int], x: float, colour: int, rows: Sequence[_Row]) -> Iterator[str]:
    """Yield a group's bar with its marks; its title says all about it."""
    look = "kept" if group.reason is not None else f"c{colour}"
    lines = [f"group {group.number}: {group.channels} channels", *(f"{a} {b}" for a, b in described(group) if b)]
    wide = 9 if group.reason is not None else 5  # the hatching needs room
    top, bottom = _middle(span[0]) - 5, _middle(span[1]) + 5
    yield f'<g role="img"><title>{escape(chr(10).join(lines))}</title>'
    yield f'<rect class="{look} bar" x="{x - wide / 2:.1f}" y="{top}" width="{wide}" height="{bottom - top}" rx="2"/>'
    for place in range(span[0], span[1] + 1):
        for mark, numbers in rows[place].marks.items():
            if group.number in numbers:
                yield _mark(mark, look, x, _middle(place))
    yield "</g>"


def _mark(mark: str, look: str, x: float, y: int) -> str:
    if mark == "makes":
        return f'<rect class="{look} makes" x="{x - 5.5:.1f}" y="{y - 5.5}" width="11" height="11"/>'
    if mark == "reads":
        return f'<circle class="{look} reads" cx="{x:.1f}" cy="{y}" r="4.5"/>'
    if mark == "goes":
        return f'<path class="{look} goes" d="M{x:.1f} {y - 6}l6 6l-6 6l-6 -6z"/>'
    return f'<path class="{look}" stroke-width="3" d="M{x - 6:.1f} {y}h12M{x:.1f} {y - 6}v12"/>'
