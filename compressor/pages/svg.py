"""Drawings of matplotlib as SVG elements for a page: text stays text, colours are CSS variables, names are unique."""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from compressor.pages.palette import GRID, INK, MUTED, hue, variables

TEXT = 12.0
"""The size of letters in a drawing, in pixels."""
_LETTER = 7.0
"""The width of a letter, in pixels: of most fonts that a reader has, less."""
_SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "compressor",
    "text.parse_math": False,  # a layer may have any name
    "font.family": "DejaVu Sans",
    "font.size": TEXT,
    "text.color": hue(INK),
    "axes.edgecolor": hue(GRID),
    "axes.facecolor": "none",
    "axes.linewidth": 1.0,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "axes.formatter.useoffset": False,  # a tick says its whole value
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": hue(GRID),
    "grid.linewidth": 1.0,
    "xtick.color": hue(GRID),
    "ytick.color": hue(GRID),
    "xtick.labelcolor": hue(MUTED),
    "ytick.labelcolor": hue(MUTED),
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "xtick.minor.size": 0,
    "hatch.linewidth": 1.0,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
}
_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML, and so an SVG, cannot have."""
_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_COLOUR = re.compile("#[0-9a-f]{6}")


@contextmanager
def settings() -> Iterator[None]:
    """Draw inside the block as the pages do, whatever the user's own settings of matplotlib are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def writable(text: str) -> str:
    """Return a text in one line, with a mark in place of what XML cannot have."""
    return _UNWRITABLE.sub("\ufffd", re.sub(r"[\t\n\r]+", " ", text))


def short(text: str, most: int) -> str:
    """Return a text of at most `most` letters: of a longer one the beginning and the end."""
    text = writable(text)
    if len(text) <= most:
        return text
    head = (most - 1) // 3
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def boxes(axes: Axes, found: Sequence[tuple[float, float, float, float, str]], **options: Any) -> None:
    """Draw rectangles, each (left, bottom, width, height, colour): at once, since each artist takes its time."""
    corners = [
        [(left, low), (left + wide, low), (left + wide, low + high), (left, low + high)]
        for left, low, wide, high, _ in found
    ]
    made = PolyCollection(corners, facecolors=[colour for *_, colour in found], linewidths=0, **options)
    axes.add_collection(made, autolim=False)


def text_width(text: str) -> float:
    """Return about how wide a text is, in pixels."""
    return _LETTER * len(text)


def key_width(name: str) -> float:
    """Return the width of a name and its sample in the key of a drawing."""
    return 23 + text_width(name) + 14


class Board:
    """A drawing of a width and a height in pixels, on which everything is placed by pixels from the upper left.

    It is made, drawn on and finished inside one block of `settings`.
    """

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self._figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        FigureCanvasSVG(self._figure)

    def panel(self, left: float, top: float, width: float, height: float, **options: Any) -> Axes:
        """Return axes with horizontal lines at the ticks."""
        place = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        axes = self._figure.add_axes(place, **options)
        axes.grid(axis="y")
        axes.tick_params(axis="x", length=3)
        return axes

    def text(self, x: float, y: float, text: str, **options: Any) -> None:
        """Write a text with its base line at `y`."""
        options.setdefault("fontsize", TEXT)
        options.setdefault("color", hue(INK))
        options.setdefault("parse_math", False)
        self._figure.text(x / self.width, 1 - y / self.height, writable(text), va="baseline", **options)

    def fitting(self, text: str, width: float) -> str:
        """Return a text shortened to a width in pixels."""
        return short(text, max(int(width / _LETTER), 4))

    def key(self, x: float, y: float, entries: Sequence[tuple[str, dict[str, Any]]], most: float) -> None:
        """Write the names of lines or areas beside a sample of each, in lines that end before `most`."""
        left = x
        for name, style in entries:
            size = key_width(name)
            if left > x and left + size > most:
                left, y = x, y + 16
            style, area = dict(style), style.get("area", False)
            style.pop("area", None)
            place = self._figure.transFigure
            if area:
                corner = (left / self.width, 1 - y / self.height)
                self._figure.add_artist(
                    Rectangle(corner, 16 / self.width, 9 / self.height, transform=place, **{"linewidth": 0, **style})
                )
            else:
                level = 1 - (y - 4) / self.height
                marker_alone = style.get("linestyle") == "none"
                ends = [left + 9] if marker_alone else [left, left + 18]
                places = [end / self.width for end in ends]
                self._figure.add_artist(Line2D(places, [level] * len(places), transform=place, **style))
            self.text(left + 23, y, name, color=hue(MUTED))
            left += size

    def element(self, name: str, title: str, description: str) -> str:
        """Return the drawing as an SVG element; `name` makes the names inside it unique on the page.

        `title` and `description` are read to those who do not see it.
        """
        made = io.StringIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a letter that the font does not have: the reader's font may
            self._figure.savefig(made, format="svg", metadata={"Date": None}, transparent=True)
        return _element(_UNWRITABLE.sub("\ufffd", made.getvalue()), name, title, description)


def _element(text: str, name: str, title: str, description: str) -> str:
    """Return what matplotlib wrote without its own styles, names and sizes."""
    root = ElementTree.fromstring(text)
    box = root.get("viewBox", "")
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag == f"{{{_SVG}}}metadata" or child.find(f"{{{_SVG}}}style") is not None:
                parent.remove(child)
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', text))
    for element in root.iter():
        _clean(element, name, used)
    root.attrib.clear()
    width = box.split()[2]
    root.attrib |= {"viewBox": box, "class": "plot", "role": "img", "style": f"max-width: {float(width) * 1.12:.0f}px"}
    root.set("aria-labelledby", f"{name}-title {name}-desc")
    for place, (tag, said) in enumerate((("title", title), ("desc", description))):
        child = ElementTree.Element(f"{{{_SVG}}}{tag}", {"id": f"{name}-{tag}"})
        child.text = writable(said)
        root.insert(place, child)
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _LINK)
    return re.sub(r">\s+<", "><", ElementTree.tostring(root, encoding="unicode"))


def _clean(element: ElementTree.Element, name: str, used: set[str]) -> None:
    """Change colours to variables, shorten numbers, and make the names that are used unique; remove the others."""
    own = element.get("id")
    if own is not None:
        del element.attrib["id"]
        if own in used:
            element.set("id", f"{name}-{own}")
    known = variables()
    for key, value in list(element.attrib.items()):
        if key in ("fill", "stroke"):  # an attribute cannot have a variable everywhere
            del element.attrib[key]
            key, value = "style", f"{key}: {value}; {element.get('style', '')}"
        if key == "style":
            value = _COLOUR.sub(lambda found: known.get(found[0], found[0]), value)
            value = re.sub(r"font-family: [^;]*(; )?", "", value)
        if key in ("style", "clip-path"):
            value = value.replace("url(#", f"url(#{name}-")
        if key == f"{{{_LINK}}}href":
            value = value.replace("#", f"#{name}-")
        if key == "transform" and value.startswith("rotate(-0 "):
            del element.attrib[key]
            continue
        element.set(key, _NUMBER.sub(lambda found: f"{float(found[0]):.2f}", value.replace("\n", " ")).strip())
