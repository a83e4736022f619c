"""The colours of the pages, for a light and for a dark setting.

A drawing is made in the light colours; `svg` turns each into a CSS variable, so that one drawing serves both settings.
The six hues are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), darker or lighter where the contrast to the
page would be less than 3:1. What is told by a hue is told by a line style, a hatch or a text, too.
"""

from collections.abc import Iterator, Mapping

PAGE, INK, MUTED, GRID, SHADE = "page", "ink", "muted", "grid", "shade"
"""The background, text, text of less weight, lines of a grid, and areas behind everything."""

LIGHT: Mapping[str, str] = {
    "page": "#ffffff",
    "ink": "#1b1d21",
    "muted": "#585d66",
    "grid": "#dcdee2",
    "shade": "#f1f2f4",
    "blue": "#0072b2",
    "red": "#d55e00",
    "green": "#00805d",
    "purple": "#a8578a",
    "ochre": "#946c00",
    "grey": "#7a7f88",
}
DARK: Mapping[str, str] = {
    "page": "#16181c",
    "ink": "#eceef1",
    "muted": "#a9aeb8",
    "grid": "#363a42",
    "shade": "#22252b",
    "blue": "#56b4e9",
    "red": "#f0823c",
    "green": "#2fc39a",
    "purple": "#dd9cc4",
    "ochre": "#e0b93a",
    "grey": "#8f959f",
}
HUES = ("blue", "red", "green", "purple", "ochre", "grey")

LEVELS = 10
"""Steps of the scale from 0 to 100 %: pale to dark on a light page, dark to pale on a dark one."""
_LIGHT_SCALE = (
    "#edf3f9", "#d9e7f3", "#c1d9ec", "#a3c8e2", "#7fb4d7", "#5b9dc9", "#3d85b8", "#266ca3", "#15548a", "#0a3b6b",
)  # fmt: skip
_DARK_SCALE = (
    "#202833", "#233446", "#27425c", "#2b5273", "#30648c", "#3a79a5", "#4f90bd", "#6fa9d2", "#97c4e4", "#c9e2f4",
)  # fmt: skip


def hue(name: str) -> str:
    """Return the colour in which a drawing is made, by its name."""
    return LIGHT[name]


def level(fraction: float) -> str:
    """Return the colour of a fraction on the scale; exactly 0 has one of its own, that of the page."""
    return _LIGHT_SCALE[min(max(int(fraction * LEVELS), 0), LEVELS - 1)]


def variables() -> Mapping[str, str]:
    """Return the CSS variable of each colour of a drawing."""
    names = {LIGHT[name]: f"var(--{name})" for name in LIGHT}
    return names | {colour: f"var(--scale{number})" for number, colour in enumerate(_LIGHT_SCALE)}


def declarations(*, dark: bool) -> Iterator[str]:
    """Yield a CSS declaration for each colour of a setting."""
    for name, colour in (DARK if dark else LIGHT).items():
        yield f"--{name}: {colour}"
    for number, colour in enumerate(_DARK_SCALE if dark else _LIGHT_SCALE):
        yield f"--scale{number}: {colour}"
