"""The graph of a network as a picture: a row for each layer and operation, lines from each result to its readers."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from compressor.reports.summary import LayerSummary, Node, Summary, percent, shown, totals

_ROW, _TOP, _MARGIN = 22, 92, 12
"""The height of a row, where the first one begins, and the margin, in pixels."""
_PITCH, _LETTER = 9, 6.7
"""The distance of two lines, and the width of a letter of the fixed-width font, in pixels."""
_LONGEST = 44
"""The largest number of letters of a layer's name; of longer ones the end is shown."""

_STYLE = """
svg { background: #ffffff }
text { font: 11px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #1a1a1a }
.said { font: 12px system-ui, sans-serif } .head { font: bold 14px system-ui, sans-serif }
.column { fill: #555555 } .page { fill: #ffffff } .even { fill: #f2f2f2 }
.line { fill: none; stroke: #6b6b6b; stroke-width: 1.3 } .into { fill: #6b6b6b }
.weights { fill: #0072b2; stroke: #0072b2 } .norm { fill: #ffffff; stroke: #0072b2 }
.join { fill: none; stroke: #c04e00 } .other { fill: #ffffff; stroke: #555555 }
.mark { stroke-width: 2 } .bar { fill: #0072b2 } .room { fill: #dcdcdc }
@media (prefers-color-scheme: dark) {
svg { background: #16181c } text { fill: #eeeeee } .column { fill: #b0b0b0 }
.page { fill: #16181c } .even { fill: #202329 } .line { stroke: #9a9a9a } .into { fill: #9a9a9a }
.weights { fill: #56b4e9; stroke: #56b4e9 } .norm { fill: #16181c; stroke: #56b4e9 }
.join { stroke: #f0823c } .other { fill: #16181c; stroke: #b0b0b0 }
.bar { fill: #56b4e9 } .room { fill: #41454d }
}
"""
"""Colours like those of Okabe and Ito's palette; each has a contrast of at least 3:1 to its background."""


@dataclass(frozen=True)
class _Line:
    """A result that rows further below read: the row that makes it, the rows that read it, and its place."""

    source: int
    readers: list[int]
    column: int


def network_as_svg(summary: Summary) -> str:
    """Return an SVG document without scripts, for light and dark pages.

    Layers and operations stand from top to bottom in the order of the forward pass. A result that is read by the next
    row alone goes straight down; any other one has a line of its own at the left, with an arrow at each reader.
    """
    nodes = summary.nodes
    lines = _lines(nodes)
    column = max((line.column for line in lines), default=-1) + 1
    spine = _MARGIN + column * _PITCH + 12
    names = spine + 18
    longest = max((len(_short(node.name)) for node in nodes), default=0)
    kinds = max((len(node.type) for node in nodes), default=0)
    places = [names, names + longest * _LETTER + 14]
    places.append(places[-1] + kinds * _LETTER + 110)  # right end of the outputs
    places += [places[-1] + 90, places[-1] + 190]
    trained = summary.nonzero is not None
    width = round(places[-1] + (130 if trained else 0) + _MARGIN)
    said = [part for line in totals(summary) for part in textwrap.wrap(line, int((width - 2 * _MARGIN) / 6.6))]
    top = _TOP + 18 * (len(said) - 1)
    height = top + len(nodes) * _ROW + _MARGIN
    body = [*_shades(len(nodes), top, width), *_heads(places, top, trained=trained)]
    body += [part for line in lines for part in _drawn(line, spine, top, nodes)]
    body += _spine(nodes, spine, top)
    for number, node in enumerate(nodes):
        body += _row(node, summary, _middle(number, top), spine, places)
    return "\n".join([*_beginning(summary.model, said, width, height), *body, "</svg>", ""])


def _lines(nodes: Sequence[Node]) -> list[_Line]:
    """Return the lines beside the rows, each in the first column that is free over its rows."""
    readers: dict[int, list[int]] = {}
    for number, node in enumerate(nodes):
        for source in node.reads:
            if number > source + 1:
                readers.setdefault(source, []).append(number)
    free_from: list[int] = []
    found = []
    for source, rows in sorted(readers.items()):
        column = next((place for place, row in enumerate(free_from) if row <= source), len(free_from))
        if column == len(free_from):
            free_from.append(0)
        free_from[column] = max(rows)
        found.append(_Line(source, rows, column))
    return found


def _drawn(line: _Line, spine: int, top: int, nodes: Sequence[Node]) -> Iterator[str]:
    """Yield a line: out of its row, down, and into each row that reads it."""
    x = spine - 12 - line.column * _PITCH
    begin, end = _middle(line.source, top) + 4, _middle(line.readers[-1], top) - 8
    said = f"{nodes[line.source].name} is read by {', '.join(nodes[row].name for row in line.readers)}"
    yield f'<g role="img"><title>{escape(said)}</title>'
    yield f'<path class="line" d="M{spine} {begin}H{x + 4}q-4 0 -4 4V{end}"/>'
    for row in line.readers:
        y = _middle(row, top) - 4
        yield f'<path class="line" d="M{x} {y - 4}q0 4 4 4H{spine - 8}"/>'
        yield f'<path class="into" d="M{spine - 6} {y}l-5 -3v6z"/>'
    yield "</g>"


