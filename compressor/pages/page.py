"""A page: sections with drawings, tables and sentences, as one HTML file that needs no script and no network."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from compressor.pages.palette import declarations
from compressor.pages.svg import Board, settings, writable

WIDE, HALF, NARROW = 1040, 500, 336
"""The widths of drawings in pixels: of a whole line of the page, of half of it, and of a telephone's screen."""


@dataclass(frozen=True)
class Table:
    """A table: its heads, and rows of cells. The cells from `left` on are numbers, aligned at their right."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1


@dataclass(frozen=True)
class Drawing:
    """A figure of a page.

    `draw` is given a width in pixels: the page has a drawing for wide screens and one for narrow ones, and shows one of
    them. `description`: what it shows, for those who do not see it. `beside`: how many stand side by side on a wide
    screen.
    """

    name: str
    title: str
    description: str
    draw: Callable[[int], Board]
    caption: str = ""
    table: Table | None = None
    beside: int = 1

    def elements(self) -> list[tuple[str, Markup]]:
        """Return the drawings with the class of each; one for all screens where it is as narrow as a telephone's."""
        widths = (
            {"wide": WIDE if self.beside == 1 else HALF, "narrow": NARROW} if self.beside < 3 else {"every": NARROW}
        )
        return [
            (kind, Markup(self.draw(width).element(f"{self.name}-{kind}", self.title, self.description)))
            for kind, width in widths.items()
        ]


@dataclass(frozen=True)
class Section:
    """A part of a page under a heading. `missing`: in one line, why it has no drawing."""

    name: str
    heading: str
    drawings: Sequence[Drawing] = ()
    said: Sequence[str] = ()
    missing: str | None = None
    table: Table | None = None


@dataclass(frozen=True)
class Number:
    """A figure in large type: what it is, its value, and sentences below it; `spread`: how far measurements differ."""

    label: str
    value: str
    said: Sequence[str] = ()
    spread: str = ""


@dataclass(frozen=True)
class Head:
    """The top of a page: its title, what it is about, figures in large type, pairs of facts, and warnings."""

    title: str
    kind: str
    said: Sequence[str] = ()
    numbers: Sequence[Number] = ()
    facts: Sequence[tuple[str, str]] = ()
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Files:
    """Texts at the end of a page, each under its name."""

    texts: Sequence[tuple[str, str]] = field(default=())


def render(head: Head, sections: Sequence[Section], files: Files = Files()) -> str:
    """Return the page. All names and texts are escaped."""
    with settings():
        return (
            _environment()
            .get_template("page.html")
            .render(
                head=head,
                sections=sections,
                files=files.texts,
                light=list(declarations(dark=False)),
                dark=list(declarations(dark=True)),
            )
        )


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("compressor.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )


def _shown(value: object) -> object:
    """Return a value as it is shown: of a text, that was none in UTF-8, what can be written."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return "\n".join(writable(line) for line in value.split("\n"))
    return value