def _spine(nodes: Sequence[Node], spine: int, top: int) -> Iterator[str]:
    """Yield a line from each row to the next one where that reads it."""
    for number, node in enumerate(nodes):
        if number and number - 1 in node.reads:
            yield f'<path class="line" d="M{spine} {_middle(number - 1, top)}V{_middle(number, top)}"/>'


def _row(node: Node, summary: Summary, y: int, spine: int, places: Sequence[float]) -> Iterator[str]:
    layer = None if node.layer is None else summary.layers[node.layer]
    said = [f"{node.name or summary.model}: {node.type}, output {shown(node.output)}"]
    if layer is not None and layer.parameters:
        said.append(f"{layer.parameters:,} parameters, {layer.macs:,} MACs")
    if layer is not None and (sparsity := percent(layer)):
        said.append(f"sparsity {sparsity}")
    yield f'<g role="img"><title>{escape("; ".join(said))}</title>'
    yield _mark(node, layer, spine, y)
    yield f'<text x="{places[0]:.1f}" y="{y + 4}">{escape(_short(node.name) or "(itself)")}</text>'
    yield f'<text class="column" x="{places[1]:.1f}" y="{y + 4}">{escape(node.type)}</text>'
    yield _right(places[2], y, shown(node.output))
    if layer is not None:
        yield _right(places[3], y, f"{layer.parameters:,}" if layer.parameters else "")
        yield _right(places[4], y, f"{layer.macs:,}" if layer.macs else "")
        if layer.nonzero is not None and layer.weights:
            zeros = 1 - layer.nonzero / layer.weights
            left = places[4] + 14
            yield f'<rect class="room" x="{left:.1f}" y="{y - 4}" width="50" height="8"/>'
            yield f'<rect class="bar" x="{left:.1f}" y="{y - 4}" width="{50 * zeros:.1f}" height="8"/>'
            yield _right(left + 116, y, percent(layer))
    yield "</g>"


def _right(x: float, y: int, text: str) -> str:
    return f'<text text-anchor="end" x="{x:.1f}" y="{y + 4}">{text}</text>' if text else ""


def _heads(places: Sequence[float], top: int, *, trained: bool) -> Iterator[str]:
    y = top - 8
    yield f'<text class="column" x="{places[0]:.1f}" y="{y}">layer</text>'
    heads = [(places[2], "output"), (places[3], "parameters"), (places[4], "MACs")]
    for x, head in [*heads, *([(places[4] + 130, "sparsity")] if trained else [])]:
        yield f'<text class="column" text-anchor="end" x="{x:.1f}" y="{y}">{head}</text>'


def _beginning(name: str, said: Sequence[str], width: int, height: int) -> Iterator[str]:
    """Yield the beginning of the document: what it is, the styles, and what the marks mean."""
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
        ' role="group" aria-labelledby="title desc">'
    )
    yield f'<title id="title">{escape(f"Layers of {name}")}</title>'
    yield f'<desc id="desc">{escape(". ".join(said))}. From top to bottom in the order of the forward pass.</desc>'
    yield f"<style>{_STYLE}</style>"
    yield f'<rect class="page" width="{width}" height="{height}"/>'
    yield f'<text class="head" x="{_MARGIN}" y="22">{escape(name)}</text>'
    for number, line in enumerate(said):
        yield f'<text class="said" x="{_MARGIN}" y="{40 + 18 * number}">{escape(line)}</text>'
    x, y = _MARGIN + 6, 60 + 18 * (len(said) - 1)
    for look, meaning, step in (("weights", "weights", 76), ("norm", "normalization", 110), ("join", "joins", 62)):
        yield _shape(look, x, y - 4)
        yield f'<text class="said" x="{x + 12}" y="{y}">{meaning}</text>'
        x += step
    yield _shape("other", x, y - 4)
    yield f'<text class="said" x="{x + 12}" y="{y}">no parameters</text>'


def _mark(node: Node, layer: LayerSummary | None, x: int, y: int) -> str:
    if layer is not None and layer.parameters:
        return _shape("norm" if not layer.weights else "weights", x, y)
    return _shape("join" if len(node.reads) > 1 else "other", x, y)


def _shape(look: str, x: int, y: int) -> str:
    if look == "weights":
        return f'<rect class="mark weights" x="{x - 5}" y="{y - 5}" width="10" height="10"/>'
    if look == "norm":
        return f'<path class="mark norm" d="M{x} {y - 6}l6 6l-6 6l-6 -6z"/>'
    if look == "join":
        return f'<path class="mark join" d="M{x - 6} {y}h12M{x} {y - 6}v12"/>'
    return f'<circle class="mark other" cx="{x}" cy="{y}" r="4"/>'


def _shades(count: int, top: int, width: int) -> Iterator[str]:
    """Yield the background of every other row."""
    for place in range(0, count, 2):
        yield f'<rect class="even" x="0" y="{top + place * _ROW}" width="{width}" height="{_ROW}"/>'


def _middle(place: int, top: int) -> int:
    return top + place * _ROW + _ROW // 2


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"...{name[3 - _LONGEST :]}"
